"""mjlab's interface as ours, held against a stand-in that keeps its documented contract (1.6, `auto_reset=False`)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from koboshi.adapters.from_mjlab import MjlabVecEnv
from koboshi.errors import KoboshiError
from koboshi.vec_env import ObsSpec, VecEnv


class Counter:
    """Environment i counts its steps from 0; it falls at 3 + i, and time is over at 5. It demands to be reset."""

    device, num_envs = "cpu", 4

    def __init__(self, auto_reset: bool = False, lag: int = 0) -> None:
        term = SimpleNamespace(history_length=0, delay_max_lag=lag)
        group = SimpleNamespace(terms={"count": term}, history_length=None)
        self.cfg = SimpleNamespace(auto_reset=auto_reset, observations={"actor": group})
        self.action_manager = SimpleNamespace(total_action_dim=2)
        self.count, self.pending = torch.zeros(4), torch.zeros(4, dtype=torch.bool)

    def _obs(self) -> dict[str, Any]:
        return {"actor": self.count[:, None].clone(), "parts": {"count": self.count[:, None].clone()}}

    def reset(self, *, seed: int | None = None, env_ids: Tensor | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        ids = torch.arange(4) if env_ids is None else env_ids
        self.count[ids], self.pending[ids] = 0.0, False
        return self._obs(), {"log": {"reward/a": float(len(ids))}}

    def step(self, action: Tensor) -> tuple[dict[str, Any], Tensor, Tensor, Tensor, dict[str, Any]]:
        assert not self.pending.any(), "must be reset before it is stepped"
        self.count += 1
        terminated, truncated = self.count >= 3 + torch.arange(4), self.count >= 5
        self.pending = terminated | truncated
        return self._obs(), action.sum(1), terminated, truncated, {"log": {}}


def test_ends_and_true_last_observations() -> None:
    env = MjlabVecEnv(Counter())
    assert isinstance(env, VecEnv) and env.action_space.dim == 2
    assert env.obs_spec == {"actor": ObsSpec((1,)), "parts.count": ObsSpec((1,))}
    assert env.reset(1)["actor"][:, 0].tolist() == [0.0] * 4
    counts, lasts, falls, cuts = [], [], [], []
    for _ in range(5):
        step = env.step(torch.ones(4, 2))
        counts.append(step.obs["actor"][:, 0].tolist())
        lasts.append(step.final_obs["parts.count"][:, 0].tolist())
        falls.append(step.terminated.tolist())
        cuts.append(step.truncated.tolist())
    assert counts == [[1, 1, 1, 1], [2, 2, 2, 2], [0, 3, 3, 3], [1, 0, 4, 4], [2, 1, 0, 0]]
    assert lasts[2:] == [[3, 3, 3, 3], [1, 4, 4, 4], [2, 1, 5, 5]]
    assert falls[2] == [True, False, False, False] and falls[4] == [False, False, True, False]
    assert cuts[4] == [False, False, False, True]  # who fell was not cut off
    assert step.reward.tolist() == [2.0] * 4
    assert env.pop_log() == {"reward/a": pytest.approx((1 + 1 + 2) / 3)} and env.pop_log() == {}
    with pytest.raises(KoboshiError, match="cannot be saved"):
        env.state_dict()


def test_an_environment_that_resets_itself_is_refused() -> None:
    with pytest.raises(KoboshiError, match="set auto_reset=False"):
        MjlabVecEnv(Counter(auto_reset=True))
    with pytest.raises(KoboshiError, match="'actor.count' has a history or a delay"):
        MjlabVecEnv(Counter(lag=2))
