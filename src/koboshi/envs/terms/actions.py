"""Action terms: `term(env, cfg, joints) -> JointTargets`; see `ActionTerm`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from koboshi.envs.actions import JointTargets
from koboshi.envs.cfg import ActionTerm
from koboshi.errors import KoboshiError

if TYPE_CHECKING:
    from koboshi.envs.env import Env


def joint_position(env: Env, cfg: ActionTerm, joints: list[int]) -> JointTargets:
    """Positions around the default pose, rad, for joints with a position actuator."""
    return JointTargets(_driven_by("position", env, joints), env.default_joint_pos[joints], _scales(env, cfg, joints))


def joint_velocity(env: Env, cfg: ActionTerm, joints: list[int]) -> JointTargets:
    """Velocities, rad/s, for joints with a velocity actuator (wheels)."""
    scales = _scales(env, cfg, joints)
    return JointTargets(_driven_by("velocity", env, joints), torch.zeros_like(scales), scales)


def joint_torque(env: Env, cfg: ActionTerm, joints: list[int]) -> JointTargets:
    """Torques, N·m, for joints with a torque actuator."""
    scales = _scales(env, cfg, joints)
    return JointTargets(_driven_by("torque", env, joints), torch.zeros_like(scales), scales)


def _driven_by(target: str, env: Env, joints: list[int]) -> list[int]:
    for name in (env.robot.joint_names[j] for j in joints):
        found = env.robot.joint_actuators[name].target
        if found != target:
            raise KoboshiError(f"joint '{name}' has an actuator for {found}, and the action asks for {target}")
    return joints


def _scales(env: Env, cfg: ActionTerm, joints: list[int]) -> Tensor:
    """(n,) each joint's scale."""
    table = cfg.scale if isinstance(cfg.scale, dict) else {".*": cfg.scale}
    scales = []
    for name in (env.robot.joint_names[j] for j in joints):
        found = [scale for pattern, scale in table.items() if re.fullmatch(pattern, name)]
        if not found:
            raise KoboshiError(f"no scale matches joint '{name}'; patterns: {', '.join(table)}")
        scales.append(found[0])
    return torch.tensor(scales, device=env.device)
