"""Unitree Go2, 12 actuated joints. Model: MuJoCo Menagerie `unitree_go2` (BSD-3-Clause).

Pose: Isaac Lab's `UNITREE_GO2_CFG`, whose gains of 25/0.5 let the trunk sag by 6 cm, hence 40/1; effort limits:
the model's own motors. Joint friction: Unitree's own MJCF (unitree_mujoco, 0.1 N·m·s/rad), for Menagerie's 2 would
brake a limp leg like a dashpot.
"""

from __future__ import annotations

from functools import partial

from koboshi.robots.actuators import PositionActuator
from koboshi.robots.assets import menagerie_spec
from koboshi.robots.robot import Foot, Robot

_LEGS = {"FL": "front_left_leg", "FR": "front_right_leg", "RL": "rear_left_leg", "RR": "rear_right_leg"}

UNITREE_GO2 = Robot(
    name="unitree_go2",
    load_spec=partial(menagerie_spec, "unitree_go2"),
    actuators={
        ".*_(hip|thigh)_joint": PositionActuator(stiffness=40.0, damping=1.0, effort_limit=23.7, joint_damping=0.1),
        ".*_calf_joint": PositionActuator(stiffness=40.0, damping=1.0, effort_limit=45.43, joint_damping=0.1),
    },
    default_pose={
        ".L_hip_joint": 0.1,
        ".R_hip_joint": -0.1,
        "F._thigh_joint": 0.8,
        "R._thigh_joint": 1.0,
        ".*_calf_joint": -1.5,
    },
    base_body="base",
    base_height=0.325,
    feet=tuple(Foot(f"{leg}_foot", f"{leg}_calf", (leg,)) for leg in _LEGS),
    group_patterns={group: (f"{leg}_.*",) for leg, group in _LEGS.items()},
    imu_site="imu",
    fall_height=0.18,
)
