"""Unitree Go2-W, 12 leg joints and 4 driven wheels: Menagerie's Go2 with other ends to its legs.

Numbers of what is new, a wheel motor on each calf and a wheel of 0.52 kg, efforts (calves 35.55 N·m) and joint names:
Unitree's `go2w_description.urdf` (unitree_ros, BSD-3-Clause). The wheel's radius there is a mesh's, 0.086 m. It has no
rotor inertia, without which wheels ring under their servos: 0.01 kg·m², as Menagerie's Go2 has in its joints. Legs hold
with 50/1.5, for it weighs 4 kg more than a Go2; wheels' servo (0.5 N·m·s/rad) and pose: robot_lab's configuration.
"""

from __future__ import annotations

import mujoco

from koboshi.robots.actuators import PositionActuator, VelocityActuator
from koboshi.robots.assets import menagerie_spec
from koboshi.robots.parts import Wheel, add_wheel, weigh
from koboshi.robots.robot import Foot, Robot

_LEGS = {"FL": "front_left_leg", "FR": "front_right_leg", "RL": "rear_left_leg", "RR": "rear_right_leg"}
_WHEEL = Wheel(radius=0.086, width=0.037, mass=0.520, inertia=(0.0007, 0.0012, 0.0007), out=0.048, centre_of_mass=0.06)
_AXLE = -0.2264
"""Below the knee, m."""


def _spec() -> mujoco.MjSpec:
    spec = menagerie_spec("unitree_go2")
    for leg in _LEGS:
        _put_on_wheel(spec, leg, 1.0 if leg.endswith("L") else -1.0)
    return spec


def _put_on_wheel(spec: mujoco.MjSpec, leg: str, side: float) -> None:
    calf = spec.body(f"{leg}_calf")
    for geom in list(calf.geoms):
        if geom.name == leg or geom.meshname == "foot":
            spec.delete(geom)
    # Calf (0.154 kg) and wheel motor (0.646 kg, 0.01 m outside the calf's plane) as one.
    inertia = (0.00363822, 0.00424698, 0.00105161, side * 7.82e-6, -5.872e-5, side * 1.6032e-4)
    weigh(calf, 0.800, (0.0010549, side * 0.0078873, -0.2049555), inertia)
    motor = {"type": mujoco.mjtGeom.mjGEOM_CYLINDER, "size": (0.05, 0.025, 0), "pos": (0, side * 0.01, _AXLE)}
    quat = (0.5**0.5, 0.5**0.5, 0, 0)
    calf.add_geom(quat=quat, contype=1, conaffinity=1, group=3, **motor)
    calf.add_geom(quat=quat, contype=0, conaffinity=0, group=2, rgba=(0.2, 0.2, 0.22, 1), **motor)
    add_wheel(calf, f"{leg}_wheel", f"{leg}_foot_joint", (0, 0, _AXLE), _WHEEL, side)


UNITREE_GO2W = Robot(
    name="unitree_go2w",
    load_spec=_spec,
    actuators={
        ".*_(hip|thigh)_joint": PositionActuator(stiffness=50.0, damping=1.5, effort_limit=23.7, joint_damping=0.1),
        ".*_calf_joint": PositionActuator(stiffness=50.0, damping=1.5, effort_limit=35.55, joint_damping=0.1),
        ".*_foot_joint": VelocityActuator(damping=0.5, effort_limit=23.7, armature=0.01, joint_damping=0.0),
    },
    default_pose={".*_thigh_joint": 0.8, ".*_calf_joint": -1.5},
    base_body="base",
    base_height=0.408,
    feet=tuple(Foot(f"{leg}_foot", f"{leg}_wheel", (f"{leg}_wheel",)) for leg in _LEGS),
    group_patterns={group: (f"{leg}_.*",) for leg, group in _LEGS.items()},
    imu_site="imu",
    fall_height=0.2,
)
