"""A robot of your own: `koboshi check pup --module examples/outside/robot.py`, then a task like any other's.

Everything it takes is a bare MJCF beside this file and the numbers below.
"""

from __future__ import annotations

from pathlib import Path

import mujoco

from koboshi.robots import Foot, PositionActuator, Robot

LEGS = ("LF", "RF", "LH", "RH")
MJCF = Path(__file__).with_name("quadruped.xml")

PUP = Robot(
    name="pup",
    load_spec=lambda: mujoco.MjSpec.from_file(str(MJCF)),
    actuators={
        # Armature is rotor inertia times gear ratio squared; the MJCF has none.
        ".*": PositionActuator(stiffness=40.0, damping=1.5, effort_limit=25.0, armature=0.01),
    },
    default_pose={".*_HFE": 0.7, ".*_KFE": -1.4},
    base_body="torso",
    base_height=0.335,
    feet=tuple(Foot(f"{leg}_foot", f"{leg}_shank", (f"{leg}_sole",)) for leg in LEGS),
    group_patterns={
        "front_left_leg": ("LF_.*",),
        "front_right_leg": ("RF_.*",),
        "rear_left_leg": ("LH_.*",),
        "rear_right_leg": ("RH_.*",),
    },
    imu_site="imu",
    fall_height=0.18,
)

ROBOTS = {PUP.name: PUP}
"""What `--module` looks for."""
