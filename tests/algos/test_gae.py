"""Advantages and returns, by hand."""

from __future__ import annotations

import pytest
import torch
from toy_env import PointEnv, network, small_cfg

from koboshi import vec_env
from koboshi.algos.ppo import PPO, Rollout, TrainerCfg
from koboshi.algos.ppo.rollout import gae


def test_gae_by_hand() -> None:
    # γ = λ = 0.5. Columns: goes on; terminated after step 0; truncated after step 0 at a state worth 8; another acts in
    # step 1.
    no, yes = False, True
    advantage = gae(
        reward=torch.tensor([[1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]]),
        value=torch.tensor([[4.0, 4.0, 4.0, 4.0], [6.0, 6.0, 6.0, 6.0]]),
        next_value=torch.tensor([[6.0, 6.0, 8.0, 6.0], [2.0, 2.0, 2.0, 2.0]]),
        terminated=torch.tensor([[no, yes, no, no], [no, no, no, no]]),
        truncated=torch.tensor([[no, no, yes, no], [no, no, no, no]]),
        valid=torch.tensor([[yes, yes, yes, yes], [yes, yes, yes, no]]),
        gamma=0.5,
        lam=0.5,
    )
    # Step 1: 2 + 0.5·2 − 6 = −3. Step 0: 1 + 3 − 4 + 0.25·(−3) = −0.75; 1 − 4 = −3; 1 + 4 − 4 = 1; 1 + 3 − 4 = 0.
    assert advantage.tolist() == [[-0.75, -3.0, 1.0, 0.0], [-3.0, -3.0, -3.0, -3.0]]


def linear_ppo(envs: int, steps: int, **settings: object) -> PPO:
    """Two members; the value of member k at x is (k + 1)·x."""
    ppo = PPO(PointEnv(envs), small_cfg(network=network(), trainer=TrainerCfg(rollout=steps), **settings), members=2)
    ppo.policy.critic.network.layers[0].weight.data[:, 0, 0] = torch.tensor([1.0, 2.0])
    return ppo


def test_returns_bootstrap_from_the_true_last_observation() -> None:
    # One step, two members of three environments: goes on to 5, terminated, truncated at a state worth 3.
    start = torch.zeros(1, 6, 1)
    rollout = Rollout(
        {"policy": start, "critic": start},
        start,
        torch.ones(1, 6),
        torch.tensor([[False, True, False] * 2]),
        torch.tensor([[False, False, True] * 2]),
        torch.ones(1, 6, dtype=torch.bool),
        torch.zeros(1, 6, dtype=torch.bool),
        last_obs={"critic": torch.full((6, 1), 5.0)},
        final_value=torch.tensor([[99.0, 99.0, 3.0] * 2]),
    )
    ppo = linear_ppo(6, 1, gamma=0.5)
    target = ppo._prepare(rollout).target
    returns = ppo.policy.value_norm.denormalize(target.unsqueeze(2)).squeeze(2)
    assert returns.tolist() == [pytest.approx([3.5, 1.0, 2.5]), pytest.approx([6.0, 1.0, 2.5])]


class UnevenEnv(PointEnv):
    """A `PointEnv` whose episodes begin at different ages, so that few end at a time."""

    def reset(self, seed: int) -> vec_env.Obs:
        obs = super().reset(seed)
        self.age = torch.arange(self.num_envs) % 7
        return obs


@pytest.mark.parametrize("on_cpu", [True, False])
def test_collecting_keeps_each_members_own_value_of_what_was_cut(on_cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where reading from the device would wait, nothing is asked, and the numbers are the same.
    monkeypatch.setattr(vec_env, "reading_is_free", lambda tensor: on_cpu)
    ppo = linear_ppo(10, 12)
    ppo.env = UnevenEnv(10)
    rollout = ppo.collect()
    moved = (rollout.obs["policy"] + 0.3 * rollout.action).squeeze(2)
    expected = moved * torch.tensor([1.0] * 5 + [2.0] * 5)
    cut = rollout.truncated
    assert cut.any(1).sum() > 5 and not cut[0].any()
    torch.testing.assert_close(rollout.final_value[cut], expected[cut])
    # The next episode begins elsewhere.
    rows, envs = cut[:-1].nonzero(as_tuple=True)
    assert not torch.isclose(rollout.obs["policy"][rows + 1, envs, 0], moved[rows, envs]).any()


class ReusingEnv(PointEnv):
    """Writes every observation into the same tensors."""

    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs)
        self.shown = {part: torch.zeros(num_envs, 1) for part in ("now", "final")}

    def _show(self, obs: vec_env.Obs, part: str) -> vec_env.Obs:
        return {group: self.shown[part].copy_(obs["policy"]) for group in obs}

    def reset(self, seed: int) -> vec_env.Obs:
        return self._show(super().reset(seed), "now")

    def step(self, action: torch.Tensor) -> vec_env.Step:
        step = super().step(action)
        return step._replace(obs=self._show(step.obs, "now"), final_obs=self._show(step.final_obs, "final"))


def test_a_simulator_may_reuse_its_tensors() -> None:
    cfg = small_cfg(trainer=TrainerCfg(rollout=12))
    for first, second in zip(*(_two_rollouts(PPO(env(8), cfg)) for env in (PointEnv, ReusingEnv)), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def _two_rollouts(ppo: PPO) -> list[torch.Tensor]:
    found = []
    for _ in range(2):
        rollout = ppo.collect()
        found += [x.clone() for x in (rollout.obs["policy"], rollout.action, rollout.last_obs["critic"])]
        ppo.env.step(torch.zeros(8, 1))  # somebody else plays in between
    return found
