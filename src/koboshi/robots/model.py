"""From a robot's published MJCF to the model that koboshi steps: PD actuators, few contacts, few sensors."""

from __future__ import annotations

import mujoco

from koboshi.robots.robot import Robot

_FOOT_BOX = (0.2, 0.1, 0.12)
"""Half-sizes of the box in which a foot's contacts are summed, m: larger than either robot's foot."""


def visual_spec(robot: Robot) -> mujoco.MjSpec:
    """The robot as published, to look at: same joints in the same order as `physics_spec`."""
    spec = robot.load_spec()
    _delete(spec.actuators, spec)
    _delete(spec.keys, spec)
    return spec


def physics_spec(robot: Robot) -> mujoco.MjSpec:
    """The robot to step: PD position actuators in `joint_names` order, contacts at the feet only, foot sensors.

    Sensors, left then right: `{side}_foot_contact` (normal force, N), `{side}_foot_pos` (m) and
    `{side}_foot_vel` (m/s, world frame).
    """
    spec = visual_spec(robot)
    _delete(spec.sensors, spec)
    _keep_foot_contacts(spec, robot)
    _add_actuators(spec, robot)
    _add_foot_sensors(spec, robot)
    # Feet against one plane: bounding volumes would cost more than the contacts they could skip, and they
    # are stored in the inertial frame, so that randomised inertias would silently lose contacts.
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_MIDPHASE
    return spec


def _delete(elements: list, spec: mujoco.MjSpec) -> None:
    for element in list(elements):
        spec.delete(element)


def _keep_foot_contacts(spec: mujoco.MjSpec, robot: Robot) -> None:
    """Feet collide with the floor (contype 1) and with nothing else; all other geoms and meshes go."""
    _delete(spec.pairs, spec)
    _delete(spec.excludes, spec)
    feet = dict(zip(robot.foot_bodies, robot.foot_geoms, strict=True))
    for geom in list(spec.geoms):
        body = geom.parent.name
        touches = geom.contype != 0 or geom.conaffinity != 0
        if body not in feet or geom.type == mujoco.mjtGeom.mjGEOM_MESH or not touches:
            spec.delete(geom)
    for body, names in feet.items():
        geoms = list(spec.body(body).geoms)
        for geom, name in zip(geoms, names, strict=True):
            geom.name, geom.contype, geom.conaffinity = name, 0, 1
    _delete(spec.meshes, spec)


def _add_actuators(spec: mujoco.MjSpec, robot: Robot) -> None:
    """MuJoCo position servos: force = kp (ctrl − q) − kd q̇, clipped to the effort limit."""
    rows = zip(robot.joint_names, robot.stiffness, robot.damping, robot.effort_limit, strict=True)
    for name, kp, kd, limit in rows:
        actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=kp, kv=kd)
        actuator.forcelimited = True
        actuator.forcerange = (-limit, limit)


def _add_foot_sensors(spec: mujoco.MjSpec, robot: Robot) -> None:
    for side, body in zip(("left", "right"), robot.foot_bodies, strict=True):
        site = f"{side}_foot_site"
        spec.body(body).add_site(name=site, type=mujoco.mjtGeom.mjGEOM_BOX, size=_FOOT_BOX)
        for kind, sensor in (
            ("contact", mujoco.mjtSensor.mjSENS_TOUCH),
            ("pos", mujoco.mjtSensor.mjSENS_FRAMEPOS),
            ("vel", mujoco.mjtSensor.mjSENS_FRAMELINVEL),
        ):
            spec.add_sensor(
                name=f"{side}_foot_{kind}", type=sensor, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=site
            )
