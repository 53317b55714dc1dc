"""What is missing or wrong in a robot, before anything is trained on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np

from koboshi.errors import KoboshiError
from koboshi.robots import JointMap, PositionActuator, Robot, physics_spec, visual_spec
from koboshi.robots.gains import Answer, proposed_gains
from koboshi.robots.step_response import StepResponse, step_responses
from koboshi.view.step_response import plot_step_responses

PICTURE = "step_response.png"
ADVICE = "gains"
"""The kind of finding that a robot can live with: good walkers ring in the air."""
FLOATS_M, SINKS_M = 0.03, 0.01
"""How far feet may be above and below the ground in the default pose."""
OVERSHOOT, SETTLING_S, ARRIVES = 0.25, 0.5, 0.5
"""Gains ring above this overshoot, are slow beyond this time, and too weak below this share of a step."""
MIRROR_ERROR = 0.05
"""Share by which accelerations of mirrored states may differ from mirrored accelerations."""
SYMMETRIC_POSE = 0.01
"""How far a joint may be from its partner's mirror image in the default pose, rad."""


class Finding(NamedTuple):
    """`kind`: a word for what is wrong; `part`: the joint, foot or geoms concerned; `text`: figures and remedy."""

    kind: str
    part: str
    text: str


def check(robot: Robot, folder: Path, answer: Answer = Answer()) -> list[Finding]:  # noqa: B008 (frozen)
    """All findings; writes `step_response.png` into the folder. KoboshiError where no model comes about at all."""
    answer.check()
    robot.groups, robot.fault_candidates  # noqa: B018 (their own checks)
    responses = step_responses(robot)
    gains = list(_gains(robot, responses, answer))
    folder.mkdir(parents=True, exist_ok=True)
    plot_step_responses(robot.name, responses, {found.part for found in gains}, folder / PICTURE)
    parts = (_joints, _pose, _feet, _collisions, _mirror, _effort)
    return [*(found for part in parts for found in part(robot)), *gains]


def _joints(robot: Robot) -> Iterator[Finding]:
    model, at = robot.physics, JointMap(robot.physics, robot)
    if robot.imu_site is None:
        sites = ", ".join(site.name for site in visual_spec(robot).sites) or "(none)"
        yield Finding("imu", robot.base_body, f"no imu_site is named; the model's sites: {sites}")
    for j, name in enumerate(robot.joint_names):
        if model.dof_armature[at.dof][j] <= 0:
            text = "no armature: without the rotor's inertia light links ring and need small time steps"
            yield Finding("armature", name, text)
        if not robot.limited[j] and isinstance(robot.joint_actuators[name], PositionActuator):
            yield Finding("limits", name, "no range: nothing stops a policy from turning it over")
    for joint in range(model.njnt):
        name = model.joint(joint).name
        if model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_FREE and name not in robot.joint_names:
            yield Finding("passive", name or f"joint {joint}", "no actuator pattern matches it: it moves freely")


def _pose(robot: Robot) -> Iterator[Finding]:
    model, at = robot.physics, JointMap(robot.physics, robot)
    for name, angle, (low, high) in zip(
        robot.joint_names, robot.default_joint_pos, model.jnt_range[at.joint], strict=True
    ):
        if robot.limited[robot.joint_id(name)] and not low <= angle <= high:
            yield Finding("pose", name, f"the default {angle:.3f} rad is outside of its range {low:.3f} to {high:.3f}")


def _posed(robot: Robot, spec: mujoco.MjSpec) -> tuple[mujoco.MjModel, mujoco.MjData, JointMap]:
    """The default pose at `base_height`, with derived fields."""
    model = spec.compile()
    data, at = mujoco.MjData(model), JointMap(model, robot)
    data.qpos[at.base_pos], data.qpos[at.base_quat] = (0, 0, robot.base_height), (1, 0, 0, 0)
    data.qpos[at.qpos] = robot.default_joint_pos
    mujoco.mj_forward(model, data)
    return model, data, at


def _feet(robot: Robot) -> Iterator[Finding]:
    if not robot.feet:
        yield Finding("feet", robot.name, "it has none: name the bodies that are meant to touch the ground")
    spec = physics_spec(robot)
    spec.worldbody.add_geom(name="check_ground", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1))
    model, data, _ = _posed(robot, spec)
    ground = model.geom("check_ground").id
    for foot in robot.feet:
        geoms = np.flatnonzero(model.geom_bodyid == model.body(foot.body).id)
        gap = min(mujoco.mj_geomDistance(model, data, ground, int(geom), 2.0, None) for geom in geoms)
        if gap > FLOATS_M or gap < -SINKS_M:
            where = f"{1000 * abs(gap):.0f} mm {'above' if gap > 0 else 'below'} the ground"
            yield Finding("feet", foot.name, f"{where} in the default pose at base_height {robot.base_height} m")


def _collisions(robot: Robot) -> Iterator[Finding]:
    """With all geoms that collide as published."""
    model, data, _ = _posed(robot, visual_spec(robot))
    deepest: dict[tuple[str, str], float] = {}
    for contact in data.contact:
        first, second = sorted(model.body(model.geom_bodyid[geom]).name for geom in contact.geom)
        deepest[first, second] = min(contact.dist, deepest.get((first, second), 0.0))
    for (first, second), depth in deepest.items():
        if depth < 0:
            text = f"they are {-1000 * depth:.0f} mm in each other in the default pose"
            yield Finding("self_collision", f"{first}, {second}", text)


def _mirror(robot: Robot) -> Iterator[Finding]:
    if not robot.mirrored:
        return
    try:
        ids, signs, _ = robot.mirror_ids, robot.mirror_signs, robot.mirror_feet
    except KoboshiError as error:
        yield Finding("mirror", robot.name, str(error))
        return
    pose = robot.default_joint_pos
    for name, here, image in zip(robot.joint_names, pose, signs * pose[ids], strict=True):
        if abs(here - image) > SYMMETRIC_POSE:
            yield Finding("mirror", name, f"the default pose {here:.3f} rad is not its partner's mirrored {image:.3f}")
    share = _mirror_error(robot)
    if share > MIRROR_ERROR:
        text = f"a mirrored state accelerates otherwise, by {100 * share:.0f} %: masses or inertias differ by side"
        yield Finding("mirror", robot.name, text)


def _mirror_error(robot: Robot) -> float:
    """Root mean square of joint accelerations of mirrored states less mirrored ones, over that of the latter."""
    model, at = robot.physics, JointMap(robot.physics, robot)
    ids, signs, rng = robot.mirror_ids, robot.mirror_signs, np.random.default_rng(0)
    data, differences, sizes = mujoco.MjData(model), [], []
    for _ in range(20):
        state = np.stack([rng.normal(robot.default_joint_pos, 0.2), rng.standard_normal(len(ids)), np.zeros(len(ids))])
        seen = []
        for columns in (state, signs * state[:, ids]):
            mujoco.mj_resetData(model, data)
            data.qpos[at.qpos], data.qvel[at.dof], data.ctrl[at.actuator] = columns
            mujoco.mj_forward(model, data)
            seen.append(data.qacc[at.dof].copy())
        differences.append(seen[1] - signs * seen[0][ids])
        sizes.append(seen[1])
    return float(np.sqrt(np.mean(np.square(differences)) / np.mean(np.square(sizes))))


def _effort(robot: Robot) -> Iterator[Finding]:
    load = standing_torques(robot)
    for name, torque, limit in zip(robot.joint_names, load, robot.effort_limit, strict=True):
        if abs(torque) > limit:
            text = f"standing asks for {abs(torque):.1f} N·m, more than its effort limit of {limit:.1f}"
            yield Finding("effort", name, text)


def standing_torques(robot: Robot) -> np.ndarray:
    """(J,) N·m that hold the default pose against gravity, the weight shared among the feet's geoms.

    Of all forces on the geoms' centres that keep the base still, the smallest in the sense of least squares; without
    feet, the base is held.
    """
    model, data, at = _posed(robot, physics_spec(robot))
    need, mapped = data.qfrc_bias - data.qfrc_passive, np.zeros(model.nv)
    jacobians = []
    for foot in robot.feet:
        body = model.body(foot.body).id
        for geom in np.flatnonzero(model.geom_bodyid == body):
            jacobian = np.zeros((3, model.nv))
            mujoco.mj_jac(model, data, jacobian, None, data.geom_xpos[geom], body)
            jacobians.append(jacobian)
    if jacobians:
        stacked = np.concatenate(jacobians)
        base = np.r_[at.base_lin_vel, at.base_ang_vel]
        force = np.linalg.lstsq(stacked[:, base].T, need[base], rcond=None)[0]
        mapped = stacked.T @ force
    return (need - mapped)[at.dof]


def _remedy(robot: Robot, joint: str, answer: Answer) -> str:
    """What its rotor asks for, of a joint that is asked for positions."""
    actuator, model = robot.joint_actuators[joint], robot.physics
    armature = float(model.dof_armature[model.joint(joint).dofadr[0]])
    gains = proposed_gains(armature, actuator.effort_limit, answer)
    if gains is None:
        return "; give it its rotor's inertia first (armature), without which no gains are right"
    if not isinstance(actuator, PositionActuator):
        return ""
    wished = f"{answer.frequency_hz:g} Hz and a damping ratio of {answer.damping_ratio:g}"
    found = f"stiffness {gains.stiffness:.3g}, damping {gains.damping:.3g}, action scale {gains.action_scale:.2g}"
    return f"; {wished} of its rotor ({armature:g} kg·m²) would be {found}"


def _gains(robot: Robot, responses: list[StepResponse], answer: Answer) -> Iterator[Finding]:
    for found in responses:
        remedy = _remedy(robot, found.joint, answer)
        settles = f"settles in {found.settling_s:.2f} s" if math.isfinite(found.settling_s) else "never settles"
        frequency = f" at {found.frequency_hz:.1f} Hz" if found.frequency_hz is not None else ""
        if found.final < ARRIVES:
            yield Finding(ADVICE, found.joint, f"weak: comes {100 * found.final:.0f} % of a small step's way{remedy}")
        elif found.overshoot > OVERSHOOT:
            text = f"ring: {100 * found.overshoot:.0f} % overshoot{frequency}, {settles}{remedy}"
            yield Finding(ADVICE, found.joint, text)
        elif found.settling_s > SETTLING_S:
            text = f"slow: {settles}, {100 * found.overshoot:.0f} % overshoot{remedy}"
            yield Finding(ADVICE, found.joint, text)
