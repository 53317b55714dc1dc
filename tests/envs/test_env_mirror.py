"""The mirror map of a whole environment: mirrored state and actions give mirrored observations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import worlds
from torch import Tensor

from biped import biped
from koboshi import robots
from koboshi.envs import Env, EnvCfg
from koboshi.envs.cfg import ObsGroup, ObsTerm
from koboshi.errors import KoboshiError
from koboshi.robots import UNITREE_GO2, UNITREE_H1

GROUPS = ("policy", "critic", "detector", "fault")
MIRROR_Y = torch.tensor([1.0, -1.0, 1.0])


def unmirrored(env: Env) -> Tensor:
    return torch.zeros(env.num_envs, 2)


def two(cfg: EnvCfg) -> Env:
    """Two environments without noise, with a group that remembers, and one that has no mirror image."""
    terms = dict(cfg.observations["policy"].terms)
    terms["joint_pos"] = replace(terms["joint_pos"], history=3)
    groups = cfg.observations | {"history": ObsGroup(terms), "odd": ObsGroup({"a": ObsTerm(unmirrored)})}
    groups["apart"] = ObsGroup(
        {"a": ObsTerm(unmirrored), "foot": groups["critic"].terms["foot_contact"]}, concatenate=False
    )
    return Env(worlds.clean(replace(cfg, num_envs=2, observations=groups)))


@pytest.fixture(scope="module", params=["h1", "go2", "rover"])
def env(request: pytest.FixtureRequest) -> Env:
    """The rover's actions come in another order than its joints."""
    return two(getattr(worlds, request.param)())


def test_involution(env: Env) -> None:
    groups = (*GROUPS, "history")
    found = env.mirror_map(groups)
    assert tuple(found.obs) == groups
    maps = {name: (*found.obs[name], env.obs_spec[name].width) for name in groups}
    for name, (ids, signs, width) in (maps | {"action": (*found.action, env.action_space.dim)}).items():
        assert ids.shape == signs.shape == (width,), name
        assert torch.equal(ids[ids], torch.arange(width)), name
        assert torch.equal(signs * signs[ids], torch.ones(width)), name
        # Severity has no sign; a rover's wheels and mast turn about y and keep theirs, its vane does not.
        assert bool((signs == 1).all()) == (name == "fault"), name


def test_mirrored_robots_see_mirrored_worlds(env: Env) -> None:
    """Row 1 is row 0 in the mirror. The published inertias are not perfectly symmetric, hence the tolerances."""
    env.reset(0)
    ids, signs = (torch.as_tensor(x) for x in (env.robot.mirror_ids.copy(), env.robot.mirror_signs.copy()))
    at, flip = env.joints, MIRROR_Y.double()
    env.qpos[1, at.base_pos] = flip * env.qpos[0, at.base_pos]
    env.qpos[1, at.base_quat] = torch.tensor([1.0, -1.0, 1.0, -1.0]).double() * env.qpos[0, at.base_quat]
    env.qpos[1, at.qpos] = signs * env.qpos[0, at.qpos][ids]
    env.qvel[1, at.base_lin_vel] = flip * env.qvel[0, at.base_lin_vel]
    env.qvel[1, at.base_ang_vel] = -flip * env.qvel[0, at.base_ang_vel]
    env.qvel[1, at.dof] = signs * env.qvel[0, at.dof][ids]
    env.command.value[1] = torch.tensor([1.0, -1.0, -1.0]) * env.command.value[0]
    env.state.refresh_motion(torch.zeros(2, dtype=torch.bool))
    found = env.mirror_map(("policy", "critic", "detector"))
    action_ids, action_signs = found.action
    generator, contacts = torch.Generator().manual_seed(0), []
    for _ in range(5):
        action = 0.5 * torch.randn(env.action_space.dim, generator=generator)
        obs = env.step(torch.stack((action, action_signs * action[action_ids]))).obs
        image = found.image(obs)
        assert set(image) == {"policy", "critic", "detector"}
        for group, value in image.items():
            error = obs[group][1] - value[0]
            for term in env.layouts[group]:
                size = obs[group][1, term.place.slice].norm()
                assert error[term.place.slice].norm() < 0.02 * size + 0.003, f"{group}.{term.name}"
        contacts.append(env.state.foot_contact.clone())
    assert any((feet[0] != feet[1]).any() for feet in contacts), "never uneven: the test says less"


def test_h1_signs_are_the_published_ones() -> None:
    ids, signs = two(worlds.h1()).mirror_map(("policy",)).obs["policy"]
    assert signs[:12].tolist() == [1, -1, 1, -1, 1, -1, 1, -1, 1, 1, -1, -1]
    assert ids[:12].tolist() == list(range(12))
    knee, yaw = UNITREE_H1.joint_id("right_knee"), UNITREE_H1.joint_id("left_hip_yaw")
    assert ids[12 + knee] == 12 + UNITREE_H1.joint_id("left_knee") and signs[12 + knee] == 1
    assert ids[31 + yaw] == 31 + UNITREE_H1.joint_id("right_hip_yaw") and signs[31 + yaw] == -1


def test_go2_swaps_left_and_right_legs() -> None:
    env = two(worlds.go2())
    ids, signs = env.mirror_map(("critic",)).action
    hip, calf = UNITREE_GO2.joint_id("FL_hip_joint"), UNITREE_GO2.joint_id("RR_calf_joint")
    assert ids[hip] == UNITREE_GO2.joint_id("FR_hip_joint") and signs[hip] == -1
    assert ids[calf] == UNITREE_GO2.joint_id("RL_calf_joint") and signs[calf] == 1
    feet = env.obs_spec["critic"].place("foot_contact")
    found, start = env.mirror_map(("critic",)).obs["critic"][0][feet], feet.start
    assert [foot.name for foot in UNITREE_GO2.feet] == ["FL_foot", "FR_foot", "RL_foot", "RR_foot"]
    assert (found - start).tolist() == [1, 0, 3, 2]


def test_actions_in_their_own_order() -> None:
    """The rover's numbers: mast, vane, left wheel, right wheel. Only the vane, about z, changes its sign."""
    env = two(worlds.rover())
    ids, signs = env.mirror_map(("policy",)).action
    assert ids.tolist() == [0, 1, 3, 2]
    assert signs.tolist() == [1, -1, 1, 1]
    last = env.obs_spec["policy"].place("last_action")
    obs_ids, obs_signs = env.mirror_map(("policy",)).obs["policy"]
    assert (obs_ids[last] - last.start).tolist() == [0, 1, 3, 2] and torch.equal(obs_signs[last], signs)
    joints = env.obs_spec["policy"].place("joint_pos")
    assert (obs_ids[joints] - joints.start).tolist() == [1, 0, 2, 3]


def test_a_term_without_a_mirror_is_refused_only_where_it_is_asked_for(env: Env) -> None:
    env.reset(0)
    env.mirror_map(("policy", "apart.foot"))
    for group in ("odd", "apart.a"):
        with pytest.raises(KoboshiError, match="observation 'a' does not say how it mirrors; decorate"):
            env.mirror_map(("policy", group))
    with pytest.raises(
        KoboshiError, match="no vector of observations 'polcy'; did you mean 'policy'.* vectors: policy"
    ):
        env.mirror_map(("polcy",))


def test_a_robot_without_a_mirror_image_refuses() -> None:
    env = two(worlds.rover(worlds.CROOKED))
    env.reset(0)
    env.step(worlds.zeros(env))
    for groups in (("policy",), ()):
        with pytest.raises(
            KoboshiError, match="robot 'crooked_rover' says that its left and right are no mirror images"
        ):
            env.mirror_map(groups)


def test_a_robot_whose_sides_differ_is_refused_before_it_is_stepped(monkeypatch: pytest.MonkeyPatch) -> None:
    knee = '<joint name="left_knee" axis="0 1 0" range="-1 1" armature=".01"/>'
    robot = biped((knee, knee.replace(".01", ".02")))
    monkeypatch.setitem(robots._ROBOTS, robot.name, robot)
    with pytest.raises(KoboshiError, match="left_knee"):
        Env(worlds.cfg_for(robot, worlds.go2().actions, num_envs=1))
