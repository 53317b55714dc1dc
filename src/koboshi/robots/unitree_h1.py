"""Unitree H1, 19 actuated joints. Model: MuJoCo Menagerie `unitree_h1` (BSD-3-Clause).

Gains and effort limits: Isaac Lab's `H1_CFG` (isaaclab_assets/robots/unitree.py), with the ankle's stiffness
doubled to 40 N·m/rad and arms limited to 40 N·m as Menagerie's shoulder motors are. Pose: the same file.
"""

from __future__ import annotations

from functools import partial

from koboshi.robots.actuators import PositionActuator
from koboshi.robots.assets import menagerie_spec
from koboshi.robots.robot import Foot, Robot

UNITREE_H1 = Robot(
    name="unitree_h1",
    load_spec=partial(menagerie_spec, "unitree_h1"),
    actuators={
        ".*_hip_(yaw|roll)": PositionActuator(stiffness=150.0, damping=5.0, effort_limit=200.0),
        ".*_hip_pitch|torso": PositionActuator(stiffness=200.0, damping=5.0, effort_limit=200.0),
        ".*_knee": PositionActuator(stiffness=200.0, damping=5.0, effort_limit=300.0),
        ".*_ankle": PositionActuator(stiffness=40.0, damping=4.0, effort_limit=40.0),
        ".*_(shoulder_.*|elbow)": PositionActuator(stiffness=40.0, damping=10.0, effort_limit=40.0),
    },
    default_pose={
        ".*_hip_pitch": -0.28,
        ".*_knee": 0.79,
        ".*_ankle": -0.52,
        ".*_shoulder_pitch": 0.28,
        ".*_elbow": 0.52,
    },
    base_body="pelvis",
    base_height=0.99,
    feet=(Foot("left_foot", "left_ankle_link"), Foot("right_foot", "right_ankle_link")),
    group_patterns={
        "left_leg": ("left_(hip_.*|knee|ankle)",),
        "right_leg": ("right_(hip_.*|knee|ankle)",),
        "torso": ("torso",),
        "left_arm": ("left_(shoulder_.*|elbow)",),
        "right_arm": ("right_(shoulder_.*|elbow)",),
    },
    imu_site="imu",
    spared=(".*_ankle",),
    fall_height=0.6,
)
