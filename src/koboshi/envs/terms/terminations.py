"""Termination terms: `term(env, **params) -> (N,) bool`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.terrain import GridCfg

if TYPE_CHECKING:
    from koboshi.envs.env import Env


def time_out(env: Env) -> Tensor:
    """The episode's length is reached."""
    return env.episode_step >= env.cfg.max_episode_length


def crossed_cell(env: Env) -> Tensor:
    """The robot came more than half a cell from where it began. As a time-out (`time_out=True`) it brings those who
    succeed to harder ground at once, in place of letting them walk on where another cell begins. KoboshiError where the
    ground has no cells."""
    ground = env.cfg.scene.ground
    if not isinstance(ground, GridCfg):
        raise KoboshiError("termination crossed_cell has no effect: the ground is one plane, without cells")
    return env.scene.walked(env.state.base_pos) > ground.size / 2


def base_low(env: Env, height: float) -> Tensor:
    """The base is less than `height` m above the ground."""
    return env.state.base_height < height


def illegal_contact(env: Env, bodies: tuple[str, ...]) -> Tensor:
    """One of these bodies (patterns) touches the ground."""
    return env.touching(bodies).any(1)


def bad_orientation(env: Env, limit: float) -> Tensor:
    """The base is tilted by more than a tilt whose cosine is `limit`."""
    return env.state.projected_gravity[:, 2] > -limit
