"""The mirror map of a whole environment: mirrored state and actions give mirrored observations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from koboshi.envs import Env
from koboshi.envs.cfg import ObsGroup
from koboshi.robots import UNITREE_H1
from koboshi.tasks.h1_walk import env_cfg

J = 19
GROUPS = ("policy", "critic", "detector", "fault", "action")


@pytest.fixture(scope="module")
def env() -> Env:
    cfg = env_cfg()
    terms = dict(cfg.observations["policy"].terms)
    terms["joint_pos"] = replace(terms["joint_pos"], history=3)
    groups = cfg.observations | {"history": ObsGroup(terms)}
    return Env(replace(cfg, num_envs=2, observations={n: replace(g, noise=False) for n, g in groups.items()}))


@pytest.mark.parametrize("group", [*GROUPS, "history"])
def test_involution(env: Env, group: str) -> None:
    ids, signs = env.mirror(group)
    width = J if group == "action" else env.obs_dims[group]
    assert ids.shape == signs.shape == (width,)
    assert torch.equal(ids[ids], torch.arange(width))
    assert torch.equal(signs * signs[ids], torch.ones(width))
    assert (signs == 1).all() == (group == "fault")


def test_h1_signs_are_the_published_ones(env: Env) -> None:
    ids, signs = env.mirror("policy")
    assert signs[:12].tolist() == [1, -1, 1, -1, 1, -1, 1, -1, 1, 1, -1, -1]
    assert ids[:12].tolist() == list(range(12))
    knee, yaw = UNITREE_H1.joint_id("right_knee"), UNITREE_H1.joint_id("left_hip_yaw")
    assert ids[12 + knee] == 12 + UNITREE_H1.joint_id("left_knee") and signs[12 + knee] == 1
    assert ids[31 + yaw] == 31 + UNITREE_H1.joint_id("right_hip_yaw") and signs[31 + yaw] == -1


def test_mirrored_robots_see_mirrored_worlds(env: Env) -> None:
    """Row 1 is row 0 in the mirror. The published inertias are not perfectly symmetric, hence the tolerances."""
    env.reset(0)
    ids, signs = env.mirror("action")
    flip = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    env.qpos[1, :3] = flip * env.qpos[0, :3]
    env.qpos[1, 3:7] = torch.tensor([1.0, -1.0, 1.0, -1.0]) * env.qpos[0, 3:7]
    env.qpos[1, 7:] = signs * env.qpos[0, 7:][ids]
    env.qvel[1, :3], env.qvel[1, 3:6] = flip * env.qvel[0, :3], -flip * env.qvel[0, 3:6]
    env.qvel[1, 6:] = signs * env.qvel[0, 6:][ids]
    env.command.value[1] = torch.tensor([1.0, -1.0, -1.0]) * env.command.value[0]
    env.state.refresh()
    generator, contacts = torch.Generator().manual_seed(0), []
    for _ in range(5):
        action = 0.5 * torch.randn(J, generator=generator)
        obs = env.step(torch.stack((action, signs * action[ids]))).obs
        for group in ("policy", "critic", "detector"):
            group_ids, group_signs = env.mirror(group)
            error = obs[group][1] - group_signs * obs[group][0][group_ids]
            for term in env.layouts[group]:
                size = obs[group][1, term.slice].norm()
                assert error[term.slice].norm() < 0.02 * size + 0.002, f"{group}.{term.name}"
        contacts.append(obs["critic"][:, 70:72])
    assert any((feet[0] != feet[1]).any() for feet in contacts), "never on one foot: the test says less"
