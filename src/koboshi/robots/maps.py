"""Where a robot lies in a compiled model's arrays: the one owner of such offsets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import mujoco
import torch
from torch import Tensor

from koboshi.errors import KoboshiError, unknown
from koboshi.robots.model import FORCE, TOUCHES
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
    A model of looks has neither actuators nor sensors: asked for those, KoboshiError.
    """

    def __init__(self, model: mujoco.MjModel, robot: Robot, device: torch.device | str = "cpu") -> None:
        self._model, self._robot, self._device = model, robot, device
        joints = _ids(model, mujoco.mjtObj.mjOBJ_JOINT, robot.joint_names)
        self.joint, self.qpos = self._columns(joints), self._columns(model.jnt_qposadr[joints])
        self.dof = self._columns(model.jnt_dofadr[joints])
        base = _ids(model, mujoco.mjtObj.mjOBJ_BODY, [robot.base_body])[0]
        free = int(model.body_jntadr[base])
        if free < 0 or model.jnt_type[free] != mujoco.mjtJoint.mjJNT_FREE:
            raise KoboshiError(f"base body '{robot.base_body}' of {robot.name} has no free joint")
        self.base_pos, self.base_quat = free_joint_columns(model, free)
        v = int(model.jnt_dofadr[free])
        self.base_lin_vel, self.base_ang_vel = slice(v, v + 3), slice(v + 3, v + 6)

    @cached_property
    def actuator(self) -> Index:
        return self._columns(_ids(self._model, mujoco.mjtObj.mjOBJ_ACTUATOR, self._robot.joint_names))

    @cached_property
    def past_controls(self) -> Tensor:
        """(J, n) columns of `history`: the n controls before this one that MuJoCo keeps of delayed actuators.

        An actuator has [user's number, place of the newest, n times, n controls] there.
        """
        samples = self._model.actuator_history[:, 0]
        first = torch.from_numpy(self._model.actuator_historyadr + 2 + samples).long()
        every = first[:, None] + torch.arange(int(samples.max()))
        return every.to(self._device)[self.actuator]

    @cached_property
    def foot_contact(self) -> Index:
        return self._sensors("contact")

    @cached_property
    def foot_pos(self) -> Index:
        return self._sensors("pos")

    @cached_property
    def foot_vel(self) -> Index:
        return self._sensors("vel")

    @cached_property
    def touching(self) -> dict[str, list[int]]:
        """Body -> columns of `sensordata` that count the contacts of its geoms; soles are not among them."""
        found: dict[str, list[int]] = {}
        for body, column in self._contact_sensors(TOUCHES):
            found.setdefault(body, []).append(column)
        return found

    @cached_property
    def foot_force(self) -> dict[str, list[int]]:
        """Foot -> columns of `sensordata`, three a geom, with the contact force on its soles; see `model.FORCE`."""
        found = {foot.name: list[int]() for foot in self._robot.feet}
        foot_of = {foot.body: foot.name for foot in self._robot.feet}
        for body, column in self._contact_sensors(FORCE):
            found[foot_of[body]] += range(column, column + 3)
        return found

    def _contact_sensors(self, ending: str) -> Iterator[tuple[str, int]]:
        """The body and the first column of each sensor that koboshi added under such names; a robot's own may have such
        a name too."""
        model = self._model
        for i in range(model.nsensor):
            if model.sensor_type[i] == mujoco.mjtSensor.mjSENS_CONTACT and model.sensor(i).name.endswith(ending):
                yield model.body(model.geom_bodyid[model.sensor_objid[i]]).name, int(model.sensor_adr[i])

    def _sensors(self, kind: str) -> Index:
        return self._columns(sensor_ids(self._model, [f"{foot.name}_{kind}" for foot in self._robot.feet]))

    def _columns(self, ids: Iterable[int]) -> Index:
        return columns([int(i) for i in ids], self._device)


def free_joint_columns(model: mujoco.MjModel, joint: int | None = None) -> tuple[slice, slice]:
    """Position (3) and quaternion (4) of a free joint in `qpos`; of the model's first where none is named."""
    if joint is None:
        found = [j for j in range(model.njnt) if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE]
        if not found:
            raise KoboshiError("the model has no free joint")
        joint = found[0]
    q = int(model.jnt_qposadr[joint])
    return slice(q, q + 3), slice(q + 3, q + 7)


def _ids(model: mujoco.MjModel, kind: mujoco.mjtObj, names: Sequence[str]) -> list[int]:
    found = [mujoco.mj_name2id(model, kind, name) for name in names]
    if -1 in found:
        what = kind.name.removeprefix("mjOBJ_").lower()
        raise KoboshiError(f"the model has no {what} '{names[found.index(-1)]}'")
    return found


def sensor_ids(model: mujoco.MjModel, names: Sequence[str]) -> list[int]:
    """Where these sensors' numbers lie in `sensordata`, in order; KoboshiError for a name that is not there."""
    valid = [model.sensor(i).name for i in range(model.nsensor)]
    found: list[int] = []
    for name in names:
        if name not in valid:
            raise unknown("sensor", name, valid)
        sensor = model.sensor(name)
        found += range(int(sensor.adr[0]), int(sensor.adr[0]) + int(sensor.dim[0]))
    return found
