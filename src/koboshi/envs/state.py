"""What terms read: the robot's state after a control step, computed once, float32."""

from __future__ import annotations

import torch
from torch import Tensor

from koboshi.envs import math
from koboshi.envs.scene import Scene
from koboshi.robots import JointMap, Robot
from koboshi.sim import Backend, anyone, rows_of

CONTACT_FORCE = 1.0
"""A foot that presses with more than this touches the ground, N."""

_CLOCKS = ("air_time", "contact_time", "last_air_time")
_LAGGING = ("joint_torque", "sensordata")
_SAVED = ("joint_vel", "joint_acc", *_CLOCKS, *_LAGGING)
"""What the physics alone cannot give back: clocks, lagging sensors, and what the next step compares with."""


class RobotState:
    """N robots. Torques and foot readings lag one physics step behind positions, as MuJoCo's sensors do.

    joint_pos, joint_vel, joint_acc, joint_torque: (N, J) rad, rad/s, rad/s² (over a control step), N·m.
    base_pos, base_quat: (N, 3) m, (N, 4) body to world. base_height: (N,) m above the ground under it.
    base_lin_vel, base_ang_vel: (N, 3) in the base's frame; world_lin_vel (N, 3) in the world's, lin_vel_yaw (N, 2) in
    the yaw frame, m/s. heading: (N,) rad. projected_gravity: (N, 3).
    foot_contact: (N, F) bool; foot_pos, foot_vel (N, F, 3) m, m/s, world; foot_height (N, F) m above the ground.
    sensordata: (N, S) what all sensors of the model read; `Env.sensor` finds one by its name.
    air_time, contact_time: (N, F) s in the present phase. last_air_time: (N, F) s of the flight that ended.
    """

    def __init__(self, backend: Backend, robot: Robot, joints: JointMap, scene: Scene, step_dt: float) -> None:
        self._fields = [backend.read(f) for f in ("qpos", "qvel", "actuator_force", "sensordata")]
        self._joints, self._scene, self._step_dt = joints, scene, step_dt
        n, j, f, device = backend.num_envs, len(robot.joint_names), len(robot.feet), backend.device
        self._feet, self._table = f, math.rotation_table().to(device)
        self.joint_acc = torch.zeros(n, j, device=device)
        self.air_time, self.contact_time, self.last_air_time = (torch.zeros(n, f, device=device) for _ in range(3))
        self._read()

    def _read(self, bad: Tensor | None = None) -> None:
        """All that physics says. Rows in `bad` (N,), which are to be reset, read as zeros so that no NaN spreads."""
        qpos, qvel, force, sensors = (_copy(x, bad) for x in self._fields)
        self._take_motion(qpos, qvel)
        self._take_lagging(force[:, self._joints.actuator], sensors)

    def _take_lagging(self, joint_torque: Tensor, sensordata: Tensor) -> None:
        self.joint_torque, self.sensordata = joint_torque, sensordata
        self.foot_contact = sensordata[:, self._joints.foot_contact] > CONTACT_FORCE

    @property
    def foot_pos(self) -> Tensor:
        return self.sensordata[:, self._joints.foot_pos].unflatten(1, (self._feet, 3))

    @property
    def foot_vel(self) -> Tensor:
        return self.sensordata[:, self._joints.foot_vel].unflatten(1, (self._feet, 3))

    @property
    def foot_height(self) -> Tensor:
        pos = self.foot_pos
        return pos[..., 2] - self._scene.height(pos)

    def ground_scan(self, size: tuple[float, float], resolution: float) -> Tensor:
        """(N, P) height of the ground about the base, m, the grid of points turned with it; see `Scene.scan`."""
        key = (*size, resolution)
        if key not in self._scans:
            self._scans[key] = self._scene.scan(self.base_pos, self.heading, size, resolution)
        return self._scans[key]

    def _take_motion(self, qpos: Tensor, qvel: Tensor) -> None:
        self._scans: dict[tuple[float, float, float], Tensor] = {}
        at = self._joints
        self.base_pos, self.base_quat, self.joint_pos = qpos[:, at.base_pos], qpos[:, at.base_quat], qpos[:, at.qpos]
        self.joint_vel, self.base_ang_vel = qvel[:, at.dof], qvel[:, at.base_ang_vel]
        self.world_lin_vel = world_vel = qvel[:, at.base_lin_vel]
        self.base_height = self.base_pos[:, 2] - self._scene.height(self.base_pos)
        self._rotation = rotation = math.rotation(self.base_quat, self._table)
        self.base_lin_vel = (rotation * world_vel[:, :, None]).sum(1)
        self.projected_gravity = -rotation[:, 2]
        forward = rotation[:, :2, 0]
        forward = forward / forward.norm(dim=1, keepdim=True).clamp(min=1e-6)
        self.heading = torch.atan2(forward[:, 1], forward[:, 0])
        self.lin_vel_yaw = math.to_yaw_frame(forward, world_vel)

    def in_base_frame(self, vectors: Tensor) -> Tensor:
        """(N, n, 3) vectors of the world's frame in the base's."""
        return vectors @ self._rotation

    def update(self) -> Tensor:
        """After a control step: reads everything, and the feet's clocks go on. (N,) bool: whose physics failed."""
        before = self.joint_vel
        bad = self.bad_rows()
        self._read(bad if anyone(bad) else None)
        self.joint_acc = (self.joint_vel - before) / self._step_dt
        contact = self.foot_contact
        air = self.air_time + self._step_dt
        self.last_air_time = torch.where(contact & (self.air_time > 0), self.air_time, self.last_air_time)
        self.air_time = torch.where(contact, 0.0, air)
        self.contact_time = torch.where(contact, self.contact_time + self._step_dt, 0.0)
        return bad

    def bad_rows(self) -> Tensor:
        """(N,) bool: environments whose physics gave NaN, infinity or absurd numbers (above 10⁶)."""
        total = self._fields[0].abs().sum(1) + self._fields[1].abs().sum(1)
        return ~(total < 1e6)

    def refresh_motion(self, bad: Tensor) -> None:
        """Positions and velocities anew, after something moved a robot between two control steps. bad: see `_read`."""
        self._take_motion(*(_copy(x, bad if anyone(bad) else None) for x in self._fields[:2]))

    def restart(self, mask: Tensor) -> None:
        """New episodes: `mask` (N,) was placed and its derived fields are true; the others' readings stay."""
        rows = mask[:, None]
        before = [getattr(self, name) for name in _LAGGING]
        scans = self._scans
        self._read()
        which = rows_of(mask)
        for (along, across, resolution), scan in scans.items():
            new = self._scene.scan(self.base_pos[which], self.heading[which], (along, across), resolution)
            self._scans[along, across, resolution] = scan.index_copy(0, which, new)
        after = (getattr(self, name) for name in _LAGGING)
        self._take_lagging(*(torch.where(rows, new, old) for new, old in zip(after, before, strict=True)))
        for name in ("joint_acc", *_CLOCKS):
            setattr(self, name, getattr(self, name).masked_fill(rows, 0.0))

    def state_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).clone() for name in _SAVED}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._read()
        for name in _SAVED:
            setattr(self, name, state[name].to(self.joint_pos.device, copy=True))
        self._take_lagging(self.joint_torque, self.sensordata)


def _copy(live: Tensor, bad: Tensor | None) -> Tensor:
    """Even where physics is float32: its tensors are live, and the last step's values must stay."""
    value = live.to(torch.float32, copy=True)
    return value if bad is None else value.masked_fill_(bad[:, None], 0.0)
