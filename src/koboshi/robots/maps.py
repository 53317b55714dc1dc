"""Where a robot lies in a compiled model's arrays: the one owner of such offsets."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.robots.robot import Robot

Index = slice | Tensor
"""Columns of a field: a slice where they lie in one piece (a view, no copy), else int64 indices."""


def columns(ids: Sequence[int], device: torch.device | str = "cpu") -> Index:
    """The shortest way to say these columns."""
    first = ids[0] if len(ids) else 0
    if list(ids) == list(range(first, first + len(ids))):
        return slice(first, first + len(ids))
    return torch.tensor(list(ids), device=device)


class JointMap:
    """Columns of a robot's base, J joints and F feet in the fields of a model that holds it, perhaps among others.

    qpos, dof, joint, actuator: J columns each, of `qpos`, of `qvel` and dof fields, of `jnt_*` and of `ctrl` and
    `actuator_*`. base_pos (3), base_quat (4): of `qpos`. base_lin_vel, base_ang_vel (3): of `qvel`, MuJoCo's frames:
    linear in the world's, angular in the base's. foot_contact (F), foot_pos, foot_vel (3F): of `sensordata`.
    """

    def __init__(self, model: mujoco.MjModel, robot: Robot, device: torch.device | str = "cpu") -> None:
        def here(ids: Sequence[int]) -> Index:
            return columns([int(i) for i in ids], device)

        joints = [model.joint(name).id for name in robot.joint_names]
        self.joint, self.qpos = here(joints), here(model.jnt_qposadr[joints])
        self.dof = here(model.jnt_dofadr[joints])
        self.actuator = here([model.actuator(name).id for name in robot.joint_names])
        q, v = _free_joint(model, robot)
        self.base_pos, self.base_quat = slice(q, q + 3), slice(q + 3, q + 7)
        self.base_lin_vel, self.base_ang_vel = slice(v, v + 3), slice(v + 3, v + 6)
        names = [foot.name for foot in robot.feet]
        self.foot_contact = here(sensor_ids(model, [f"{name}_contact" for name in names]))
        self.foot_pos = here(sensor_ids(model, [f"{name}_pos" for name in names]))
        self.foot_vel = here(sensor_ids(model, [f"{name}_vel" for name in names]))


def _free_joint(model: mujoco.MjModel, robot: Robot) -> tuple[int, int]:
    """Where the base's free joint begins in `qpos` and `qvel`."""
    base = model.body(robot.base_body)
    joint = int(base.jntadr[0])
    if joint < 0 or model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_FREE:
        raise KoboshiError(f"base body '{robot.base_body}' of {robot.name} has no free joint")
    return int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])


def sensor_ids(model: mujoco.MjModel, names: Sequence[str]) -> list[int]:
    """Where these sensors' numbers lie in `sensordata`, in order; KoboshiError for a name that is not there."""
    valid = [model.sensor(i).name for i in range(model.nsensor)]
    found: list[int] = []
    for name in names:
        if name not in valid:
            raise KoboshiError(f"no sensor '{name}'; sensors: {', '.join(valid) or '(none)'}")
        sensor = model.sensor(name)
        found += range(int(sensor.adr[0]), int(sensor.adr[0]) + int(sensor.dim[0]))
    return found
