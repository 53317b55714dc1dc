"""How each joint answers a small step of its target while the base is held: does it ring, creep or get there?"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from koboshi.robots.model import physics_spec
from koboshi.robots.robot import Robot

STEP = {"position": 0.1, "velocity": 1.0}
"""Size of the step by what an actuator's target is, rad or rad/s; a torque has nothing to settle to."""
TIMESTEP = 0.005
"""s, as environments step."""
HOLD_S, WATCH_S = 2.0, 1.5
"""The robot first comes to rest in its default pose, then is watched this long."""
_BAND = 0.1
"""Settled: within this share of the way from start to end."""


@dataclass(frozen=True, eq=False)
class StepResponse:
    """One joint. value (T,): 0 where it was, 1 where it was asked to be; time (T,) s since the step."""

    joint: str
    time: NDArray[np.float64]
    value: NDArray[np.float64]

    @property
    def final(self) -> float:
        """Where it comes to rest (mean of the last fifth): less than 1 where friction or a load holds it back."""
        return float(self.value[-len(self.value) // 5 :].mean())

    @property
    def overshoot(self) -> float:
        """How far it goes beyond its end, as a share of the way there; 0 where it never arrives."""
        return max(0.0, float(self.value.max()) / self.final - 1.0) if self.final > 0 else 0.0

    @property
    def settling_s(self) -> float:
        """From when on it stays near its end, s; infinite where it has not by the end."""
        away = np.flatnonzero(abs(self.value - self.final) > _BAND * abs(self.final))
        if len(away) == 0:
            return 0.0
        return float(self.time[away[-1] + 1]) if away[-1] + 1 < len(self.time) else float("inf")

    @property
    def frequency_hz(self) -> float | None:
        """Of the oscillation: half a period passes until the first peak; None where it hardly overshoots."""
        return 0.5 / float(self.time[self.value.argmax()]) if self.overshoot > 0.02 else None


def step_responses(robot: Robot) -> list[StepResponse]:
    """One for each joint whose target is a position or a velocity, one joint at a time, gravity on."""
    model = _held(robot)
    rest = mujoco.MjData(model)
    for name, position in zip(robot.joint_names, robot.default_joint_pos, strict=True):
        rest.joint(name).qpos[0] = position
        rest.actuator(name).ctrl[0] = position if robot.joint_actuators[name].target == "position" else 0.0
    for _ in range(round(HOLD_S / TIMESTEP)):
        mujoco.mj_step(model, rest)
    return [_watch(model, rest, n, a.target) for n, a in robot.joint_actuators.items() if a.target in STEP]


def _held(robot: Robot) -> mujoco.MjModel:
    """The robot with its base fixed in the air, and without contacts."""
    spec = physics_spec(robot)
    for joint in list(spec.body(robot.base_body).joints):
        spec.delete(joint)
    spec.option.timestep, spec.option.integrator = TIMESTEP, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
    return spec.compile()


def _watch(model: mujoco.MjModel, rest: mujoco.MjData, name: str, target: str) -> StepResponse:
    data = copy.copy(rest)
    joint, ctrl = data.joint(name), data.actuator(name).ctrl
    moved = joint.qpos if target == "position" else joint.qvel
    low, high = model.joint(name).range
    limited = bool(model.joint(name).limited[0]) and target == "position"
    step = STEP[target]
    if limited and ctrl[0] + step > high and ctrl[0] - step >= low:
        step = -step
    start = float(moved[0])
    ctrl[0] += step
    values = [0.0]
    for _ in range(round(WATCH_S / TIMESTEP)):
        mujoco.mj_step(model, data)
        values.append((float(moved[0]) - start) / step)
    return StepResponse(name, TIMESTEP * np.arange(len(values), dtype=np.float64), np.array(values))
