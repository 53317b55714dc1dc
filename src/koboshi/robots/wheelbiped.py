"""A biped on wheels: two legs of three joints with a driven wheel each, all from parts.

Masses, inertias, joints, ranges, efforts (legs 80, wheels 40 N·m) and sizes: LimX Dynamics' TRON1 with wheel feet
(`WF_TRON1A`, limxdynamics/robot-description); its looks here are plain solids. Armature and joint damping of 0.01: its
MJCF. Gains of 42/2.5, wheels' servo 0.8 N·m·s/rad: its makers' deployment. The pose puts the centre of mass over the
wheels' axle; both knees bend the same way, so that a hip's angle means the same on either side.
"""

from __future__ import annotations

import mujoco

from koboshi.robots.actuators import PositionActuator, VelocityActuator
from koboshi.robots.parts import Wheel, add_wheel, weigh
from koboshi.robots.robot import Foot, Robot

WHEEL = Wheel(
    radius=0.127, width=0.05, mass=1.08, inertia=(0.00515512, 0.00974272, 0.00515400), out=0.0, centre_of_mass=0.00807
)
_SIDES = {"left": 1.0, "right": -1.0}
Colour = tuple[float, float, float, float]
_DARK, _LIGHT, _BLUE = (0.16, 0.17, 0.19, 1.0), (0.86, 0.87, 0.89, 1.0), (0.15, 0.35, 0.62, 1.0)


def _spec() -> mujoco.MjSpec:
    spec = mujoco.MjSpec()
    spec.modelname = "wheelbiped"
    spec.compiler.degree = False
    base = spec.worldbody.add_body(name="base", pos=(0, 0, 0.9))
    base.add_freejoint()
    inertia = (0.140110, 0.110641, 0.098945, 5.349e-4, 2.8184e-2, -2.73e-5)
    weigh(base, 9.585, (0.04576, 0.00014, -0.16398), inertia)
    base.add_site(name="imu", pos=(0, 0, 0))
    base.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.135, 0.13, 0.095), pos=(0.03, 0, -0.072), rgba=_LIGHT)
    # What holds the legs; it only shows.
    base.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.07, 0.1, 0.06), pos=(0, 0, -0.225), rgba=_DARK, contype=0, conaffinity=0
    )
    for name, side in _SIDES.items():
        _add_leg(base, name, side)
    return spec


def _add_leg(base: mujoco.MjsBody, name: str, side: float) -> None:
    abad = base.add_body(name=f"{name}_abad", pos=(0.05556, side * 0.105, -0.2602))
    outward = (-0.38397, 1.39626) if side > 0 else (-1.39626, 0.38397)
    _hinge(abad, f"{name}_abad_joint", (1, 0, 0), outward)
    inertia = (0.00155538, 0.00235925, 0.00208092, side * 3.9778e-4, -1.310e-5, -side * 9.8e-7)
    weigh(abad, 1.469, (-0.06977, side * 0.04479, 0.00057), inertia)
    _rod(abad, 0.05, 0.025, (-0.08, 0, 0), (0, 1, 0), _DARK)
    hip = abad.add_body(name=f"{name}_hip", pos=(-0.077, side * 0.0205, 0))
    _hinge(hip, f"{name}_hip_joint", (0, 1, 0), (-1.012291, 1.396263))
    inertia = (0.01693728, 0.02285328, 0.00933419, side * 1.64703e-3, -9.23253e-3, side * 2.2024e-3)
    weigh(hip, 2.3, (-0.02869, -side * 0.0477, -0.03992), inertia)
    _rod(hip, 0.035, 0.075, (-0.1, -side * 0.025, -0.14), (0.505, 0, 0.863), _BLUE)
    knee = hip.add_body(name=f"{name}_knee", pos=(-0.150, -side * 0.0205, -0.25981))
    _hinge(knee, f"{name}_knee_joint", (0, -1, 0), (-0.872665, 1.361357))
    inertia = (0.0132328, 0.01766137, 0.00501698, -side * 4.3546e-4, 6.93569e-3, side * 7.9087e-4)
    weigh(knee, 1.49, (0.11913, side * 0.01106, -0.20363), inertia)
    _rod(knee, 0.015, 0.13, (0.078, 0, -0.12), (-0.523, 0, 0.852), _DARK)
    at = (0.150, side * 0.0435, -0.25981)
    add_wheel(knee, f"{name}_wheel", f"{name}_wheel_joint", at, WHEEL, side)


def _hinge(body: mujoco.MjsBody, name: str, axis: tuple[float, ...], range_: tuple[float, float]) -> None:
    body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=axis, range=range_, limited=True)


def _rod(
    body: mujoco.MjsBody, radius: float, half: float, middle: tuple[float, ...], axis: tuple[float, ...], rgba: Colour
) -> None:
    """A cylinder that collides and is seen."""
    ends = [m + sign * half * a for sign in (-1, 1) for m, a in zip(middle, axis, strict=True)]
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=(radius, 0, 0), fromto=ends, rgba=rgba)


WHEELBIPED = Robot(
    name="wheelbiped",
    load_spec=_spec,
    actuators={
        ".*_wheel_joint": VelocityActuator(damping=0.8, effort_limit=40.0, armature=0.01, joint_damping=0.01),
        ".*": PositionActuator(stiffness=42.0, damping=2.5, effort_limit=80.0, armature=0.01, joint_damping=0.01),
    },
    default_pose={".*_hip_joint": 0.2376, ".*_knee_joint": 0.5746},
    base_body="base",
    base_height=0.805,
    feet=tuple(Foot(f"{side}_wheel", f"{side}_wheel", (f"{side}_wheel",)) for side in _SIDES),
    group_patterns={f"{side}_leg": (f"{side}_.*",) for side in _SIDES},
    imu_site="imu",
    fall_height=0.5,
)
