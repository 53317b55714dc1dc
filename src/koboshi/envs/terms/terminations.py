"""Termination terms: `term(env, **params) -> (N,) bool`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from koboshi.envs.env import Env


def time_out(env: Env) -> Tensor:
    """The episode's length is reached."""
    return env.episode_step >= env.cfg.max_episode_length


def base_low(env: Env, height: float) -> Tensor:
    """The base is less than `height` m above the ground."""
    return env.state.base_height < height


def illegal_contact(env: Env, bodies: tuple[str, ...]) -> Tensor:
    """One of these bodies (patterns) touches the ground."""
    return env.touching(bodies).any(1)


def bad_orientation(env: Env, limit: float) -> Tensor:
    """The base is tilted by more than a tilt whose cosine is `limit`."""
    return env.state.projected_gravity[:, 2] > -limit
