"""What a robot senses, as the observation groups that an exported program takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Senses(NamedTuple):
    """One moment of one robot; J joints in the contract's order."""

    base_lin_vel: Array
    """(3,) m/s, in the base's frame."""
    base_ang_vel: Array
    """(3,) rad/s, in the base's frame: a gyroscope's."""
    projected_gravity: Array
    """(3,) direction of gravity in the base's frame."""
    command: Array
    """(3,) v_x, v_y (m/s), yaw rate (rad/s)."""
    joint_pos: Array
    """(J,) rad."""
    joint_vel: Array
    """(J,) rad/s."""
    joint_torque: Array
    """(J,) N·m."""


Term = Callable[[Senses, Array, Array], Array]
"""term(senses, default joint positions, last action) -> its numbers of all joints, or its own."""

TERMS: dict[str, Term] = {
    "base_lin_vel": lambda senses, default, action: senses.base_lin_vel,
    "base_ang_vel": lambda senses, default, action: senses.base_ang_vel,
    "projected_gravity": lambda senses, default, action: senses.projected_gravity,
    "velocity_command": lambda senses, default, action: senses.command,
    "joint_pos": lambda senses, default, action: senses.joint_pos - default,
    "joint_vel": lambda senses, default, action: senses.joint_vel,
    "joint_torque": lambda senses, default, action: senses.joint_torque,
    "last_action": lambda senses, default, action: action,
}
"""Observation terms that a robot can compute, by the names of their functions in `envs.terms.observations`."""


class Observer:
    """Fills observation groups step by step, each with its histories."""

    def __init__(self, groups: Mapping[str, Mapping[str, Any]], default_joint_pos: Array) -> None:
        """groups: `observations` of a contract."""
        self._groups, self._default = groups, default_joint_pos
        self._past: dict[str, Array] = {}

    def reset(self) -> None:
        """The next step is the first of an episode."""
        self._past.clear()

    def observe(self, senses: Senses, last_action: Array) -> dict[str, NDArray[np.float32]]:
        """Group -> (1, d); a group's base comes first."""
        out: dict[str, NDArray[np.float32]] = {}
        for name, group in self._groups.items():
            terms = [self._term(name, term, senses, last_action) for term in group["terms"]]
            value = np.concatenate(terms)
            if group["history_length"] > 1:
                past = self._remembered(name, value, group["history_length"])
                value = (past[::-1] if group["newest_first"] else past).ravel()
            row = value.astype(np.float32)[None]
            out[name] = row if group["base"] is None else np.concatenate((out[group["base"]], row), axis=1)
        return out

    def _term(self, group: str, term: Mapping[str, Any], senses: Senses, last_action: Array) -> Array:
        value = TERMS[term["func"]](senses, self._default, last_action)
        if term["joints"] is not None:
            value = value[term["joints"]]
        value = value * term["scale"]
        if term["clip"] is not None:
            value = value.clip(-term["clip"], term["clip"])
        if term["history"] > 1:
            value = self._remembered(f"{group}.{term['name']}", value, term["history"]).ravel()
        return value

    def _remembered(self, name: str, value: Array, length: int) -> Array:
        """(length, d) oldest first; an episode begins as if it had always been so."""
        past = self._past.get(name)
        past = np.repeat(value[None], length, axis=0) if past is None else np.concatenate((past[1:], value[None]))
        self._past[name] = past
        return past
