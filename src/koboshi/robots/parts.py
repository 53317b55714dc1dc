"""Parts that robots are made of: bodies with a weight, and wheels that turn on a leg's end."""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np

BULGE = 0.05
"""Half-axis across of the ellipsoid that a tyre collides as, m."""


class Wheel(NamedTuple):
    """Numbers of a wheel whose axis is y. `out` is where its middle lies, along y away from its joint."""

    radius: float
    """m."""
    width: float
    mass: float
    """kg."""
    inertia: tuple[float, float, float]
    """About its centre of mass, along x, y and z, kg·m²."""
    out: float
    centre_of_mass: float
    """Along y away from its joint, m."""


def weigh(
    body: mujoco.MjsBody,
    mass: float,
    centre: tuple[float, float, float],
    inertia: tuple[float, float, float, float, float, float],
) -> None:
    """Gives a body its mass (kg), its centre (m) and its inertia about that, xx, yy, zz, xy, xz, yz (kg·m²)."""
    xx, yy, zz, xy, xz, yz = inertia
    moments, axes = np.linalg.eigh(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]))
    axes *= np.sign(np.linalg.det(axes))  # a rotation, no reflection
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, axes.ravel())
    body.mass, body.ipos, body.inertia, body.iquat, body.explicitinertial = mass, centre, moments, quat, True


def add_wheel(
    leg: mujoco.MjsBody, name: str, joint: str, at: tuple[float, float, float], wheel: Wheel, side: float
) -> None:
    """A wheel on `leg`, turning freely about y at `at`; `side` is 1 where it points to +y, −1 to −y.

    It looks like a cylinder and collides as an ellipsoid with a tyre's round profile: a cylinder would touch level
    ground along a line, of which physics keeps one point that jumps from one end to the other.
    """
    body = leg.add_body(name=name, pos=at)
    weigh(body, wheel.mass, (0, side * wheel.centre_of_mass, 0), (*wheel.inertia, 0, 0, 0))
    endless = mujoco.mjtLimited.mjLIMITED_FALSE
    body.add_joint(name=joint, type=mujoco.mjtJoint.mjJNT_HINGE, axis=(0, 1, 0), limited=endless)
    middle, across = (0, side * wheel.out, 0), (0.5**0.5, 0.5**0.5, 0, 0)
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_ELLIPSOID,
        size=(wheel.radius, BULGE, wheel.radius),
        pos=middle,
        group=3,
        rgba=(0, 0, 0, 0),
    )
    seen = {"type": mujoco.mjtGeom.mjGEOM_CYLINDER, "quat": across, "contype": 0, "conaffinity": 0, "group": 2}
    body.add_geom(size=(wheel.radius, wheel.width / 2, 0), pos=middle, rgba=(0.12, 0.12, 0.13, 1), **seen)
    hub = (0, side * (wheel.out + 0.004), 0)
    body.add_geom(size=(0.6 * wheel.radius, wheel.width / 2, 0), pos=hub, rgba=(0.62, 0.64, 0.66, 1), **seen)
    # A spoke, so that one sees it turn.
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.08 * wheel.radius, wheel.width / 2, 0.55 * wheel.radius),
        pos=(0, side * (wheel.out + 0.006), 0), rgba=(0.9, 0.45, 0.1, 1), contype=0, conaffinity=0, group=2,
    )  # fmt: skip
