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
        self._memory = _Gru(w, "memory.cell", 1)
        self._weigh_in, self._weigh_in_bias = w["weigh_in.weight"], w["weigh_in.bias"][:, None]
        self._weigh_out, self._weigh_out_bias = w["weigh_out.weight"][0], w["weigh_out.bias"]
        heard = w["candidate"].astype(np.float32)
        self._head = w["head.weight"] * heard[:, None]
        self._head_bias = np.where(w["candidate"], w["head.bias"], np.float32(silent))
        self._gain, self._own_gain = w["gain"][0] * heard, w["gain"][1] * heard
        self._joints, self._senses = len(heard), w["law_matrix"].shape[1]
        self._own_evidence = slice(self._memory.width, self._memory.width + self._joints)
        self._features = np.empty(len(w["mean"]), dtype=np.float32)
        self._own = np.empty((self._weigh_in.shape[1], len(heard)), dtype=np.float32)
        self._reader = _Joints(w, dt, clip) if "joints.place" in w else None

    def __call__(self, obs: Array, hidden: Array) -> tuple[Row, Array]:
        features, row = self._read(obs)
        features -= self._mean
        np.maximum(features, -self._reach, out=features)
        np.minimum(features, self._reach, out=features)
        after = np.empty_like(hidden)
        width = self._memory.width
        _elu(np.dot(self._embed, features, out=self._memory.input[:, 0]), self._embed_bias)
        memory = self._memory(hidden[:width], after[:width])[:, 0]
        evidence = hidden[self._own_evidence] + row
        np.maximum(evidence, 0.0, out=evidence)
        np.minimum(evidence, self._most, out=evidence)
        after[self._own_evidence] = evidence
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
        """(F,) features, not normalised, and (J,) evidence of this row alone."""
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


class _Joints:
    """One row of a `JointReader`. Arrays are (numbers, J): what is done to a number is done to a contiguous row."""

    def __init__(self, w: Mapping[str, Array], dt: float, clip: float) -> None:
        terms, joints = w["joints.place"].shape
        self._inv_std, self._place, self._terms = w["inv_std"], w["joints.place"], terms
        embed, told = w["joints.embed.weight"], w["joints.context.weight"].shape[0]
        self._of_own, of_robot = np.ascontiguousarray(embed[:, :-told]), embed[:, -told:]
        self._of_robot = of_robot @ w["joints.context.weight"]
        self._bias = w["joints.embed.bias"] + of_robot @ w["joints.context.bias"]
        self._memory = _Gru(w, "joints.memory.cell", joints)
        self._head, self._head_bias = w["joints.head.weight"], w["joints.head.bias"][:, None]
        self._features = np.zeros(len(w["mean"]) + 1, dtype=np.float32)  # the last is that of terms which are missing
        self._own = np.empty((self._of_own.shape[1], joints), dtype=np.float32)
        self._changes = _Changes(w, dt, clip, self._own[terms + 1 : terms + 3])
        self._heard, self._middle = w["candidate"].astype(np.float32), (joints - 1) // 2

    def __call__(self, obs: Array, features: Array, context: Array, state: Array) -> tuple[Row, Array]:
        """(D,) senses, (F,) features without their deviations, (W,) of the whole robot, (S,) carried."""
        own, terms, carried = self._own, self._terms, self._changes.carried
        np.multiply(features, self._inv_std, out=self._features[:-1])
        own[:terms] = self._features[self._place]
        missing = own[terms - 1]
        np.subtract(missing, np.sort(missing)[self._middle], out=own[terms])
        after = np.empty_like(state)
        self._changes(obs, state[-carried:], after[-carried:])
        np.abs(own[terms + 1 : terms + 3], out=own[terms + 3 :])
        robot = self._of_robot.dot(context)
        robot += self._bias
        _elu(np.dot(self._of_own, own, out=self._memory.input), robot[:, None])
        memory = self._memory(state[:-carried], after[:-carried])
        told = self._head.dot(memory)
        told += self._head_bias
        logit, severity = told[0], told[1]
        logit *= self._heard
        severity *= 0.5
        np.tanh(severity, out=severity)
        severity *= 0.5
        severity += 0.5
        return Row(logit, told[2:], severity), after


class _Gru:
    """One step of a GRU (Cho et al. 2014, in PyTorch's form) for a memory in each of C columns, all matrices in one
    product. A sigmoid of x is (1 + tanh(x / 2)) / 2, so with r and z for the tanh of half the gates

        n = tanh(a + r b),  h' = n + (1 + z) (h - n) / 2,

    where b is half of what the memory adds to n, and a the other half and what the input adds.
    """

    def __init__(self, weights: Mapping[str, Array], name: str, columns: int) -> None:
        of_input, of_memory, input_bias, memory_bias = (
            weights[f"{name}.{part}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        self.width = width = of_memory.shape[1]
        inputs = of_input.shape[1]
        gates, new = slice(2 * width), slice(2 * width, None)
        all_of = np.zeros((4 * width, inputs + width + 1), dtype=np.float32)
        all_of[gates] = 0.5 * np.column_stack((of_input[gates], of_memory[gates], (input_bias + memory_bias)[gates]))
        half = 0.5 * np.column_stack((np.zeros_like(of_input[new]), of_memory[new], memory_bias[new]))
        all_of[2 * width : 3 * width] = half + np.column_stack(
            (of_input[new], np.zeros_like(of_memory[new]), input_bias[new])
        )
        all_of[3 * width :] = half
        self._weights = all_of
        self._joined = np.ones((inputs + width + 1, columns), dtype=np.float32)  # the last row stays: of biases
        self.input, self._before = self._joined[:inputs], self._joined[inputs:-1]
        self._result = np.empty((4 * width, columns), dtype=np.float32)
        self._gates = self._result[: 2 * width]
        self._reset, self._update, self._new, self._half = self._result.reshape(4, width, columns)

    def __call__(self, memory: Array, after: Array) -> Array:
        """memory and after (C·H,), a column after another; `input` (I, C) is to be filled first. (H, C), which the next
        call overwrites."""
        before, new, update = self._before, self._new, self._update
        before[:] = memory.reshape(before.shape[::-1]).T
        np.dot(self._weights, self._joined, out=self._result)
        np.tanh(self._gates, out=self._gates)
        self._half *= self._reset
        new += self._half
        np.tanh(new, out=new)
        before -= new
        update += 1.0
        update *= 0.5
        before *= update
        new += before
        after.reshape(before.shape[::-1])[:] = new.T
        return new


class _Changes:
    """One row of `detect.changes.Changes`, written into `found` (2, J)."""

    def __init__(self, w: Mapping[str, Array], dt: float, clip: float, found: Array) -> None:
        self._columns, self._half_dt, self._clip = w["joints.changes.columns"], np.float32(0.5 * dt), clip
        senses = w["law_matrix"].shape[1]
        self._obs = np.zeros(senses + 1, dtype=np.float32)  # the last is what is not sensed
        self._inv_scale = w["joints.changes.inv_scale"] * (self._columns < senses)
        self._found, self.carried = found, self._columns.size + 1

    def __call__(self, obs: Array, before: Array, after: Array) -> None:
        """(D,) senses, (S,) carried; fills `after` with what is to be carried on."""
        self._obs[:-1] = obs
        now = self._obs[self._columns]
        after[:-1], after[-1] = now.reshape(-1), 1.0
        (q0, v0), (q1, v1), (jump, change) = before[:-1].reshape(now.shape), now, self._found
        np.subtract(q1, q0, out=jump)
        np.subtract(v1, v0, out=change)
        v1 += v0
        v1 *= self._half_dt
        jump -= v1
        self._found *= self._inv_scale
        self._found *= before[-1]
        np.arcsinh(jump, out=jump)
        np.maximum(change, -self._clip, out=change)
        np.minimum(change, self._clip, out=change)


def _elu(x: Array, bias: Array) -> Array:
    """elu(x + bias), in place of x: max(x, exp(min(x, 0)) - 1)."""
    x += bias
    below = np.minimum(x, 0.0)
    np.exp(below, out=below)
    below -= 1.0
    return np.maximum(x, below, out=x)
