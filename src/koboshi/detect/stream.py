"""One step of the detector for one robot, in NumPy: the arithmetic of `FaultDetector.step` with weights folded.

Arrays are small, so calls cost more than arithmetic: what can be multiplied into weights beforehand is, results go
into arrays made beforehand, and sigmoids are tanh's, which cannot overflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Row(NamedTuple):
    """As `detect.base.Reading`, of one robot; without kinds and severities where it tells none."""

    logit: Array
    kind: Array | None = None
    severity: Array | None = None


class OneRobot:
    """(D,) senses and (S,) state -> a `Row` and (S,) the next state; every result is a new array."""

    def __init__(
        self, weights: Mapping[str, Array], torque: slice, dt: float, clip: float, most: float, silent: float
    ) -> None:
        """`weights`: a detector's state; `torque`: where measured torques lie in the senses; `dt`: the control period,
        s; see detect.model."""
        w = {name: np.array(value, order="C") for name, value in weights.items()}
        self._torque, self._clip, self._most = torque, clip, most
        self._limit, self._scale, self._floor = w["effort_limit"], w["inv_scale"], w["floor"]
        self._law, self._law_offset = w["law_matrix"], w["law_offset"]
        # (f - mean) · inv_std, clipped, then weighed: the standard deviations go into the limits and the weights.
        self._mean, self._reach = w["mean"], clip / w["inv_std"]
        self._embed, self._embed_bias = w["embed.weight"] * w["inv_std"], w["embed.bias"]
        self._memory = _Gru(w, "memory.cell")
        self._weigh_in, self._weigh_in_bias = w["weigh_in.weight"], w["weigh_in.bias"][:, None]
        self._weigh_out, self._weigh_out_bias = w["weigh_out.weight"][0], w["weigh_out.bias"]
        heard = w["candidate"].astype(np.float32)
        self._head = w["head.weight"] * heard[:, None]
        self._head_bias = np.where(w["candidate"], w["head.bias"], np.float32(silent))
        self._gain, self._own_gain = w["gain"][0] * heard, w["gain"][1] * heard
        self._joints, self._senses = len(heard), w["law_matrix"].shape[1]
        self._own_evidence = slice(self._memory.width, self._memory.width + self._joints)
        self._features = np.empty(len(w["mean"]), dtype=np.float32)
        self._own = np.empty((5, len(heard)), dtype=np.float32)
        self._reader = _Joints(w, dt, clip) if "joints.place" in w else None

    def __call__(self, obs: Array, hidden: Array) -> tuple[Row, Array]:
        features, row = self._read(obs)
        features -= self._mean
        np.maximum(features, -self._reach, out=features)
        np.minimum(features, self._reach, out=features)
        after = np.empty_like(hidden)
        width = self._memory.width
        memory = self._memory(_elu(self._embed.dot(features), self._embed_bias), hidden[:width])
        evidence = hidden[self._own_evidence] + row
        np.maximum(evidence, 0.0, out=evidence)
        np.minimum(evidence, self._most, out=evidence)
        after[:width], after[self._own_evidence] = memory, evidence
        logits = self._head.dot(memory)
        logits += self._head_bias
        evidence *= self._gain
        logits += evidence
        row *= self._own_gain
        logits += row
        if self._reader is None:
            return Row(logits), after
        rest = self._own_evidence.stop
        read, after[rest:] = self._reader(obs, features, memory, hidden[rest:])
        return read._replace(logit=logits + read.logit), after

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


class _Gru:
    """One step of a GRU (Cho et al. 2014, in PyTorch's form), for one memory or a row each."""

    def __init__(self, weights: Mapping[str, Array], name: str) -> None:
        of_input, of_memory, input_bias, memory_bias = (
            weights[f"{name}.{part}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        self.width = of_memory.shape[1]
        # sigmoid(x) = (1 + tanh(x / 2)) / 2, the halving of x folded in.
        half = np.ones(3 * self.width, dtype=np.float32)
        half[: 2 * self.width] = 0.5
        self._of_input, self._of_memory = (np.ascontiguousarray(half * x.T) for x in (of_input, of_memory))
        self._input_bias, self._memory_bias = half * input_bias, half * memory_bias

    def __call__(self, x: Array, memory: Array) -> Array:
        h = self.width
        inner, outer = x.dot(self._of_input), memory.dot(self._of_memory)
        inner += self._input_bias
        outer += self._memory_bias
        gates = inner[..., : 2 * h] + outer[..., : 2 * h]
        np.tanh(gates, out=gates)
        gates += 1.0
        gates *= 0.5
        new = outer[..., 2 * h :]
        new *= gates[..., :h]
        new += inner[..., 2 * h :]
        np.tanh(new, out=new)
        kept = memory - new
        kept *= gates[..., h:]
        kept += new
        return kept


class _Joints:
    """One row of a `JointReader`."""

    def __init__(self, w: Mapping[str, Array], dt: float, clip: float) -> None:
        self._changes = _Changes(w, dt, clip)
        self._inv_std, self._place = w["inv_std"], w["joints.place"]
        embed, told = w["joints.embed.weight"], w["joints.context.weight"].shape[0]
        self._of_own, of_robot = np.ascontiguousarray(embed[:, :-told].T), embed[:, -told:]
        self._of_robot = of_robot @ w["joints.context.weight"]
        self._bias = w["joints.embed.bias"] + of_robot @ w["joints.context.bias"]
        self._memory = _Gru(w, "joints.memory.cell")
        self._head, self._head_bias = np.ascontiguousarray(w["joints.head.weight"].T), w["joints.head.bias"]
        terms, joints = self._place.shape
        self._features = np.zeros(len(w["mean"]) + 1, dtype=np.float32)  # the last is that of terms which are missing
        self._own, self._terms = np.empty((terms + 5, joints), dtype=np.float32), terms
        self._heard, self._middle = w["candidate"].astype(np.float32), (joints - 1) // 2

    def __call__(self, obs: Array, features: Array, context: Array, state: Array) -> tuple[Row, Array]:
        """(D,) senses, (F,) features without their deviations, (W,) of the whole robot, (S,) carried."""
        own, terms, carried = self._own, self._terms, self._changes.carried
        np.multiply(features, self._inv_std, out=self._features[:-1])
        np.take(self._features, self._place, out=own[:terms])
        missing = own[terms - 1]
        np.subtract(missing, np.sort(missing)[self._middle], out=own[terms])
        after = np.empty_like(state)
        own[terms + 1 : terms + 3] = self._changes(obs, state[-carried:], after[-carried:])
        np.abs(own[terms + 1 : terms + 3], out=own[terms + 3 :])
        rows = _elu(own.T.dot(self._of_own), self._of_robot.dot(context) + self._bias)
        memory = self._memory(rows, state[:-carried].reshape(len(rows), -1))
        after[:-carried] = memory.reshape(-1)
        logit, severity, *kinds = (memory.dot(self._head) + self._head_bias).T
        return Row(logit * self._heard, np.stack(kinds), 0.5 + 0.5 * np.tanh(0.5 * severity)), after


class _Changes:
    """One row of `detect.changes.Changes`."""

    def __init__(self, w: Mapping[str, Array], dt: float, clip: float) -> None:
        self._clip = clip
        self._columns, self._half_dt = w["joints.changes.columns"], np.float32(0.5 * dt)
        senses = w["law_matrix"].shape[1]
        self._obs = np.zeros(senses + 1, dtype=np.float32)  # the last is what is not sensed
        self._inv_scale = w["joints.changes.inv_scale"] * (self._columns < senses)
        self.carried = self._columns.size + 1

    def __call__(self, obs: Array, before: Array, after: Array) -> Array:
        """(D,) senses, (S,) carried -> (2, J); fills `after` with what is to be carried on."""
        self._obs[:-1] = obs
        motion = np.take(self._obs, self._columns)
        after[:-1], after[-1] = motion.reshape(-1), 1.0
        (q0, v0), (q1, v1) = before[:-1].reshape(motion.shape), motion
        found = np.stack((q1 - q0 - self._half_dt * (v0 + v1), v1 - v0))
        found *= self._inv_scale
        found *= before[-1]
        np.arcsinh(found[0], out=found[0])
        np.maximum(found[1], -self._clip, out=found[1])
        np.minimum(found[1], self._clip, out=found[1])
        return found


def _elu(x: Array, bias: Array) -> Array:
    """elu(x + bias), in place of x: max(x, 0) + exp(min(x, 0)) - 1."""
    x += bias
    below = np.minimum(x, 0.0)
    np.exp(below, out=below)
    below -= 1.0
    np.maximum(x, 0.0, out=x)
    x += below
    return x
