"""Columns of a robot among other bodies, before it and between its parts."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from biped import biped
from koboshi.errors import KoboshiError
from koboshi.robots import UNITREE_H1, JointMap, physics_spec, visual_spec
from koboshi.robots.maps import columns, free_joint_columns

TAIL = '<site name="imu"/><body name="tail"><joint name="wag" type="ball"/><geom size=".01" mass=".1"/></body>'


def crowded() -> tuple[mujoco.MjModel, JointMap]:
    """A free ball and a hinge before the robot, whose legs a passive tail comes before, and a cart behind."""
    robot = biped(('<site name="imu"/>', TAIL), ("</worldbody>", CART), actuators={"(left|right)_.*": ACTUATOR})
    spec = physics_spec(robot)
    ball = spec.worldbody.add_body(name="ball")
    ball.add_freejoint(name="ball_free")
    ball.add_geom(size=(0.1, 0, 0))
    model = move_to_front(spec, "ball").compile()
    return model, JointMap(model, robot)


ACTUATOR = UNITREE_H1.actuators[".*_knee"]
CART = """
  <body name="cart"><joint name="rail" type="slide"/><geom size=".1"/></body>
</worldbody>
"""


def move_to_front(spec: mujoco.MjSpec, name: str) -> mujoco.MjSpec:
    """MuJoCo numbers bodies in the order of the file."""
    head, rest = spec.to_xml().split('<body name="base">', 1)
    start = rest.index(f'<body name="{name}">')
    end = rest.index("</body>", start) + len("</body>")
    return mujoco.MjSpec.from_string(head + rest[start:end] + '<body name="base">' + rest[:start] + rest[end:])


def test_columns_among_others_by_hand() -> None:
    model, at = crowded()
    # qpos: ball 0-6, base 7-13, tail 14-17, left hip and knee 18-19, right 20-21, rail 22; qvel one fewer a free
    # joint and a ball: 0-5, 6-11, 12-14, 15-16, 17-18, 19. Joints: ball, base, tail, then 3-6.
    assert (model.nq, model.nv) == (23, 20)
    assert (at.base_pos, at.base_quat) == (slice(7, 10), slice(10, 14))
    assert (at.base_lin_vel, at.base_ang_vel) == (slice(6, 9), slice(9, 12))
    assert (at.qpos, at.dof, at.joint) == (slice(18, 22), slice(15, 19), slice(3, 7))
    assert at.actuator == slice(0, 4)


def test_a_passive_joint_between_driven_ones() -> None:
    """No slice then: indices, which read and write the same columns."""
    robot = biped(actuators={".*_hip": ACTUATOR}, default_pose={}, group_patterns={"hips": (".*",)})
    model = physics_spec(robot).compile()
    at = JointMap(model, robot)
    assert isinstance(at.qpos, torch.Tensor) and isinstance(at.dof, torch.Tensor)
    assert (at.qpos.tolist(), at.dof.tolist(), at.joint.tolist()) == ([7, 9], [6, 8], [1, 3])
    assert at.actuator == slice(0, 2)
    qpos = torch.arange(22.0).view(2, 11)
    assert qpos[:, at.qpos].tolist() == [[7, 9], [18, 20]]
    qpos[:, at.qpos] = 0.0
    assert qpos[1].tolist() == [11, 12, 13, 14, 15, 16, 17, 0, 19, 0, 21]


def test_sensors_are_found_by_name() -> None:
    """Kind by kind, each foot's three numbers together, whatever other sensors there are."""
    robot = biped()
    spec = physics_spec(robot)
    spec.add_sensor(name="clock", type=mujoco.mjtSensor.mjSENS_CLOCK)
    model = spec.compile()
    at, data = JointMap(model, robot), mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert (at.foot_contact, at.foot_pos, at.foot_vel) == (slice(0, 2), slice(2, 8), slice(8, 14))
    np.testing.assert_allclose(data.sensordata[at.foot_pos], [0, 0.1, -0.4, 0, -0.1, -0.4], atol=1e-12)
    data.qvel[at.base_lin_vel] = (1, 2, 3)
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.sensordata[at.foot_vel], [1, 2, 3, 1, 2, 3], atol=1e-12)


def test_a_model_of_looks_has_joints_but_no_sensors() -> None:
    robot = biped()
    at = JointMap(visual_spec(robot).compile(), robot)
    assert (at.qpos, at.base_quat) == (slice(7, 11), slice(3, 7))
    with pytest.raises(KoboshiError, match=r"no sensor 'left_foot_contact'; sensors: \(none\)"):
        _ = at.foot_contact
    with pytest.raises(KoboshiError, match="no actuator 'left_hip'"):
        _ = at.actuator


def test_a_base_without_a_free_joint_is_refused() -> None:
    robot = biped(('<freejoint name="root"/>', ""))
    with pytest.raises(KoboshiError, match="base body 'base' of biped has no free joint"):
        JointMap(robot.physics, robot)


def test_the_first_free_joint() -> None:
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody>
        <body><joint/><geom size="1"/></body><body><freejoint/><geom size="1"/></body>
        </worldbody></mujoco>"""
    )
    assert free_joint_columns(model) == (slice(1, 4), slice(4, 8))
    with pytest.raises(KoboshiError, match="no free joint"):
        free_joint_columns(mujoco.MjModel.from_xml_string("<mujoco/>"))


def test_columns_are_slices_where_they_lie_together() -> None:
    assert columns([3, 4, 5]) == slice(3, 6)
    assert columns([]) == slice(0, 0)
    apart = columns([3, 5])
    assert isinstance(apart, torch.Tensor) and apart.tolist() == [3, 5]
    backwards = columns([4, 3])
    assert isinstance(backwards, torch.Tensor) and backwards.tolist() == [4, 3]
