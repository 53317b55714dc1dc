"""Curriculum terms: `term(env, mask, **params) -> float` (logged), called before the environments in `mask` reset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from koboshi.envs.env import Env


def widen_commands(env: Env, mask: Tensor, start: float = 0.5, steps: int = 2000) -> float:
    """Commands grow from `start` times their ranges to the whole of them over `steps` control steps."""
    env.command.scale = min(1.0, start + (1.0 - start) * env.total_steps / steps)
    return env.command.scale
