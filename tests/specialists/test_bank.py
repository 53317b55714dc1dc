"""Each row is answered by the member that its joint asks for, through the mirror where it must be."""

from __future__ import annotations

import pytest
import torch

from koboshi.algos.ppo import ActorCritic, MirrorMap, NetworkCfg
from koboshi.errors import KoboshiError
from koboshi.robots import UNITREE_H1
from koboshi.specialists.assignment import assign
from koboshi.specialists.bank import SpecialistBank
from koboshi.vec_env import ActionSpace


def alone(policy: ActorCritic, k: int) -> ActorCritic:
    """Member k as an ordinary policy."""
    single = ActorCritic(1, 69, 74, ActionSpace(19), NetworkCfg((8,)))
    single.load_state_dict(policy.member(k))
    return single


def test_routes_rows(make_policy, mirror: MirrorMap) -> None:
    assignment = assign(UNITREE_H1, "mirrored_pair")
    bank = SpecialistBank(make_policy(9), assignment, UNITREE_H1, mirror)
    obs, healthy = torch.randn(60, 69), torch.randn(60, 19)
    joint = torch.randint(-1, 19, (60,))
    joint[:3] = torch.tensor([-1, UNITREE_H1.joint_id("left_ankle"), UNITREE_H1.joint_id("right_knee")])
    action = bank.act(obs, joint, healthy)
    kept = healthy.clone()
    for row, j in enumerate(joint.tolist()):
        name = UNITREE_H1.joint_names[j] if j >= 0 else None
        k = next((k for k, m in enumerate(assignment.members) if name in m.joints), None)
        if k is None:
            assert torch.equal(action[row], healthy[row])
            continue
        if name in assignment.members[k].mirrored:
            answer = alone(bank.policy, k).act((mirror.obs_signs * obs[row, mirror.obs_ids])[None, None])[0, 0]
            answer = mirror.action_signs * answer[mirror.action_ids]
        else:
            answer = alone(bank.policy, k).act(obs[row][None, None])[0, 0]
        torch.testing.assert_close(action[row], answer, atol=1e-5, rtol=1e-5)
    assert torch.equal(healthy, kept), "what was given stays as it was"


def test_a_mirrored_robot_gets_the_mirrored_action(make_policy, mirror: MirrorMap) -> None:
    bank = SpecialistBank(make_policy(9), assign(UNITREE_H1, "mirrored_pair"), UNITREE_H1, mirror)
    obs = torch.randn(8, 69)
    left, right = (torch.full((8,), UNITREE_H1.joint_id(f"{side}_knee")) for side in ("left", "right"))
    one = bank.act(obs, left, torch.zeros(8, 19))
    other = bank.act(mirror.obs_signs * obs[:, mirror.obs_ids], right, torch.zeros(8, 19))
    torch.testing.assert_close(other, mirror.action_signs * one[:, mirror.action_ids])


def test_nobody_is_asked(make_policy, mirror: MirrorMap) -> None:
    bank = SpecialistBank(make_policy(17), assign(UNITREE_H1, "joint"), UNITREE_H1, mirror)
    healthy = torch.randn(4, 19)
    assert bank.act(torch.randn(4, 69), torch.full((4,), -1), healthy) is healthy


def test_a_bank_of_another_size(make_policy, mirror: MirrorMap) -> None:
    with pytest.raises(KoboshiError, match="a bank of 4 policies cannot serve 9 members"):
        SpecialistBank(make_policy(4), assign(UNITREE_H1, "mirrored_pair"), UNITREE_H1, mirror)
