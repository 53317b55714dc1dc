"""From a robot's published MJCF to the model that koboshi steps: its actuators, few contacts, few sensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mujoco
import numpy as np

from koboshi.errors import KoboshiError, unknown

if TYPE_CHECKING:
    from koboshi.robots.robot import Collisions, Foot, Robot

GROUND, BODY = 1, 2
"""Contact types: what robots stand on, and robots that collide with themselves."""
_NET = 3
"""MuJoCo's `reduce="netforce"`."""
_MARGIN = 0.03
"""How far the box in which a foot's contacts are summed reaches beyond its geoms, m."""
FOOT_SENSORS = {
    "contact": mujoco.mjtSensor.mjSENS_TOUCH,
    "pos": mujoco.mjtSensor.mjSENS_FRAMEPOS,
    "vel": mujoco.mjtSensor.mjSENS_FRAMELINVEL,
}
"""`{foot}_contact` (normal force, N), `{foot}_pos` (m) and `{foot}_vel` (m/s, world frame) of each foot."""

TOUCHES, FORCE = "_touches", "_force"
"""End the names of the sensors that count a geom's contacts, and that give their force on a sole, N, world frame."""


def visual_spec(robot: Robot) -> mujoco.MjSpec:
    """The robot as published, to look at: same joints in the same order as `physics_spec`."""
    spec = robot.load_spec()
    _delete(spec.actuators, spec)
    _delete(spec.keys, spec)
    return spec


def physics_spec(robot: Robot, collisions: Collisions | None = None) -> mujoco.MjSpec:
    """The robot to step: its actuators in `joint_names` order, contacts of what `collisions` asks for (None: what
    the robot says), its feet's sensors."""
    spec, collisions = visual_spec(robot), collisions or robot.collisions
    _check_parts(spec, robot)
    _delete([sensor for sensor in spec.sensors if sensor.name not in robot.sensors], spec)
    feet = _name_feet(spec, robot)
    _keep_masses(spec)
    _filter_collisions(spec, robot, feet, collisions)
    for joint, actuator in robot.joint_actuators.items():
        actuator.add_to(spec, joint)
    for foot in robot.feet:
        _add_foot_site(spec, foot, feet[foot.name])
    _add_foot_sensors(spec, robot)
    if collisions == "body":
        _add_contact_sensors(spec, {name for names in feet.values() for name in names})
    # Pyramids step fastest, and the published solvers differ from robot to robot.
    spec.option.cone, spec.option.impratio = mujoco.mjtCone.mjCONE_PYRAMIDAL, 1.0
    if collisions != "all":
        # Against one plane bounding volumes would cost more than the contacts they could skip, and they
        # are stored in the inertial frame, so that randomised inertias would silently lose contacts.
        spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_MIDPHASE
    return spec


def _delete(elements: list, spec: mujoco.MjSpec) -> None:
    for element in list(elements):
        spec.delete(element)


def _check_parts(spec: mujoco.MjSpec, robot: Robot) -> None:
    """KoboshiError where the model lacks the base, a foot's body, the IMU or a sensor."""
    bodies = [body.name for body in spec.bodies]
    for what, name in (("base body", robot.base_body), *((f"body of foot '{f.name}'", f.body) for f in robot.feet)):
        if name not in bodies:
            raise KoboshiError(f"{robot.name} has no {what} '{name}'; bodies: {', '.join(bodies[1:])}")
    sites = [site.name for site in spec.sites]
    if robot.imu_site is not None and robot.imu_site not in sites:
        raise KoboshiError(f"{robot.name} has no IMU site '{robot.imu_site}'; sites: {', '.join(sites) or '(none)'}")
    sensors = [sensor.name for sensor in spec.sensors]
    for name in robot.sensors:
        if name not in sensors:
            raise unknown("sensor", name, sensors)


def _keep_masses(spec: mujoco.MjSpec) -> None:
    """Bodies whose mass comes from their geoms get it in numbers, for most geoms go."""
    derived = [body for body in spec.bodies[1:] if not body.explicitinertial]
    if spec.compiler.inertiafromgeom == mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_TRUE:
        derived = spec.bodies[1:]
    if not derived:
        return
    model = spec.compile()
    for body in derived:
        body.mass, body.ipos, body.iquat = model.body_mass[body.id], model.body_ipos[body.id], model.body_iquat[body.id]
        body.inertia, body.explicitinertial = model.body_inertia[body.id], True
    spec.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_AUTO  # a scene may add bodies


def _collides(geom: mujoco.MjsGeom) -> bool:
    return bool(geom.contype or geom.conaffinity)


def _name_feet(spec: mujoco.MjSpec, robot: Robot) -> dict[str, list[str]]:
    """Foot -> the names of its geoms, given where they have none."""
    named: dict[str, list[str]] = {}
    for foot in robot.feet:
        geoms = spec.body(foot.body).geoms
        if foot.geoms is not None:
            found = [geom for geom in geoms if geom.name in foot.geoms]
            missing = [name for name in foot.geoms if name not in [geom.name for geom in found]]
        else:
            found = [geom for geom in geoms if _collides(geom) and geom.type != mujoco.mjtGeom.mjGEOM_MESH]
            missing = [] if found else ["a primitive that collides"]
        if missing:
            raise KoboshiError(
                f"foot '{foot.name}' of {robot.name} finds no geom ({', '.join(missing)}) on body '{foot.body}'"
            )
        for i, geom in enumerate(found):
            geom.name = geom.name or f"{foot.name}_geom{i + 1}"
        named[foot.name] = [geom.name for geom in found]
    return named


def _filter_collisions(spec: mujoco.MjSpec, robot: Robot, feet: dict[str, list[str]], collisions: Collisions) -> None:
    """Keeps the geoms that `collisions` asks for; all others and, where none is kept, meshes go."""
    soles = {name for names in feet.values() for name in names}
    legs = _leg_bodies(spec, robot)
    itself = collisions == "all"
    if not itself:
        _delete(spec.pairs, spec)
        _delete(spec.excludes, spec)
    for geom in list(spec.geoms):
        wanted = collisions in ("body", "all") or (collisions == "legs" and geom.parent.name in legs)
        if geom.name not in soles and not (wanted and _collides(geom)):
            spec.delete(geom)
            continue
        geom.contype, geom.conaffinity = (BODY, GROUND | BODY) if itself else (0, GROUND)
        geom.group = 3  # rays look for what is not the robot, group 0
        if geom.name in soles:
            geom.condim, geom.priority = 3, 0
    if not any(geom.type == mujoco.mjtGeom.mjGEOM_MESH for geom in spec.geoms):
        _delete(spec.meshes, spec)


def _leg_bodies(spec: mujoco.MjSpec, robot: Robot) -> set[str]:
    """Bodies from the base (left out) down to each foot and below."""
    found: set[str] = set()
    for foot in robot.feet:
        body = spec.body(foot.body)
        found |= {child.name for child in body.find_all("body")}
        while body.name not in (robot.base_body, "world"):
            found.add(body.name)
            body = body.parent
    return found


def _add_foot_site(spec: mujoco.MjSpec, foot: Foot, geoms: list[str]) -> None:
    """A box around the foot's geoms, in which its contacts are summed, with its centre where the foot is."""
    compiled = spec.compile()
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for name in geoms:
        geom = compiled.geom(name)
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, geom.quat)
        aabb = compiled.geom_aabb[geom.id]
        centre = geom.pos + rotation.reshape(3, 3) @ aabb[:3]
        half = np.abs(rotation.reshape(3, 3)) @ aabb[3:]
        low, high = np.minimum(low, centre - half), np.maximum(high, centre + half)
    spec.body(foot.body).add_site(
        name=f"{foot.name}_site",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=(low + high) / 2,
        size=(high - low) / 2 + _MARGIN,
    )


def _add_foot_sensors(spec: mujoco.MjSpec, robot: Robot) -> None:
    """Kind by kind, so that each kind lies in one piece."""
    for kind, sensor in FOOT_SENSORS.items():
        for foot in robot.feet:
            site = f"{foot.name}_site"
            spec.add_sensor(name=f"{foot.name}_{kind}", type=sensor, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=site)


def _add_contact_sensors(spec: mujoco.MjSpec, soles: set[str]) -> None:
    """`{geom}_touches` of every geom that collides and is no sole: the number of its contacts; `{geom}_force` of soles:
    the force of all its contacts together."""
    found, force = mujoco.mjtConDataField.mjCONDATA_FOUND, mujoco.mjtConDataField.mjCONDATA_FORCE
    for body in spec.bodies[1:]:
        for i, geom in enumerate(body.geoms):
            geom.name = geom.name or f"{body.name}_geom{i + 1}"
            kind, data, reduction = (FORCE, force, _NET) if geom.name in soles else (TOUCHES, found, 0)
            sensor = spec.add_sensor(
                name=f"{geom.name}{kind}",
                type=mujoco.mjtSensor.mjSENS_CONTACT,
                objtype=mujoco.mjtObj.mjOBJ_GEOM,
                objname=geom.name,
            )
            # What it says, how contacts are put together, and how many it tells of.
            sensor.intprm[:3] = 1 << int(data), reduction, 1
