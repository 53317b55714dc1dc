"""NaN from physics: the environment is put aside, the others never notice, and above a rate the run stops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from koboshi.envs import Env
from koboshi.errors import KoboshiError
from koboshi.tasks.h1_walk import env_cfg

N, J = 4, 19
OTHERS = [0, 2, 3]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MuJoCo writes its warnings to a file in the working directory."""
    monkeypatch.chdir(tmp_path)
    yield


@pytest.mark.parametrize("field", ["qvel", "qpos"])
def test_one_bad_environment(field: str) -> None:
    env, twin = (Env(replace(env_cfg(), num_envs=N)) for _ in range(2))
    env.reset(0), twin.reset(0)
    generator = torch.Generator().manual_seed(0)
    for t in range(12):
        action = 0.3 * torch.randn(N, J, generator=generator)
        if t == 3:
            getattr(env, field)[1, 9] = float("nan")
        step, healthy = env.step(action), twin.step(action)
        assert torch.equal(env.qpos[OTHERS], twin.qpos[OTHERS])
        assert torch.equal(env.qvel[OTHERS], twin.qvel[OTHERS])
        assert torch.equal(step.obs["critic"][OTHERS], healthy.obs["critic"][OTHERS])
        assert torch.equal(step.reward[OTHERS], healthy.reward[OTHERS])
        assert all(torch.isfinite(value).all() for obs in (step.obs, step.final_obs) for value in obs.values())
        assert step.terminated.tolist() == [False, t == 3, False, False]
        assert not step.truncated.any()
        if t == 3:
            assert step.extras["valid"].tolist() == [True, False, True, True]
            assert step.reward[1] == 0
            assert torch.equal(step.final_obs["policy"][OTHERS], healthy.final_obs["policy"][OTHERS])
            assert env.episode_step.tolist() == [4, 0, 4, 4]
        else:
            assert "valid" not in step.extras or step.extras["valid"].all()
    assert env.pop_log()["episode/nan"] == 1
    env.reset(0)
    assert env.nan_count == 0


def test_above_the_rate_it_raises_and_names_the_joint() -> None:
    env = Env(replace(env_cfg(), num_envs=N))
    env.reset(0)

    def go_wrong() -> None:
        env.state.joint_vel[2, 3] = -99.0
        env.qvel[2, 7] = float("inf")
        env.step(torch.zeros(N, J))

    for _ in range(10):
        go_wrong()
    message = r"NaN in 11 environment steps \(25.00%, at most 0.10%\); last in environment 2, .* 'left_knee' was"
    with pytest.raises(KoboshiError, match=message):
        go_wrong()


def test_below_the_rate_it_goes_on() -> None:
    env = Env(replace(env_cfg(), num_envs=N, max_nan_rate=0.3))
    env.reset(0)
    for _ in range(15):
        env.qvel[0, 0] = float("nan")
        env.step(torch.zeros(N, J))
    assert env.nan_count == 15


def test_a_nan_action_is_named() -> None:
    env = Env(replace(env_cfg(), num_envs=N))
    env.reset(0)
    action = torch.zeros(N, J)
    action[1, 4] = float("nan")
    with pytest.raises(KoboshiError, match="reward 'action_rate' gave NaN"):
        env.step(action)
