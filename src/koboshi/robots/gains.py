"""Gains of a joint's servo from its rotor, so that it answers at a frequency and a damping that are wished for."""

from __future__ import annotations

import math
from typing import NamedTuple

FREQUENCY_HZ, DAMPING_RATIO, ACTION_SHARE = 10.0, 2.0, 0.25
"""Of the rotor alone; with a link on it the same gains make a slower and less damped joint (BeyondMimic, Liao et al.
2025, whose action scale is a quarter of what the effort limit could hold)."""


class Gains(NamedTuple):
    """N·m/rad, N·m·s/rad, and the action scale, rad."""

    stiffness: float
    damping: float
    action_scale: float


def proposed_gains(
    armature: float, effort_limit: float, frequency_hz: float = FREQUENCY_HZ, damping_ratio: float = DAMPING_RATIO
) -> Gains | None:
    """kp = I ω², kd = 2 ζ I ω of a rotor with inertia I (`armature`, kg·m²); None where it has none."""
    if armature <= 0:
        return None
    omega = 2 * math.pi * frequency_hz
    stiffness = armature * omega**2
    return Gains(stiffness, 2 * damping_ratio * armature * omega, ACTION_SHARE * effort_limit / stiffness)
