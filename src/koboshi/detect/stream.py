"""One step of the detector for one robot, in NumPy: the arithmetic of `FaultDetector.step` with weights folded.

Arrays are small, so calls cost more than arithmetic: what can be multiplied into weights beforehand is, results go
into arrays made beforehand, and sigmoids are tanh's, which cannot overflow.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Array = np.ndarray


class OneRobot:
    """(D,) senses and (S,) state -> (J,) logits and (S,) the next state; every result is a new array."""

    def __init__(self, weights: Mapping[str, Array], torque: slice, clip: float, most: float, silent: float) -> None:
        """`weights`: a detector's state; `torque`: where measured torques lie in the senses; see detect.model."""
        w = {name: np.array(value, order="C") for name, value in weights.items()}
        self._torque, self._clip, self._most = torque, clip, most
        self._limit, self._scale, self._floor = w["effort_limit"], w["inv_scale"], w["floor"]
        self._law, self._law_offset = w["law_matrix"], w["law_offset"]
        # (f - mean) · inv_std, clipped, then weighed: the standard deviations go into the limits and the weights.
        self._mean, self._reach = w["mean"], clip / w["inv_std"]
        self._embed, self._embed_bias = w["embed.weight"] * w["inv_std"], w["embed.bias"]
        hidden = w["memory.cell.weight_hh"].shape[1]
        # sigmoid(x) = (1 + tanh(x / 2)) / 2, the halving of x folded in.
        half = np.ones((3 * hidden, 1), dtype=np.float32)
        half[: 2 * hidden] = 0.5
        self._of_input, self._of_memory = half * w["memory.cell.weight_ih"], half * w["memory.cell.weight_hh"]
        self._input_bias, self._memory_bias = (
            half[:, 0] * w["memory.cell.bias_ih"],
            half[:, 0] * w["memory.cell.bias_hh"],
        )
        self._weigh_in, self._weigh_in_bias = w["weigh_in.weight"], w["weigh_in.bias"][:, None]
        self._weigh_out, self._weigh_out_bias = w["weigh_out.weight"][0], w["weigh_out.bias"]
        heard = w["candidate"].astype(np.float32)
        self._head = w["head.weight"] * heard[:, None]
        self._head_bias = np.where(w["candidate"], w["head.bias"], np.float32(silent))
        self._gain, self._own_gain = w["gain"][0] * heard, w["gain"][1] * heard
        self._hidden, self._joints, self._senses = hidden, len(heard), w["law_matrix"].shape[1]
        self._features = np.empty(len(w["mean"]), dtype=np.float32)
        self._own = np.empty((5, len(heard)), dtype=np.float32)

    def __call__(self, obs: Array, hidden: Array) -> tuple[Array, Array]:
        features, row = self._read(obs)
        features -= self._mean
        np.maximum(features, -self._reach, out=features)
        np.minimum(features, self._reach, out=features)
        after = np.empty_like(hidden)
        memory = self._remember(_elu(self._embed.dot(features), self._embed_bias), hidden[: self._hidden])
        evidence = hidden[self._hidden :] + row
        np.maximum(evidence, 0.0, out=evidence)
        np.minimum(evidence, self._most, out=evidence)
        after[: self._hidden], after[self._hidden :] = memory, evidence
        logits = self._head.dot(memory)
        logits += self._head_bias
        evidence *= self._gain
        logits += evidence
        row *= self._own_gain
        logits += row
        return logits, after

    def _read(self, obs: Array) -> tuple[Array, Array]:
        """(D + 5J,) features, not normalised, and (J,) evidence of this row alone."""
        j, d, features, own = self._joints, self._senses, self._features, self._own
        measured, expected = obs[self._torque], self._law.dot(obs)
        expected += self._law_offset
        np.maximum(expected, -self._limit, out=expected)
        np.minimum(expected, self._limit, out=expected)
        residual = expected - measured
        features[:d] = obs
        scaled = np.concatenate((measured, expected, residual))
        scaled *= self._scale
        np.arcsinh(scaled, out=features[d : d + 3 * j])
        size, missing = features[d + 3 * j : d + 4 * j], features[d + 4 * j :]
        np.abs(scaled[:j], out=size)
        np.minimum(size, self._clip, out=size)
        residual *= expected
        expected *= expected
        expected += self._floor
        np.divide(residual, expected, out=missing)
        np.maximum(missing, -3.0, out=missing)
        np.minimum(missing, 3.0, out=missing)
        flat = own.reshape(-1)
        np.abs(features[d : d + 4 * j], out=flat[: 4 * j])
        flat[4 * j :] = missing
        row = self._weigh_out.dot(_elu(self._weigh_in.dot(own), self._weigh_in_bias))
        row += self._weigh_out_bias
        return features, row

    def _remember(self, embedded: Array, memory: Array) -> Array:
        """One step of the GRU (Cho et al. 2014, in PyTorch's form)."""
        h = self._hidden
        inner, outer = self._of_input.dot(embedded), self._of_memory.dot(memory)
        inner += self._input_bias
        outer += self._memory_bias
        gates = inner[: 2 * h] + outer[: 2 * h]
        np.tanh(gates, out=gates)
        gates += 1.0
        gates *= 0.5
        new = outer[2 * h :]
        new *= gates[:h]
        new += inner[2 * h :]
        np.tanh(new, out=new)
        kept = memory - new
        kept *= gates[h:]
        kept += new
        return kept


def _elu(x: Array, bias: Array) -> Array:
    """elu(x + bias), in place of x: max(x, 0) + exp(min(x, 0)) - 1."""
    x += bias
    below = np.minimum(x, 0.0)
    np.exp(below, out=below)
    below -= 1.0
    np.maximum(x, 0.0, out=x)
    x += below
    return x
