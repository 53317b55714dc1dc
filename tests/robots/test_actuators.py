"""Position, velocity and torque actuators: MuJoCo applies the law that they state."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from biped import biped
from koboshi.robots import JointMap, PositionActuator, TorqueActuator, VelocityActuator, physics_spec

ACTUATORS = {
    ".*_knee": VelocityActuator(damping=3.0, effort_limit=4.0, armature=0.05),
    "left_hip": TorqueActuator(effort_limit=8.0),
    "right_hip": PositionActuator(stiffness=20.0, damping=0.5, effort_limit=6.0, joint_damping=0.7),
}


def test_torques_by_hand() -> None:
    law = biped(actuators=ACTUATORS).law
    target, pos, vel = (np.array(row) for row in ([3.0, 2.0, 0.5, 9.0], [0.3, 0.1, 0.2, 0.0], [1.0, 1.5, -1.0, 0.0]))
    # left hip: the torque itself; left knee: 3 (2 − 1.5); right hip: 20 (0.5 − 0.2) + 0.5 · 1 = 6.5, at its limit 6;
    # right knee: 3 · 9 = 27, at its limit 4.
    np.testing.assert_allclose(law.torque(target, pos, vel), [3.0, 1.5, 6.0, 4.0])
    np.testing.assert_allclose(law.torque(-target, -pos, -vel), [-3.0, -1.5, -6.0, -4.0])


def test_mujoco_applies_them() -> None:
    robot = biped(actuators=ACTUATORS, mirrored=False)
    model = physics_spec(robot).compile()
    data, at, rng = mujoco.MjData(model), JointMap(model, robot), np.random.default_rng(0)
    for _ in range(20):
        data.qpos[at.qpos], data.qvel[at.dof] = 0.3 * rng.standard_normal(4), rng.standard_normal(4)
        data.ctrl[at.actuator] = 4 * rng.standard_normal(4)
        mujoco.mj_forward(model, data)
        expected = robot.law.torque(data.ctrl[at.actuator], data.qpos[at.qpos], data.qvel[at.dof])
        np.testing.assert_allclose(data.qfrc_actuator[at.dof], expected, rtol=1e-12)
    assert robot.effort_limit.tolist() == [8.0, 4.0, 6.0, 4.0]
    assert model.dof_armature[at.dof].tolist() == [0.01, 0.05, 0.01, 0.05]
    assert model.dof_damping[at.dof].tolist() == [0.0, 0.0, 0.7, 0.0]


def test_a_joints_own_limit_does_not_cut_the_law() -> None:
    """`actuatorfrcrange` would clip behind the law's back: what the actuator says is what there is."""
    limited = ('name="left_hip"', 'name="left_hip" actuatorfrcrange="-1 1"')
    robot = biped(limited)
    model = physics_spec(robot).compile()
    data, at = mujoco.MjData(model), JointMap(model, robot)
    data.ctrl[at.actuator] = 0.1
    mujoco.mj_forward(model, data)
    assert data.qfrc_actuator[at.dof] == pytest.approx([5.0] * 4)  # 50 · 0.1
