"""NaN from physics: the environment is put aside, the others never notice, and above a rate the run stops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import worlds

from koboshi.envs import Env
from koboshi.envs.cfg import EventTerm, RewardTerm
from koboshi.envs.terms import events, rewards
from koboshi.errors import KoboshiError

N, J = 4, 19
OTHERS = [0, 2, 3]
PUSH = EventTerm(events.push, mode="interval", interval_s=(0.02, 0.02))


def env_of(**changes: Any) -> Env:
    return Env(worlds.h1(num_envs=N, **changes))


@pytest.mark.parametrize(("field", "value"), [("qvel", "nan"), ("qpos", "nan"), ("qvel", "inf"), ("qpos", "1e7")])
@pytest.mark.parametrize("pushed", [False, True])
def test_one_bad_environment(field: str, value: str, pushed: bool) -> None:
    changes = {"events": worlds.h1().events | {"push": PUSH}} if pushed else {}
    env, twin = env_of(**changes), env_of(**changes)
    env.reset(0), twin.reset(0)
    generator = torch.Generator().manual_seed(0)
    for t in range(8):
        action = 0.3 * torch.randn(N, J, generator=generator)
        if t == 3:
            getattr(env, field)[1, 9] = float(value)
        step, healthy = env.step(action), twin.step(action)
        assert torch.equal(env.qpos[OTHERS], twin.qpos[OTHERS])
        assert torch.equal(env.qvel[OTHERS], twin.qvel[OTHERS])
        assert torch.equal(step.obs["critic"][OTHERS], healthy.obs["critic"][OTHERS])
        assert torch.equal(step.reward[OTHERS], healthy.reward[OTHERS])
        assert all(torch.isfinite(value).all() for obs in (step.obs, step.final_obs) for value in obs.values())
        assert step.terminated.tolist() == [False, t == 3, False, False]
        assert not step.truncated.any()
        assert step.extras["valid"].tolist() == [True, t != 3, True, True]
        if t == 3:
            assert step.reward[1] == 0
            assert torch.equal(step.final_obs["policy"][OTHERS], healthy.final_obs["policy"][OTHERS])
            assert env.episode_step.tolist() == [4, 0, 4, 4]
            # The twin drew nothing for a reset; from here on both shall draw alike.
            twin.generator.set_state(env.generator.get_state())
            resume(twin, env)
    assert torch.isfinite(env.qpos).all() and torch.isfinite(env.qvel).all()
    assert env.pop_log()["episode/nan"] == 1
    env.reset(0)
    assert env.nan_count == 0


def resume(twin: Env, env: Env) -> None:
    """Buffers and clocks that the reset of one row drew."""
    twin.events.load_state_dict(env.events.state_dict())


def test_nothing_bad_reaches_the_reward_sums() -> None:
    """A reward term that is NaN in the failed row earns nothing there: neither the step nor the sum of the episode."""

    def raw_speed(env: Env) -> torch.Tensor:
        return env.qvel[:, 0].float()  # past the state, which hides bad rows

    terms = {"speed": RewardTerm(raw_speed, 1.0), "alive": RewardTerm(rewards.alive, 1.0)}
    env = env_of(rewards=terms)
    env.reset(0)
    env.step(torch.zeros(N, J))
    sums = env.rewards.sums[:, 1].clone()
    env.pop_log()
    env.qvel[1, 0] = float("nan")
    step = env.step(torch.zeros(N, J))
    assert step.reward[1] == 0 and torch.isfinite(step.reward).all()
    log = env.pop_log()
    assert log["reward/speed"] == pytest.approx(sums[0].item() / 20, rel=1e-5)
    assert log["reward/alive"] == pytest.approx(0.02 / 20, rel=1e-5), "of the one good step"
    assert torch.isfinite(env.rewards.sums).all()


def test_above_the_rate_it_raises() -> None:
    env = env_of()
    env.reset(0)

    def go_wrong() -> None:
        env.qvel[2, 7] = float("inf")
        env.step(torch.zeros(N, J))

    for _ in range(10):
        go_wrong()
    message = r"NaN in 11 environment steps \(25.00%, at most 0.10%\); last in environment 2"
    with pytest.raises(KoboshiError, match=message):
        go_wrong()
    with pytest.raises(KoboshiError, match=r"NaN in 11 environment steps \(25.00%, at most 0.10%\)$"):
        env.pop_log()


def test_below_the_rate_it_goes_on() -> None:
    env = env_of(max_nan_rate=0.3)
    env.reset(0)
    for _ in range(15):
        env.qvel[0, 0] = float("nan")
        env.step(torch.zeros(N, J))
    assert env.nan_count == 15
    assert env.pop_log()["episode/nan"] == 15
    other = env_of(max_nan_rate=0.3)
    other.load_state_dict(env.state_dict())
    assert other.nan_count == 15 and other.total_steps == 15


def test_a_nan_action_is_named() -> None:
    env = env_of(
        rewards={"fine": RewardTerm(rewards.alive, 1.0), "rate": RewardTerm(rewards.action_rate, -1.0, shape="l2")}
    )
    env.reset(0)
    action = torch.zeros(N, J)
    action[1, 4] = float("nan")
    with pytest.raises(KoboshiError, match="'rate' is not finite|'policy.last_action' is not finite"):
        env.step(action)


@pytest.mark.parametrize(("column", "value"), [(0, "nan"), (0, "2e6"), (2, "-inf")])
def test_a_failure_ends_the_episode_though_no_term_would(column: int, value: str) -> None:
    """A robot 2000 km away is absurd too, though every number is finite."""
    env = env_of(terminations={})
    env.reset(0)
    env.qpos[3, column] = float(value)
    assert env.state.bad_rows().tolist() == [False, False, False, True]
    step = env.step(torch.zeros(N, J))
    assert step.terminated.tolist() == [False, False, False, True]
    assert step.extras["valid"].tolist() == [True, True, True, False]
    assert not env.state.bad_rows().any()
