"""Unitree G1, 29 actuated joints. Model: MuJoCo Menagerie `unitree_g1` (BSD-3-Clause).

Gains: Unitree's own `unitree_rl_gym` (deploy configuration of G1: legs 100/2 and 150/4, ankles 40/2) with
waist and arms as in Isaac Lab's `G1_CFG` (40/10); effort limits: the model's `actuatorfrcrange`.
"""

from __future__ import annotations

from functools import partial

from koboshi.robots.actuators import PositionActuator
from koboshi.robots.assets import menagerie_spec
from koboshi.robots.robot import Foot, Robot

UNITREE_G1 = Robot(
    name="unitree_g1",
    load_spec=partial(menagerie_spec, "unitree_g1"),
    actuators={
        ".*_hip_(pitch|yaw)_joint": PositionActuator(stiffness=100.0, damping=2.0, effort_limit=88.0),
        ".*_hip_roll_joint": PositionActuator(stiffness=100.0, damping=2.0, effort_limit=139.0),
        ".*_knee_joint": PositionActuator(stiffness=150.0, damping=4.0, effort_limit=139.0),
        ".*_ankle_.*_joint": PositionActuator(stiffness=40.0, damping=2.0, effort_limit=50.0),
        "waist_yaw_joint": PositionActuator(stiffness=200.0, damping=5.0, effort_limit=88.0),
        "waist_.*_joint": PositionActuator(stiffness=200.0, damping=5.0, effort_limit=50.0),
        ".*_wrist_(pitch|yaw)_joint": PositionActuator(stiffness=20.0, damping=1.0, effort_limit=5.0),
        ".*_(shoulder_.*|elbow|wrist_roll)_joint": PositionActuator(stiffness=40.0, damping=2.0, effort_limit=25.0),
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
    base_body="pelvis",
    base_height=0.78,
    feet=(Foot("left_foot", "left_ankle_roll_link"), Foot("right_foot", "right_ankle_roll_link")),
    group_patterns={
        "left_leg": ("left_(hip|knee|ankle).*",),
        "right_leg": ("right_(hip|knee|ankle).*",),
        "torso": ("waist_.*",),
        "left_arm": ("left_(shoulder|elbow|wrist).*",),
        "right_arm": ("right_(shoulder|elbow|wrist).*",),
    },
    imu_site="imu_in_pelvis",
    spared=(".*_ankle_.*",),
    fall_height=0.45,
)
