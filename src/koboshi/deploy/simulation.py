"""An exported controller on its robot in plain MuJoCo, in real time or as fast as it goes."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mujoco
import numpy as np

from koboshi.deploy.contract import MODEL, check_model, check_robot
from koboshi.deploy.program import Program
from koboshi.deploy.senses import Array, Senses
from koboshi.errors import KoboshiError, unknown

SPIN_S = 0.001
"""Before a step is due the loop stops sleeping and looks at the clock, s: sleeping ends late."""


class _Base:
    """Columns of the free joint in `qpos` and `qvel` (`robots.JointMap` says the same, with torch)."""

    def __init__(self, model: mujoco.MjModel) -> None:
        free = int(np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)[0])
        q, v = int(model.jnt_qposadr[free]), int(model.jnt_dofadr[free])
        self.pos, self.quat = slice(q, q + 3), slice(q + 3, q + 7)
        self.lin_vel, self.ang_vel = slice(v, v + 3), slice(v + 3, v + 6)


class World:
    """The robot of an export alone on a plane, as it was trained but for what training draws at random."""

    def __init__(self, folder: Path, program: Program) -> None:
        path = folder / MODEL
        try:
            xml = path.read_text()
            check_model(program.contract, xml, path)
            self.model = mujoco.MjModel.from_xml_string(xml)
        except (ValueError, OSError) as error:
            raise KoboshiError(f"{path} cannot be read: {error}") from error
        self._contract = program.contract
        self.joints = [self.model.actuator(i).name for i in range(self.model.nu)]
        self._qpos = np.array([self.model.joint(name).qposadr[0] for name in self.joints])
        self._dof = np.array([self.model.joint(name).dofadr[0] for name in self.joints])
        self._base = _Base(self.model)
        self._drives = self.model.actuator_gainprm.copy(), self.model.actuator_biasprm.copy()
        self.reset()

    @property
    def physics_dt(self) -> float:
        return float(self.model.opt.timestep)

    def reset(self) -> None:
        """Upright in the default pose at the height it stands at, at rest, its drives whole."""
        self.model.actuator_gainprm[:], self.model.actuator_biasprm[:] = self._drives
        self.data = mujoco.MjData(self.model)
        self.data.qpos[self._base.pos] = (0.0, 0.0, self._contract["base_height"])
        self.data.qpos[self._base.quat] = (1.0, 0.0, 0.0, 0.0)
        default = np.array(self._contract["default_joint_pos"])
        self.data.qpos[self._qpos] = default
        self.data.ctrl[:] = np.where(np.array(self._contract["targets"]) == "position", default, 0.0)
        mujoco.mj_forward(self.model, self.data)

    def senses(self, command: Sequence[float]) -> Senses:
        """What its sensors say, without noise."""
        data, to_base = self.data, self._to_world.T
        return Senses(
            to_base @ data.qvel[self._base.lin_vel],
            data.qvel[self._base.ang_vel].copy(),
            to_base @ (0.0, 0.0, -1.0),
            np.array(command, dtype=np.float64),
            data.qpos[self._qpos],
            data.qvel[self._dof],
            data.actuator_force.copy(),
        )

    def step(self, targets: Sequence[Array]) -> None:
        """Physics steps, one under each of the targets."""
        for each in targets:
            self.data.ctrl[:] = each
            mujoco.mj_step(self.model, self.data)

    def kill(self, joint: str) -> None:
        """The joint's drive gives no torque until the next reset."""
        i = self.joints.index(joint)
        self.model.actuator_gainprm[i] = self.model.actuator_biasprm[i] = 0.0

    @property
    def _to_world(self) -> Array:
        """(3, 3) rotation of the base."""
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, self.data.qpos[self._base.quat])
        return rotation.reshape(3, 3)

    @property
    def forward_speed(self) -> float:
        """m/s along the heading, in the horizontal plane."""
        ahead = self._to_world @ (1.0, 0.0, 0.0) * (1.0, 1.0, 0.0)
        return float(ahead @ self.data.qvel[self._base.lin_vel] / max(np.linalg.norm(ahead), 1e-6))

    @property
    def fallen(self) -> bool:
        """Tilted by more than 60°, low, or no longer finite."""
        if not np.isfinite(self.data.qpos).all():
            return True
        upwards = np.array((0.0, 0.0, 1.0))
        up, height = upwards @ self._to_world @ upwards, upwards @ self.data.qpos[self._base.pos]
        return bool(height < self._contract["fall_height"] or up < 0.5)


@dataclass
class Drive:
    """What came of a run; times in s."""

    seconds: float = 0.0
    fell_at: float | None = None
    errors: list[float] = field(default_factory=list)
    """Of v_x in each step after the first second, m/s."""
    late: list[float] = field(default_factory=list)
    """How long after it was due each step began; only in real time."""
    decided: list[float] = field(default_factory=list)
    """How long each decision took."""
    switches: list[tuple[float, int]] = field(default_factory=list)
    """When another acted, and who."""

    @property
    def vx_rmse(self) -> float:
        """m/s; NaN where it fell within a second."""
        return math.sqrt(sum(e * e for e in self.errors) / len(self.errors)) if self.errors else math.nan


def physics_steps(control_dt: float, physics_dt: float) -> int | None:
    """How many a control step has; None where it is no multiple of them."""
    count = round(control_dt / physics_dt)
    return count if count >= 1 and abs(count * physics_dt - control_dt) <= 1e-9 else None


def drive(
    program: Program,
    world: World,
    command: Sequence[float],
    seconds: float,
    *,
    rate: float | None = None,
    anyway: bool = False,
    delay_s: float = 0.0,
    breaks: Sequence[tuple[str, float]] = (),
    real_time: bool = True,
) -> Drive:
    """Runs the loop until `seconds` or a fall, at `rate` Hz (None: the program's own).

    `anyway`: at another rate than the program's, to see what that does. Targets reach the drives `delay_s` late.
    `breaks`: joints, and when they die. KoboshiError where the robot or, but for `anyway`, the rate is another.
    """
    _check_run(world, seconds, rate, delay_s, breaks)
    made_for = program.contract["control_dt"]
    dt = made_for if rate is None else 1 / rate
    check_robot(program.contract, world.joints, made_for if anyway else dt)
    decimation = physics_steps(dt, world.physics_dt)
    if decimation is None:
        raise KoboshiError(f"a loop of {1 / dt:g} Hz is no multiple of physics steps of {world.physics_dt:g} s")
    program.reset()
    world.reset()
    late = round(delay_s / world.physics_dt)
    queue = deque([world.data.ctrl.copy()] * late)
    found, pending, acts = Drive(), sorted(breaks, key=lambda each: each[1]), -1
    began = time.perf_counter()
    for k in range(round(seconds / dt)):
        if real_time:
            found.late.append(_wait_until(began + k * dt))
        while pending and pending[0][1] <= k * dt:
            world.kill(pending.pop(0)[0])
        start = time.perf_counter()
        told = program.step(world.senses(command))
        found.decided.append(time.perf_counter() - start)
        if told.member != acts:
            acts = told.member
            found.switches.append((k * dt, acts))
        queue.extend([told.targets] * decimation)
        world.step([queue.popleft() for _ in range(decimation)])
        found.seconds = (k + 1) * dt
        if world.fallen:
            found.fell_at = found.seconds
            break
        if found.seconds > 1.0:
            found.errors.append(command[0] - world.forward_speed)
    return found


def _check_run(
    world: World, seconds: float, rate: float | None, delay_s: float, breaks: Sequence[tuple[str, float]]
) -> None:
    """KoboshiError for what would have no effect, or come too late to be noticed."""
    for name, value in (("seconds", seconds), ("rate", 1.0 if rate is None else rate)):
        if not 0 < value < math.inf:
            raise KoboshiError(f"--{name} is above 0, not {value}")
    if not 0 <= delay_s < math.inf:
        raise KoboshiError(f"--delay is at least 0 ms, not {1e3 * delay_s}")
    for joint, when in breaks:
        if joint not in world.joints:
            raise unknown("joint", joint, world.joints)
        if not 0 <= when < seconds:
            raise KoboshiError(f"{joint} is to die between 0 and {seconds:g} s, not at {when:g}")


def _wait_until(due: float) -> float:
    """How late it is in the end, s."""
    left = due - time.perf_counter()
    if left > SPIN_S:
        time.sleep(left - SPIN_S)
    while (now := time.perf_counter()) < due:
        pass
    return now - due
