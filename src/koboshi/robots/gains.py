"""Gains of a joint's servo from its rotor, so that it answers at a frequency and a damping that are wished for."""

from __future__ import annotations

import math
from typing import NamedTuple

from koboshi.errors import KoboshiError

ACTION_SHARE = 0.25


class Answer(NamedTuple):
    """How a rotor alone is to answer; with a link on it the same gains make a slower and less damped joint.

    BeyondMimic's (Liao et al. 2025), whose action scale is a quarter of what the effort limit could hold.
    """

    frequency_hz: float = 10.0
    damping_ratio: float = 2.0

    def check(self) -> None:
        """KoboshiError for what no servo answers with."""
        for name, value in self._asdict().items():
            if not 0 < value < math.inf:
                raise KoboshiError(f"a servo's {name} is above 0, not {value}")


class Gains(NamedTuple):
    """N·m/rad, N·m·s/rad, and the action scale, rad."""

    stiffness: float
    damping: float
    action_scale: float


def proposed_gains(armature: float, effort_limit: float, answer: Answer = Answer()) -> Gains | None:  # noqa: B008 (frozen)
    """kp = I ω², kd = 2 ζ I ω of a rotor with inertia I (`armature`, kg·m²); None where it has none."""
    if armature <= 0:
        return None
    omega = 2 * math.pi * answer.frequency_hz
    stiffness = armature * omega**2
    return Gains(stiffness, 2 * answer.damping_ratio * armature * omega, ACTION_SHARE * effort_limit / stiffness)
