"""Left and right: by name in many spellings, and refused at load where the model says otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from biped import biped
from koboshi.errors import KoboshiError
from koboshi.robots import Foot, PositionActuator
from koboshi.robots.mirror import mirror_ids, other_side


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_knee", "right_knee"), ("front_left_leg", "front_right_leg"), ("LeftKnee", "RightKnee"),
        ("hipLeft", "hipRight"), ("LEFT_ARM", "RIGHT_ARM"), ("lefthip", "righthip"), ("left2_wheel", "right2_wheel"),
        ("FL_hip_joint", "FR_hip_joint"), ("RL_calf", "RR_calf"), ("LF_HAA", "RF_HAA"), ("LH_KFE", "RH_KFE"),
        ("HL1", "HR1"), ("fl.hx", "fr.hx"), ("knee_L", "knee_R"), ("knee.l", "knee.r"), ("l_hip_pitch", "r_hip_pitch"),
        ("hip-l", "hip-r"), ("ml_coxa", "mr_coxa"), ("BL_wheel", "BR_wheel"),
    ],
)  # fmt: skip
def test_sides_by_name(left: str, right: str) -> None:
    assert other_side(left) == right
    assert other_side(right) == left


@pytest.mark.parametrize("name", ["torso", "waist_yaw_joint", "ball_joint", "bright_eye", "all", "neck2", "lower_jaw"])
def test_the_middle_is_its_own_other_side(name: str) -> None:
    assert other_side(name) == name


def test_names_decide_where_two_readings_are_possible() -> None:
    """RR: rear right beside RL, but right rear beside LR."""
    assert mirror_ids(["FL_hip", "FR_hip", "RL_hip", "RR_hip"], "joint").tolist() == [1, 0, 3, 2]
    assert mirror_ids(["LF_hip", "RF_hip", "LR_hip", "RR_hip"], "joint").tolist() == [1, 0, 3, 2]


def test_partners_can_be_given() -> None:
    names = ["near_hip", "far_hip", "waist_r"]
    with pytest.raises(KoboshiError, match="joint 'waist_r' has no partner 'waist_l'; joints: near_hip"):
        mirror_ids(names, "joint")
    given = {"near_hip": "far_hip", "waist_r": "waist_r"}
    assert mirror_ids(names, "joint", given).tolist() == [1, 0, 2]
    feet = (Foot("one", "left_shank", ("left_sole",)), Foot("two", "right_shank", ("right_sole",)))
    assert biped(feet=feet).mirror_feet.tolist() == [0, 1]
    assert biped(feet=feet, partners={"one": "two"}).mirror_feet.tolist() == [1, 0]


def test_two_for_one_partner_are_refused() -> None:
    with pytest.raises(KoboshiError, match="joint 'b' has the partner 'b', and that has 'a'|joint '.' has the partner"):
        mirror_ids(["a", "b", "c"], "joint", {"a": "b", "c": "b"})


def test_signs_by_hand() -> None:
    """A turn about x (hip) flips, one about y (knee) stays; a shift along y flips, one along x stays."""
    robot = biped()
    assert robot.joint_names == ("left_hip", "left_knee", "right_hip", "right_knee")
    assert robot.mirror_ids.tolist() == [2, 3, 0, 1]
    assert robot.mirror_signs.tolist() == [-1, 1, -1, 1]
    slides = [(f'name="{s}_{j}"', f'name="{s}_{j}" type="slide"') for s in ("left", "right") for j in ("hip", "knee")]
    ranges = [('range="-1 .5"', 'range="-1 1"'), ('range="-.5 1"', 'range="-1 1"')]
    assert biped(*slides, *ranges).mirror_signs.tolist() == [1, -1, 1, -1]


def test_an_axis_that_points_the_other_way_keeps_its_sign() -> None:
    turned = [
        ('<joint name="right_hip" axis="1 0 0" range="-.5 1"', '<joint name="right_hip" axis="-1 0 0" range="-1 .5"')
    ]
    assert biped(*turned).mirror_signs.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"right_thigh" pos="0 -.1 0"', '"right_thigh" pos=".02 -.1 0"', "'left_hip' and 'right_hip' .* by 20 mm"),
        ('"right_hip" axis="1 0 0"', '"right_hip" axis="0 0 1"', "'left_hip' and 'right_hip' .* axes agree by 0.00"),
        ('range="-.5 1"', 'range="-.4 1"', r"'left_hip' has the range \[-1.0, 0.5\], .*'right_hip' \[-0.4, 1.0\]"),
        ('name="right_knee"', 'name="right_calf"', "joint 'left_knee' has no partner 'right_knee'"),
    ],
)
def test_what_is_no_mirror_image_is_refused(old: str, new: str, message: str) -> None:
    robot = biped((old, new), actuators={".*": PositionActuator(stiffness=50.0, damping=2.0, effort_limit=30.0)})
    with pytest.raises(KoboshiError, match=message):
        _ = robot.mirror_signs


@pytest.mark.parametrize(("changed", "what"), [({"armature": 0.02}, "armature"), ({"joint_damping": 0.3}, "damping")])
def test_other_joints_are_refused(changed: dict[str, float], what: str) -> None:
    actuator = PositionActuator(stiffness=50.0, damping=2.0, effort_limit=30.0)
    robot = biped(actuators={"left_knee": replace(actuator, **changed), ".*": actuator})
    with pytest.raises(KoboshiError, match=f"joint 'left_knee' has the {what} .*, its partner 'right_knee'"):
        robot.check_mirror()
    replace(robot, mirrored=False).check_mirror()


@pytest.mark.parametrize("changed", [{"stiffness": 60.0}, {"damping": 1.0}, {"effort_limit": 29.0}])
def test_other_gains_are_refused(changed: dict[str, float]) -> None:
    actuator = PositionActuator(stiffness=50.0, damping=2.0, effort_limit=30.0)
    robot = biped(actuators={"left_knee": replace(actuator, **changed), ".*": actuator})
    with pytest.raises(KoboshiError, match="'left_knee' and its partner 'right_knee' have different actuators"):
        _ = robot.mirror_signs


def test_a_robot_without_sides_says_so() -> None:
    robot = biped(mirrored=False)
    for name in ("mirror_ids", "mirror_signs", "mirror_feet"):
        with pytest.raises(KoboshiError, match="'biped' says that its left and right are no mirror images"):
            getattr(robot, name)


def test_a_turned_base_changes_nothing() -> None:
    """Left and right are the base's, wherever the model has it stand and look."""
    turned = biped(('<body name="base">', '<body name="base" pos="1 2 3" euler="0 0 1.2">'))
    assert np.array_equal(turned.mirror_signs, biped().mirror_signs)
