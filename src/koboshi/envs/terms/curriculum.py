"""Curriculum terms: `term(env, mask, **params) -> float` (logged), called before the environments in `mask` reset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.faults import FaultSchedule

if TYPE_CHECKING:
    from koboshi.envs.env import Env


def widen_commands(env: Env, mask: Tensor, start: float = 0.5, steps: int = 2000) -> float:
    """Commands grow from `start` times their ranges to the whole of them over `steps` control steps."""
    env.command.scale = _grown(env, start, steps)
    return env.command.scale


def grow_faults(env: Env, mask: Tensor, start: float = 0.0, steps: int = 2000) -> float:
    """Severities grow from `start` times the width of their range above its lower end to the whole of it over `steps`
    control steps. KoboshiError where no schedule draws any, or all severities are one."""
    schedule = env.cfg.faults
    if not isinstance(schedule, FaultSchedule):
        raise KoboshiError("curriculum grow_faults has no effect: no schedule draws this environment's faults")
    if schedule.faults.severity[0] == schedule.faults.severity[1]:
        raise KoboshiError(f"curriculum grow_faults has no effect: all severities are {schedule.faults.severity[0]}")
    env.faults.scale = _grown(env, start, steps)
    return env.faults.scale


def _grown(env: Env, start: float, steps: int) -> float:
    if not (0 <= start < 1 and steps >= 1):
        raise KoboshiError(f"a curriculum grows from 0 ≤ start < 1 over at least one step, not {start} over {steps}")
    return min(1.0, start + (1.0 - start) * env.total_steps / steps)
