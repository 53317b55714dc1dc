"""Advantages and returns, by hand."""

from __future__ import annotations

import pytest
import torch
from toy_env import PointEnv, small_cfg

from koboshi.algos.ppo import PPO, NetworkCfg, TrainerCfg
from koboshi.algos.ppo.rollout import Rollout, gae


def test_gae_by_hand() -> None:
    # γ = λ = 0.5. Columns: goes on; terminated after step 0; truncated after step 0 at a state worth 8.
    no, yes = False, True
    advantage = gae(
        reward=torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]),
        value=torch.tensor([[4.0, 4.0, 4.0], [6.0, 6.0, 6.0]]),
        next_value=torch.tensor([[6.0, 6.0, 8.0], [2.0, 2.0, 2.0]]),
        terminated=torch.tensor([[no, yes, no], [no, no, no]]),
        truncated=torch.tensor([[no, no, yes], [no, no, no]]),
        gamma=0.5,
        lam=0.5,
    )
    # Step 1: 2 + 0.5·2 − 6 = −3. Step 0: 1 + 3 − 4 + 0.25·(−3) = −0.75; 1 − 4 = −3; 1 + 4 − 4 = 1.
    assert advantage.tolist() == [[-0.75, -3.0, 1.0], [-3.0, -3.0, -3.0]]


def test_returns_bootstrap_from_the_true_last_observation_with_each_members_own_value() -> None:
    # One step, two members of three environments: goes on to 5, terminated, truncated at 3.
    cfg = small_cfg(gamma=0.5, network=NetworkCfg(hidden=()), trainer=TrainerCfg(rollout=1))
    ppo = PPO(PointEnv(6), cfg, members=2)
    layer = ppo.policy.critic.layers[0]
    layer.weight.data[:, 0, 0] = torch.tensor([1.0, 2.0])  # member k's value of x is (k + 1)·x
    start = torch.zeros(1, 6, 1)
    rollout = Rollout(
        start,
        start,
        start,
        torch.ones(1, 6),
        torch.tensor([[False, True, False] * 2]),
        torch.tensor([[False, False, True] * 2]),
        torch.ones(1, 6, dtype=torch.bool),
        last_critic_obs=torch.full((6, 1), 5.0),
        cut=[(0, torch.tensor([2, 5]), torch.full((2, 1), 3.0))],
    )
    target = ppo._prepare(rollout).target
    returns = ppo.policy.value_norm.denormalize(target.unsqueeze(2)).squeeze(2)
    assert returns.tolist() == [pytest.approx([3.5, 1.0, 2.5]), pytest.approx([6.0, 1.0, 4.0])]


def test_collecting_keeps_final_observations_of_what_was_cut() -> None:
    cfg = small_cfg(trainer=TrainerCfg(rollout=12))
    rollout = PPO(PointEnv(4), cfg).collect()
    [(t, ids, final)] = rollout.cut
    assert t == 9 and ids.tolist() == [0, 1, 2, 3]
    moved = rollout.policy_obs[9] + 0.3 * rollout.action[9]
    torch.testing.assert_close(final, moved)
    assert not torch.isclose(final, rollout.policy_obs[10]).any()
