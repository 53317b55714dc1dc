"""What terms read: the robot's state after a control step, computed once, float32."""

from __future__ import annotations

import torch
from torch import Tensor

from koboshi.envs import math
from koboshi.robots import Robot
from koboshi.sim import Backend

CONTACT_FORCE = 1.0
"""A foot that presses with more than this touches the ground, N."""

_KEPT = ("joint_vel", "joint_acc", "joint_torque", "air_time", "contact_time", "last_air_time", "foot_contact")
"""What the physics alone cannot give back: clocks, lagging sensors, and what the next step compares with."""


class RobotState:
    """N robots. Torques and foot readings lag one physics step behind positions, as MuJoCo's sensors do.

    joint_pos, joint_vel, joint_acc, joint_torque: (N, J) rad, rad/s, rad/s² (over a control step), N·m.
    base_pos, base_quat: (N, 3) m, (N, 4) body to world. base_lin_vel, base_ang_vel: (N, 3) in the base's frame.
    lin_vel_yaw: (N, 2) world velocity in the yaw frame, m/s. projected_gravity: (N, 3).
    foot_contact: (N, 2) bool; foot_height (N, 2) m; foot_vel (N, 2, 3) m/s, world.
    air_time, contact_time: (N, 2) s in the present phase. last_air_time: (N, 2) s of the flight that ended.
    """

    def __init__(self, backend: Backend, robot: Robot, step_dt: float) -> None:
        self._qpos, self._qvel = backend.read("qpos"), backend.read("qvel")
        self._sensors, self._force = backend.read("sensordata"), backend.read("actuator_force")
        self._step_dt = step_dt
        n, j, device = backend.num_envs, len(robot.joint_names), backend.device
        self.joint_pos, self.joint_vel = torch.zeros(n, j, device=device), torch.zeros(n, j, device=device)
        self.joint_acc = torch.zeros(n, j, device=device)
        self.air_time, self.contact_time = torch.zeros(n, 2, device=device), torch.zeros(n, 2, device=device)
        self.last_air_time = torch.zeros(n, 2, device=device)
        self.refresh()

    def refresh(self) -> None:
        """Reads positions and velocities anew; the rest keeps the values of the last control step."""
        # Copies even where physics is float32: its tensors are live, and the last step's values must stay.
        fields = (self._qpos, self._qvel, self._force, self._sensors)
        qpos, qvel, force, sensors = (x.to(torch.float32, copy=True) for x in fields)
        self.base_pos, self.base_quat, self.joint_pos = qpos[:, :3], qpos[:, 3:7], qpos[:, 7:]
        self.joint_vel, self.base_ang_vel = qvel[:, 6:], qvel[:, 3:6]
        self.base_lin_vel = math.rotate_inverse(self.base_quat, qvel[:, :3])
        self.projected_gravity = math.projected_gravity(self.base_quat)
        self.heading = math.yaw(self.base_quat)
        self.lin_vel_yaw = math.to_yaw_frame(self.heading, qvel)
        self.joint_torque = force
        sensors = sensors.view(-1, 2, 7)
        self.foot_contact = sensors[:, :, 0] > CONTACT_FORCE
        self.foot_height, self.foot_vel = sensors[:, :, 3], sensors[:, :, 4:7]

    def update(self) -> None:
        """After a control step: as `refresh`, then joint accelerations and the feet's clocks go on."""
        before = self.joint_vel
        self.refresh()
        self.joint_acc = (self.joint_vel - before) / self._step_dt
        contact = self.foot_contact
        air = self.air_time + self._step_dt
        self.last_air_time = torch.where(contact & (self.air_time > 0), self.air_time, self.last_air_time)
        self.air_time = torch.where(contact, 0.0, air)
        self.contact_time = torch.where(contact, self.contact_time + self._step_dt, 0.0)

    def bad_rows(self) -> Tensor:
        """(N,) bool: environments whose physics gave NaN, infinity or absurd numbers (above 10⁶)."""
        total = self._qpos.abs().sum(1) + self._qvel.abs().sum(1)
        return ~(total < 1e6)

    def clear(self, ids: Tensor) -> None:
        """Forgets what belongs to an ended episode, after the physics of `ids` were reset."""
        self.refresh()
        for value in (self.joint_acc, self.joint_torque, self.air_time, self.contact_time, self.last_air_time):
            value[ids] = 0.0
        self.foot_contact[ids] = False

    def state_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).clone() for name in _KEPT}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.refresh()
        for name in _KEPT:
            setattr(self, name, state[name].to(self.joint_pos.device, copy=True))
