"""Curriculum terms: `term(env, mask, **params) -> float | None`, called before the environments in `mask` reset.

What one returns is logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.faults import FaultSchedule
from koboshi.terrain import GridCfg

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


def grow_events(env: Env, mask: Tensor, start: float = 0.0, steps: int = 2000) -> float:
    """Randomisations at resets, and what strikes at intervals, happen to a share of the robots that grows from `start`
    to all of them over `steps` control steps, always the same ones first. What happens at the startup, and delays, are
    everybody's. KoboshiError where there are none."""
    if not env.events.differing:
        raise KoboshiError("curriculum grow_events has no effect: no active event makes worlds differ")
    env.events.share = _grown(env, start, steps)
    return env.events.share


def terrain_levels(env: Env, mask: Tensor) -> None:
    """Harder ground for robots that walked more than half a cell from where they began, easier ground for those that
    came less than half as far as they were told to (Isaac Lab's rule); above the hardest a random level. Levels are
    logged as `terrain/level`. KoboshiError where the ground has one level."""
    ground = env.cfg.scene.ground
    if not isinstance(ground, GridCfg) or ground.levels == 1:
        raise KoboshiError("curriculum terrain_levels has no effect: the ground has one level")
    if env.total_steps == 0:
        return  # nobody has walked yet
    told = env.command.value[:, :2].norm(dim=1) * env.cfg.episode_length_s
    walked = env.scene.walked(env.state.base_pos)
    up = walked > ground.size / 2
    env.scene.levels.move(mask & up, mask & ~up & (walked < told / 2), env.generator)


def _grown(env: Env, start: float, steps: int) -> float:
    if not (0 <= start < 1 and steps >= 1):
        raise KoboshiError(f"a curriculum grows from 0 ≤ start < 1 over at least one step, not {start} over {steps}")
    return min(1.0, start + (1.0 - start) * env.total_steps / steps)
