"""Event terms: `term(env, ids, **params)`; `ids` (M,) int64 are the environments it happens to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.faults import FaultSchedule, Scenarios

if TYPE_CHECKING:
    from koboshi.envs.env import Env


def reset_base(env: Env, ids: Tensor, velocity: float = 0.5) -> None:
    """Upright at a random heading, with a random velocity up to `velocity` m/s and rad/s in each direction."""
    heading = env.uniform(len(ids), -torch.pi, torch.pi)
    env.qpos[ids, :2] = 0.0
    env.qpos[ids, 2] = env.robot.base_height
    env.qpos[ids, 3:7] = 0.0
    env.qpos[ids, 3] = (heading / 2).cos().to(env.qpos.dtype)
    env.qpos[ids, 6] = (heading / 2).sin().to(env.qpos.dtype)
    env.qvel[ids, :6] = env.uniform((len(ids), 6), -velocity, velocity).to(env.qvel.dtype)


def reset_joints(env: Env, ids: Tensor, scale: tuple[float, float] = (0.8, 1.2)) -> None:
    """The default pose, each joint scaled by a random factor; joints at rest."""
    shape = (len(ids), len(env.robot.joint_names))
    pos = env.default_joint_pos * env.uniform(shape, *scale)
    env.qpos[ids, 7:] = pos.to(env.qpos.dtype)
    env.qvel[ids, 6:] = 0.0


def push(env: Env, ids: Tensor, velocity: float = 0.5) -> None:
    """A shove: the base's horizontal velocity changes by up to `velocity` m/s in each direction."""
    env.qvel[ids, :2] += env.uniform((len(ids), 2), -velocity, velocity).to(env.qvel.dtype)


def change_joint_torque(env: Env, ids: Tensor, schedule: FaultSchedule) -> None:
    """Draws who breaks in the new episode, what, how badly and when."""
    env.faults.draw(ids, schedule, env.generator)


def follow_scenarios(env: Env, ids: Tensor, scenarios: Scenarios) -> None:
    """Environment i gets scenario i: its fault and its constant command, in each of its episodes."""
    if scenarios.robot != env.robot.name:
        raise KoboshiError(f"the scenarios are for robot '{scenarios.robot}', not '{env.robot.name}'")
    if len(scenarios.episodes) != env.num_envs:
        raise KoboshiError(f"{len(scenarios.episodes)} scenarios need as many environments, not {env.num_envs}")
    rows = ids.cpu()
    kind, severity, onset = (x[rows].to(env.device) for x in scenarios.plan(env.step_dt))
    env.faults.set_plan(ids, kind, severity, onset)
    env.command.fix(ids, scenarios.commands()[rows].to(env.device))
