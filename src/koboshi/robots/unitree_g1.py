"""Unitree G1, 29 actuated joints. Model: MuJoCo Menagerie `unitree_g1` (BSD-3-Clause).

Gains: Unitree's own `unitree_rl_gym` (deploy configuration of G1: legs 100/2 and 150/4, ankles 40/2) with
waist and arms as in Isaac Lab's `G1_CFG` (40/10); effort limits: the model's `actuatorfrcrange`.
"""

from __future__ import annotations

from functools import partial

from koboshi.robots.robot import JointGains, Robot, menagerie_spec

_LEG = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")
_WAIST = ("waist_yaw_joint", "waist_roll_joint", "waist_pitch_joint")
_ARM = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow", "wrist_roll", "wrist_pitch", "wrist_yaw")


def _side(side: str, parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{side}_{part}_joint" for part in parts)


UNITREE_G1 = Robot(
    name="unitree_g1",
    load_spec=partial(menagerie_spec, "unitree_g1"),
    joint_names=(*_side("left", _LEG), *_side("right", _LEG), *_WAIST, *_side("left", _ARM), *_side("right", _ARM)),
    groups={
        "left_leg": _side("left", _LEG),
        "right_leg": _side("right", _LEG),
        "torso": _WAIST,
        "left_arm": _side("left", _ARM),
        "right_arm": _side("right", _ARM),
    },
    gains={
        ".*_hip_(pitch|yaw)_joint": JointGains(100.0, 2.0, 88.0),
        ".*_hip_roll_joint": JointGains(100.0, 2.0, 139.0),
        ".*_knee_joint": JointGains(150.0, 4.0, 139.0),
        ".*_ankle_.*_joint": JointGains(40.0, 2.0, 50.0),
        "waist_yaw_joint": JointGains(200.0, 5.0, 88.0),
        "waist_.*_joint": JointGains(200.0, 5.0, 50.0),
        ".*_wrist_(pitch|yaw)_joint": JointGains(20.0, 1.0, 5.0),
        ".*_(shoulder_.*|elbow|wrist_roll)_joint": JointGains(40.0, 2.0, 25.0),
    },
    default_pose={
        ".*_hip_pitch_joint": -0.20,
        ".*_knee_joint": 0.42,
        ".*_ankle_pitch_joint": -0.23,
        ".*_shoulder_pitch_joint": 0.35,
        "left_shoulder_roll_joint": 0.16,
        "right_shoulder_roll_joint": -0.16,
        ".*_elbow_joint": 0.87,
    },
    mirror_sign={".*_(roll|yaw)_joint": -1.0, ".*": 1.0},
    base_body="pelvis",
    base_height=0.77,
    foot_geoms=(
        tuple(f"left_foot{i}" for i in range(1, 5)),
        tuple(f"right_foot{i}" for i in range(1, 5)),
    ),
    foot_bodies=("left_ankle_roll_link", "right_ankle_roll_link"),
    imu_site="imu_in_pelvis",
    fall_height=0.45,
)
