"""From a published MJCF to what is stepped: which geoms collide, counted by hand, and slips that are named."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest

from biped import biped
from koboshi.errors import KoboshiError
from koboshi.robots import Foot, PositionActuator, Robot, physics_spec, visual_spec

SOLES = {"left_sole", "right_sole"}
RODS = {"left_thigh_rod", "left_shank_rod", "right_thigh_rod", "right_shank_rod"}


def geoms(robot: Robot) -> set[str]:
    model = physics_spec(robot).compile()
    return {model.geom(g).name for g in range(model.ngeom)}


def contacts(robot: Robot, height: float, pose: dict[str, float]) -> set[frozenset[str]]:
    """Pairs of geoms that touch with the base so high over a floor."""
    spec = physics_spec(robot)
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1), contype=1, conaffinity=0)
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qpos[2] = height
    for joint, angle in pose.items():
        data.joint(joint).qpos[0] = angle
    mujoco.mj_forward(model, data)
    return {frozenset(model.geom(g).name for g in contact.geom) for contact in data.contact}


def test_the_collision_filter_counted_by_hand() -> None:
    assert geoms(biped()) == SOLES
    assert geoms(biped(collisions="legs")) == SOLES | RODS
    assert geoms(biped(collisions="all")) == SOLES | RODS | {"trunk"}


def test_legs_go_on_below_the_foot() -> None:
    """Down to the toes; what hangs on the base stays out."""
    toe = '<body name="{0}_toe"><geom name="{0}_nail" size=".01" mass=".1"/></body>'
    sole = '<geom name="{0}_sole" type="sphere" size=".03" pos="0 0 -.2" mass=".1"/>'
    toes = [(sole.format(side), (sole + toe).format(side)) for side in ("left", "right")]
    head = ('<site name="imu"/>', '<site name="imu"/><body name="head"><geom name="skull" size=".1"/></body>')
    assert geoms(biped(*toes, head, collisions="legs")) == SOLES | RODS | {"left_nail", "right_nail"}


def test_what_touches_what() -> None:
    """Lying on the floor all that was kept touches it; legs that cross touch each other in `all` alone."""
    crossed = {"left_hip": -0.6, "right_hip": 0.6}
    floor = {frozenset(("floor", name)) for name in SOLES | RODS | {"trunk"}}
    for collisions, kept in (("feet", SOLES), ("legs", SOLES | RODS), ("all", SOLES | RODS | {"trunk"})):
        robot = biped(collisions=collisions)
        assert contacts(robot, 0.0, {}) == {frozenset(("floor", name)) for name in kept}
        touching = contacts(robot, 1.0, crossed)
        assert not touching & floor
        assert bool(touching) == (collisions == "all")


def test_feet_are_boxes_around_their_geoms() -> None:
    """The sole: a ball of 3 cm, 20 cm below the shank's frame; the box is 3 cm wider each way."""
    site = physics_spec(biped()).compile().site("left_foot_site")
    np.testing.assert_allclose(site.pos, [0, 0, -0.2], atol=1e-9)
    np.testing.assert_allclose(site.size, [0.06] * 3, atol=1e-9)


def test_the_box_holds_a_foot_that_lies_askew() -> None:
    """A rod from heel to toe, 4 cm thick and 24 cm long in all, along x."""
    rod = 'name="left_sole" type="capsule" fromto="-.1 0 -.2 .1 0 -.2" size=".02"'
    site = physics_spec(biped(('name="left_sole" type="sphere" size=".03" pos="0 0 -.2"', rod))).compile()
    np.testing.assert_allclose(site.site("left_foot_site").size, [0.15, 0.05, 0.05], atol=1e-9)


def test_published_sensors_go() -> None:
    model = physics_spec(biped(("</mujoco>", '<sensor><gyro site="imu"/></sensor></mujoco>'))).compile()
    kinds = [f"{side}_foot_{kind}" for kind in ("contact", "pos", "vel") for side in ("left", "right")]
    assert [model.sensor(i).name for i in range(model.nsensor)] == kinds


def test_sensors_that_a_robot_lists_stay() -> None:
    two = '<sensor><gyro name="gyro" site="imu"/><clock name="clock"/></sensor></mujoco>'
    model = physics_spec(biped(("</mujoco>", two), sensors=("clock",))).compile()
    assert model.sensor(0).name == "clock" and model.nsensor == 7
    with pytest.raises(KoboshiError, match="no sensor 'gyros'; did you mean 'gyro'\\? sensors: gyro, clock"):
        physics_spec(biped(("</mujoco>", two), sensors=("gyros",)))


def test_a_foot_senses_its_sole_and_not_its_shin() -> None:
    """Lying flat, the shin of the same body touches too."""
    robot = biped(collisions="legs")
    spec = physics_spec(robot)
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1), contype=1, conaffinity=0)
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qpos[2:7] = (0.015, np.sqrt(0.5), 0, -np.sqrt(0.5), 0)  # legs forward, along x
    mujoco.mj_forward(model, data)
    wrench, by_geom = np.zeros(6), dict.fromkeys(SOLES | RODS, 0.0)
    for i, contact in enumerate(data.contact):
        mujoco.mj_contactForce(model, data, i, wrench)
        by_geom[next(n for n in (model.geom(g).name for g in contact.geom) if n != "floor")] += wrench[0]
    assert by_geom["left_shank_rod"] > 0
    assert data.sensor("left_foot_contact").data[0] == pytest.approx(by_geom["left_sole"])


def test_geoms_that_are_named_are_feet_even_where_they_did_not_collide() -> None:
    """As in models whose feet touch the ground by explicit pairs."""
    silent = [(f'name="{s}_sole"', f'name="{s}_sole" contype="0" conaffinity="0"') for s in ("left", "right")]
    assert geoms(biped(*silent)) == SOLES
    assert {frozenset(("floor", name)) for name in SOLES} == contacts(biped(*silent), 0.42, {})


def test_a_foots_geoms_default_to_the_primitives_that_collide() -> None:
    feet = (Foot("left_foot", "left_shank"), Foot("right_foot", "right_shank"))
    assert geoms(biped(feet=feet)) == SOLES | {"left_shank_rod", "right_shank_rod"}


def test_masses_outlive_their_geoms() -> None:
    """5 kg of trunk, 1.6 of each leg; the inertia of the trunk alone is m (b² + c²) / 3 of its half sizes."""
    published, stepped = (f(biped()).compile() for f in (visual_spec, physics_spec))
    assert stepped.body_subtreemass[0] == pytest.approx(8.2)
    np.testing.assert_allclose(stepped.body("base").inertia, 5 / 3 * np.array([0.0125, 0.0425, 0.05]))
    for field in ("body_mass", "body_ipos", "body_inertia"):
        np.testing.assert_allclose(getattr(stepped, field), getattr(published, field), atol=1e-12)


def test_looks_are_left_as_published() -> None:
    model = visual_spec(biped()).compile()
    assert {model.geom(g).name for g in range(model.ngeom)} == SOLES | RODS | {"trunk", "shell"}
    assert (model.nu, model.nsensor) == (0, 0)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "base": ({"base_body": "trunk"}, "biped has no base body 'trunk'; bodies: base, left_thigh"),
    "foot's body": ({"feet": (Foot("toe", "left_toe"),)}, "biped has no body of foot 'toe' 'left_toe'; bodies"),
    "foot's geom": ({"feet": (Foot("toe", "base", ("toe",)),)}, r"foot 'toe' of biped finds no geom \(toe\) on"),
    "imu": ({"imu_site": "imo"}, "biped has no IMU site 'imo'; sites: imu"),
    "actuator": ({"actuators": {".*_wheel": PositionActuator(effort_limit=1.0)}}, r"'\.\*_wheel' in actuators"),
    "pose": ({"default_pose": {"left_kne": 1.0}}, "'left_kne' in default_pose of biped matches no joint; joints"),
    "spared": ({"spared": ("ankle",)}, "'ankle' in spared of biped matches no joint"),
    "no group": ({"group_patterns": {"left_leg": ("left_.*",)}}, r"joint 'right_hip' of biped is in 0 groups"),
    "two groups": (
        {"group_patterns": {"left_leg": ("left_.*",), "right_leg": ("right_.*",), "hips": (".*_hip",)}},
        "joint 'left_hip' of biped is in 2 groups, not in one: .*'hips'",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_slips_are_named(name: str) -> None:
    fields, message = MISTAKES[name]
    robot = biped(**fields)
    with pytest.raises(KoboshiError, match=message):
        _ = robot.groups, robot.default_joint_pos, robot.fault_candidates, robot.physics


def test_a_joint_without_a_name_is_refused() -> None:
    with pytest.raises(KoboshiError, match="biped has joints without a name, on the bodies 'left_thigh'"):
        _ = biped(('name="left_hip" ', "")).joint_names


def test_a_free_joint_is_never_driven() -> None:
    """Though `.*` matches its name."""
    assert "root" not in biped().joint_names
