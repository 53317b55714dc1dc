"""Unitree H1, 19 actuated joints. Model: MuJoCo Menagerie `unitree_h1` (BSD-3-Clause).

Gains and effort limits: Isaac Lab's `H1_CFG` (isaaclab_assets/robots/unitree.py), with the ankle's stiffness
doubled to 40 N·m/rad and arms limited to 40 N·m as Menagerie's shoulder motors are. Pose: the same file.
"""

from __future__ import annotations

from functools import partial

from koboshi.robots.robot import JointGains, Robot, menagerie_spec

_LEG = ("hip_yaw", "hip_roll", "hip_pitch", "knee", "ankle")
_ARM = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow")


def _side(side: str, parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{side}_{part}" for part in parts)


UNITREE_H1 = Robot(
    name="unitree_h1",
    load_spec=partial(menagerie_spec, "unitree_h1"),
    joint_names=(*_side("left", _LEG), *_side("right", _LEG), "torso", *_side("left", _ARM), *_side("right", _ARM)),
    groups={
        "left_leg": _side("left", _LEG),
        "right_leg": _side("right", _LEG),
        "torso": ("torso",),
        "left_arm": _side("left", _ARM),
        "right_arm": _side("right", _ARM),
    },
    gains={
        ".*_hip_yaw": JointGains(150.0, 5.0, 200.0),
        ".*_hip_roll": JointGains(150.0, 5.0, 200.0),
        ".*_hip_pitch": JointGains(200.0, 5.0, 200.0),
        ".*_knee": JointGains(200.0, 5.0, 300.0),
        ".*_ankle": JointGains(40.0, 4.0, 40.0),
        "torso": JointGains(200.0, 5.0, 200.0),
        ".*_(shoulder_.*|elbow)": JointGains(40.0, 10.0, 40.0),
    },
    default_pose={
        ".*_hip_pitch": -0.28,
        ".*_knee": 0.79,
        ".*_ankle": -0.52,
        ".*_shoulder_pitch": 0.28,
        ".*_elbow": 0.52,
    },
    mirror_sign={".*_(hip_yaw|hip_roll|shoulder_roll|shoulder_yaw)|torso": -1.0, ".*": 1.0},
    base_body="pelvis",
    base_height=0.99,
    foot_geoms=(("left_foot1", "left_foot2", "left_foot3"), ("right_foot1", "right_foot2", "right_foot3")),
    foot_bodies=("left_ankle_link", "right_ankle_link"),
    imu_site="imu",
)
