"""Gains from a rotor's inertia, by hand and as it swings; and what `koboshi check` says of a joint without one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest

from koboshi.errors import KoboshiError
from koboshi.robots import UNITREE_GO2W, PositionActuator, VelocityActuator
from koboshi.robots.gains import Answer, proposed_gains
from koboshi.stages.check import check


def test_by_hand() -> None:
    gains = proposed_gains(0.01, 80.0)
    assert gains is not None
    omega = 20 * math.pi
    assert gains.stiffness == pytest.approx(0.01 * omega**2) == pytest.approx(39.478, abs=1e-3)
    assert gains.damping == pytest.approx(4 * 0.01 * omega) == pytest.approx(2.513, abs=1e-3)
    assert gains.action_scale == pytest.approx(0.25 * 80 / 39.478, abs=1e-4)
    assert proposed_gains(0.0, 80.0) is None


def test_a_rotor_alone_swings_as_was_asked_for() -> None:
    """Half of critical damping at 5 Hz: it overshoots by exp(−π ζ / √(1 − ζ²)) after half a damped period."""
    gains = proposed_gains(0.02, 10.0, Answer(5.0, 0.5))
    assert gains is not None
    actuator = PositionActuator(effort_limit=1e6, armature=0.02, stiffness=gains.stiffness, damping=gains.damping)
    spec = mujoco.MjSpec()
    spec.option.timestep, spec.option.gravity = 1e-4, (0, 0, 0)
    body = spec.worldbody.add_body()
    body.add_joint(name="rotor", axis=(0, 0, 1))
    body.mass, body.inertia, body.explicitinertial = 1e-6, (1e-9, 1e-9, 1e-9), True
    actuator.add_to(spec, "rotor")
    model = spec.compile()
    data, path = mujoco.MjData(model), []
    data.ctrl[0] = 1.0
    for _ in range(4000):
        mujoco.mj_step(model, data)
        path.append(float(data.qpos[0]))
    root = math.sqrt(0.75)
    assert max(path) == pytest.approx(1 + math.exp(-math.pi * 0.5 / root), abs=2e-3)
    assert np.argmax(path) * 1e-4 == pytest.approx(0.5 / (5.0 * root), abs=1e-3)


def test_check_proposes_gains_and_asks_for_a_rotor(tmp_path: Path) -> None:
    soft = PositionActuator(stiffness=40.0, damping=0.3, effort_limit=23.7, joint_damping=0.1)
    bare = VelocityActuator(damping=0.5, effort_limit=23.7, armature=0.0, joint_damping=0.0)
    actuators = {**UNITREE_GO2W.actuators, ".*_foot_joint": bare, ".*_(hip|thigh)_joint": soft}
    robot = replace(UNITREE_GO2W, name="bare", actuators=actuators)
    found = check(robot, tmp_path)
    rings = [each.text for each in found if each.part == "FL_hip_joint" and each.kind == "gains"]
    assert len(rings) == 1 and "would be stiffness 39.5, damping 2.51, action scale 0.15" in rings[0]
    slower = next(
        e.text for e in check(robot, tmp_path, Answer(5.0, 1.0)) if (e.part, e.kind) == ("FL_hip_joint", "gains")
    )
    assert "5 Hz and a damping ratio of 1 of its rotor (0.01 kg·m²) would be stiffness 9.87, damping 0.628" in slower
    with pytest.raises(KoboshiError, match="a servo's damping_ratio is above 0, not 0.0"):
        check(robot, tmp_path, Answer(5.0, 0.0))
    assert {each.part for each in found if each.kind == "armature"} == {
        f"{leg}_foot_joint" for leg in ("FL", "FR", "RL", "RR")
    }
