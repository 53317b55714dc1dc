"""Layouts, delays, histories, noise: the observation manager."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from koboshi.envs import Env
from koboshi.envs.cfg import ObsGroup, ObsTerm, RewardTerm
from koboshi.envs.terms import observations, rewards
from koboshi.envs.terms.observations import mirrored
from koboshi.errors import KoboshiError
from koboshi.tasks.h1_walk import env_cfg

N, J = 4, 19


@mirrored("same")
def clock(env: Env) -> Tensor:
    """(N, 2) steps of the episode, and the environment's number: a value that says when and whose it is."""
    return torch.stack((env.episode_step.float(), torch.arange(env.num_envs).float()), dim=1)


def with_terms(episode_length_s: float = 20.0, **terms: ObsTerm) -> Env:
    """An environment that observes the given terms in the group `policy`."""
    cfg = env_cfg()
    groups = {"policy": ObsGroup(dict(terms)), "more": ObsGroup({"extra": ObsTerm(clock)}, base="policy")}
    return Env(replace(cfg, num_envs=N, observations=groups, episode_length_s=episode_length_s))


def run(env: Env, steps: int) -> list[dict[str, Tensor]]:
    """The observations of a reset and of so many steps."""
    return [env.reset(0), *(env.step(torch.zeros(N, J)).obs for _ in range(steps))]


@pytest.fixture(scope="module")
def walk() -> Env:
    return Env(replace(env_cfg(), num_envs=N))


def test_sizes_and_layouts(walk: Env) -> None:
    assert walk.obs_dims == {"policy": 69, "critic": 74, "detector": 88, "fault": 19}
    obs = walk.reset(0)
    for group, layout in walk.layouts.items():
        assert obs[group].shape == (N, walk.obs_dims[group])
        assert obs[group].dtype == torch.float32
        columns = [c for entry in layout for c in range(walk.obs_dims[group])[entry.slice]]
        assert columns == list(range(walk.obs_dims[group])), "each column once, in order"
    assert [(e.name, e.start, e.width) for e in walk.layouts["detector"]] == [
        ("base_lin_vel", 0, 3),
        ("base_ang_vel", 3, 3),
        ("projected_gravity", 6, 3),
        ("command", 9, 3),
        ("joint_pos", 12, 19),
        ("joint_vel", 31, 19),
        ("last_action", 50, 19),
        ("joint_torque", 69, 19),
    ]


def test_detector_begins_with_the_policys_very_numbers(walk: Env) -> None:
    walk.reset(0)
    walk.episode_step[1] = walk.cfg.max_episode_length - 2
    ended = 0
    for _ in range(4):
        step = walk.step(torch.zeros(N, J))
        ended += int(step.truncated.sum())
        for obs in (step.obs, step.final_obs):
            assert torch.equal(obs["detector"][:, :69], obs["policy"])
    assert ended == 1


def test_noise_is_bounded_and_never_in_the_critic(walk: Env) -> None:
    widths = torch.tensor([0.1] * 6 + [0.03] * 3 + [0] * 3 + [0.01] * 19 + [0.1] * 19 + [0] * 19)
    worst = torch.zeros(69)
    obs = walk.reset(0)
    for _ in range(30):
        clean = obs["critic"][:, :69]
        worst = torch.maximum(worst, (obs["policy"] - clean).abs().amax(0))
        truth = walk.state.joint_pos - walk.default_joint_pos
        torch.testing.assert_close(clean[:, 12:31], truth)
        obs = walk.step(torch.zeros(N, J)).obs
    assert (worst <= widths + 1e-5).all()
    assert (worst >= 0.8 * widths).all()


def test_noise_of_each_number() -> None:
    env = with_terms(time=ObsTerm(clock, noise=(0.5, 0.0)))
    off = torch.stack([obs["policy"][:, 0] - t for t, obs in enumerate(run(env, 30))])
    assert 0.4 < off.abs().max() <= 0.5
    assert run(env, 3)[-1]["policy"][:, 1].tolist() == [0, 1, 2, 3]
    with pytest.raises(KoboshiError, match="observation 'time' has 2 numbers, but 3 noise widths"):
        with_terms(time=ObsTerm(clock, noise=(0.5, 0.0, 0.0)))


@pytest.mark.parametrize("delay", [1, 3])
def test_fixed_delay_is_exact(delay: int) -> None:
    env = with_terms(time=ObsTerm(clock, delay=(delay, delay)), now=ObsTerm(clock))
    for t, obs in enumerate(run(env, 8)):
        assert obs["policy"][:, 0].tolist() == [max(t - delay, 0)] * N
        assert obs["policy"][:, 1].tolist() == list(range(N))
        assert obs["policy"][:, 2].tolist() == [t] * N
        assert torch.equal(obs["more"][:, :4], obs["policy"])


def test_random_delays_hold_for_an_episode() -> None:
    env = with_terms(episode_length_s=0.2, time=ObsTerm(clock, delay=(1, 3)))
    seen, lags = run(env, 200), set()
    for episode in range(20):
        ages = torch.stack([t - seen[episode * 10 + t]["policy"][:, 0] for t in range(10)])
        assert torch.equal(ages[:3].amax(0), ages[:3].amax(0).clamp(max=2)), "nothing from before the reset"
        assert (ages[3:] == ages[3]).all(), "one delay an episode"
        lags |= set(ages[3].int().tolist())
    assert lags == {1, 2, 3}


def test_history_is_oldest_first_and_refilled_at_a_reset() -> None:
    env = with_terms(episode_length_s=0.1, time=ObsTerm(clock, history=3, delay=(1, 1)))
    assert env.obs_dims["policy"] == 6
    assert env.layouts["policy"][0].history == 3
    for t, obs in enumerate(run(env, 12)):
        in_episode = t % 5
        times = [max(in_episode - lag - 1, 0) for lag in (2, 1, 0)]
        assert obs["policy"][0, 0::2].tolist() == times
        assert obs["policy"][3, 1::2].tolist() == [3, 3, 3]


def test_only_rows_that_end_are_refilled() -> None:
    env = with_terms(time=ObsTerm(clock, history=2))
    env.reset(0)
    for _ in range(3):
        env.step(torch.zeros(N, J))
    env.episode_step[2] = env.cfg.max_episode_length - 1
    step = env.step(torch.zeros(N, J))
    last = float(env.cfg.max_episode_length)
    assert step.obs["policy"][:, 0::2].tolist() == [[3, 4], [3, 4], [0, 0], [3, 4]]
    assert step.final_obs["policy"][2, 0::2].tolist() == [3, last]
    assert env.step(torch.zeros(N, J)).obs["policy"][:, 0::2].tolist() == [[4, 5], [4, 5], [0, 1], [4, 5]]


def test_scale_then_clip() -> None:
    env = with_terms(time=ObsTerm(clock, scale=2.0, clip=5.0))
    assert [obs["policy"][0, 0].item() for obs in run(env, 4)] == [0, 2, 4, 5, 5]
    assert run(env, 0)[0]["policy"][:, 1].tolist() == [0, 2, 4, 5]


def short(env: Env) -> Tensor:
    return torch.zeros(3)


@mirrored("same")
def bad_later(env: Env) -> Tensor:
    return torch.where(env.episode_step == 2, float("nan"), 0.0)[:, None]


def unmirrored(env: Env) -> Tensor:
    return torch.zeros(N, 2)


def grouped(**group: Any) -> Env:
    return Env(replace(env_cfg(), num_envs=N, observations={"policy": ObsGroup(**group)}))


def test_errors_name_the_term() -> None:
    with pytest.raises(KoboshiError, match=r"observation 'time' has shape \(3,\), not \(4, d\)"):
        with_terms(time=ObsTerm(short))
    with pytest.raises(KoboshiError, match="no earlier observation group 'polcy'"):
        grouped(terms={"a": ObsTerm(clock)}, base="polcy")
    with pytest.raises(KoboshiError, match="group 'policy' holds no term of its own"):
        grouped(terms={"a": None})
    with pytest.raises(KoboshiError, match="observation 'a' does not say how it mirrors"):
        grouped(terms={"a": ObsTerm(unmirrored)}).mirror("policy")
    env = with_terms(fine=ObsTerm(clock), wrong=ObsTerm(bad_later))
    env.reset(0)
    env.step(torch.zeros(N, J))
    with pytest.raises(KoboshiError, match="observation 'policy.wrong' is not finite"):
        env.step(torch.zeros(N, J))


def test_a_reward_that_is_not_finite_is_named() -> None:
    terms = {"fine": RewardTerm(rewards.alive, 1.0), "bad": RewardTerm(bad_later, 1.0)}
    env = Env(replace(env_cfg(), num_envs=N, rewards=terms))
    env.reset(0)
    env.step(torch.zeros(N, J))
    with pytest.raises(KoboshiError, match="reward 'bad' gave NaN"):
        env.step(torch.zeros(N, J))
    with pytest.raises(KoboshiError, match=r"reward 'short' has shape \(1,\), not \(4,\)"):
        env.rewards._value("short", RewardTerm(lambda env: torch.zeros(1), 1.0))


def test_torque_is_not_for_the_policy(walk: Env) -> None:
    assert "joint_torque" not in [e.name for e in walk.layouts["policy"]]
    assert observations.joint_torque(walk).shape == (N, J)
