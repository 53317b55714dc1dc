"""Our environments as other libraries take them: the same numbers, ends told as they tell them; their PPO learns."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from toy_env import PointEnv

from koboshi.adapters.from_gymnasium import GymnasiumVecEnv
from koboshi.adapters.log import EVERY
from koboshi.adapters.spaces import observation_space
from koboshi.adapters.to_gymnasium import KoboshiVectorEnv
from koboshi.adapters.to_skrl import SkrlEnv
from koboshi.errors import KoboshiError
from koboshi.vec_env import ObsSpec

N = 3


def cartpoles(limit: int = 12) -> SyncVectorEnv:
    makers = [lambda: gym.make("CartPole-v1", max_episode_steps=limit)] * N
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)


def test_there_and_back_is_gymnasium_itself() -> None:
    """CartPole as ours and as Gymnasium's again beside CartPole: observations, rewards, ends, last observations."""
    plain, ours = cartpoles(), KoboshiVectorEnv(GymnasiumVecEnv(cartpoles()))
    assert ours.single_observation_space.shape == (4,) and ours.action_space == plain.action_space
    first, _ = plain.reset(seed=5)
    np.testing.assert_allclose(ours.reset(seed=5)[0], first, rtol=1e-6)
    generator, ended, cut = np.random.default_rng(0), 0, 0
    for _ in range(60):
        action = generator.integers(2, size=N)
        theirs, mine = plain.step(action), ours.step(action)
        for a, b in zip(theirs[:4], mine[:4], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        done = theirs[2] | theirs[3]
        assert ("final_obs" in mine[4]) == bool(done.any())
        if done.any():
            assert mine[4]["_final_obs"].tolist() == done.tolist()
            last = np.stack(theirs[4]["final_obs"][done])
            np.testing.assert_allclose(mine[4]["final_obs"][done], last, rtol=1e-5, atol=1e-6)
        ended, cut = ended + int(theirs[2].sum()), cut + int(theirs[3].sum())
    assert ended and cut


def test_several_groups_are_a_dict() -> None:
    env = KoboshiVectorEnv(PointEnv(4), groups=("policy", "critic"))
    obs, _ = env.reset(seed=1)
    assert set(obs) == {"policy", "critic"} and env.single_observation_space["critic"].shape == (1,)
    assert env.observation_space.contains(obs)
    again, _ = env.reset(seed=1)
    np.testing.assert_array_equal(obs["policy"], again["policy"])


def test_spaces() -> None:
    spec = {"eye": ObsSpec((3, 2, 2), torch.uint8), "policy": ObsSpec((5,))}
    assert observation_space(spec, "eye") == gym.spaces.Box(0, 255, (3, 2, 2), np.uint8)
    with pytest.raises(KoboshiError, match="no observation group 'polic'; did you mean 'policy'"):
        observation_space(spec, "polic")


def test_what_skrl_is_told() -> None:
    mine, twin = SkrlEnv(PointEnv(4)), PointEnv(4)
    obs, _ = mine.reset()
    first = twin.reset(0)
    assert torch.equal(obs, first["policy"]) and torch.equal(mine.state(), first["critic"])
    assert mine.reset()[0] is obs  # episodes go on
    logged = []
    for _ in range(2 * EVERY):
        action = 0.5 * torch.randn(4, 1)
        obs, reward, terminated, truncated, info = mine.step(action)
        step = twin.step(action)
        assert torch.equal(obs, step.obs["policy"]) and torch.equal(mine.state(), step.obs["critic"])
        assert reward.shape == terminated.shape == truncated.shape == (4, 1)
        assert torch.equal(reward[:, 0], step.reward) and torch.equal(truncated[:, 0], step.truncated)
        logged.append("log" in info)
    assert logged.count(True) == 2 and logged[EVERY - 1]
    assert SkrlEnv(PointEnv(2), critic=None).state_space is None


def test_what_rsl_rl_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PointEnv, "pop_log", lambda self: {"fell": 0.25})
    pytest.importorskip("tensordict")
    from koboshi.adapters.to_rsl_rl import RslVecEnv

    mine, twin = RslVecEnv(PointEnv(4), ("policy", "critic"), 20, seed=3), PointEnv(4)
    first = twin.reset(3)
    assert torch.equal(mine.get_observations()["critic"], first["critic"])
    told = []
    for _ in range(2 * EVERY):
        action = 0.5 * torch.randn(4, 1)
        obs, reward, done, extras = mine.step(action)
        step = twin.step(action)
        assert torch.equal(obs["policy"], step.obs["policy"]) and torch.equal(reward, step.reward)
        assert torch.equal(done, step.terminated | step.truncated)
        assert torch.equal(extras["time_outs"], step.truncated)
        told.append(extras.get("log"))
    assert [t for t, log in enumerate(told) if log is not None] == [EVERY - 1, 2 * EVERY - 1]
    assert told[-1] == {"fell": 0.25}


def test_skrls_ppo_learns_in_our_environment() -> None:
    """The point that is to stay at 0: what it earns grows, and it goes there."""
    pytest.importorskip("skrl")
    from koboshi.bench import skrl_ppo

    iterate, act = skrl_ppo.learner(SkrlEnv(PointEnv(64)), hidden=(16,), rollout=16, init_log_std=-0.5)
    earned = [iterate() for _ in range(20)]
    assert np.mean(earned[-3:]) > np.mean(earned[:3]) + 0.1, earned
    left, right = act(torch.tensor([[-0.8], [0.8]]))[:, 0].tolist()
    assert left > 0.2 and right < -0.2
