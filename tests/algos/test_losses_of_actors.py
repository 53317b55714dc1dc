"""A loss of the actor's own: it reads other groups and true next observations, and is added and logged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from toy_env import PointEnv, small_cfg

from koboshi.algos.ppo import PPO, NetworkCfg, TrainerCfg
from koboshi.algos.ppo.batch import Batch
from koboshi.nets.actors import Mlp
from koboshi.nets.stack import StackedLinear
from koboshi.vec_env import Obs, ObsSpec, Step


class FarEnv(PointEnv):
    """A `PointEnv` of twice the stride with a group that only a loss reads, x + 10, and one that nobody does."""

    obs_spec = PointEnv.obs_spec | {"far": ObsSpec((1,)), "unread": ObsSpec((3,))}

    def _obs(self) -> Obs:
        return super()._obs() | {"far": self.x[:, None] + 10, "unread": torch.zeros(self.num_envs, 3)}

    def step(self, action: Tensor) -> Step:
        return super().step(2 * action)


class Foresight(Mlp):
    """Guesses the next `far` from what it sees."""

    needs_next = True
    loss_groups = ("far",)

    def __init__(self, members: int, specs: Mapping[str, ObsSpec], outputs: int) -> None:
        super().__init__(members, specs, (8,), outputs)
        self.guess = StackedLinear(members, self.features, 1)

    def auxiliary_loss(self, batch: Batch) -> Tensor:
        error = self.guess(self.encode(batch.obs)) - batch.next_obs["far"]
        return error.square().mean((1, 2))


@dataclass(frozen=True)
class ForesightCfg:
    groups: tuple[str, ...] = ("policy",)

    def build(self, members: int, specs: Mapping[str, ObsSpec], outputs: int) -> Foresight:
        return Foresight(members, specs, outputs)


def learner(**settings: object) -> PPO:
    network = NetworkCfg(ForesightCfg(), critic_hidden=(8,))  # type: ignore[arg-type]
    return PPO(FarEnv(8), small_cfg(network=network, trainer=TrainerCfg(rollout=12), **settings), members=2)


def test_true_next_observations_of_all_ends() -> None:
    ppo = learner()
    ppo.policy.log_std.data += 1  # large moves, so that some fall
    rollout = ppo.collect()
    moved = rollout.obs["policy"] + 0.6 * rollout.action
    assert rollout.terminated.any() and rollout.truncated.any()
    torch.testing.assert_close(rollout.next_obs["policy"], moved)
    torch.testing.assert_close(rollout.next_obs["far"], moved + 10)
    assert set(rollout.next_obs) == {"policy", "far"} and set(rollout.obs) == {"policy", "critic", "far"}


def test_it_is_added_and_falls() -> None:
    ppo = learner(learning_rate=0.01, schedule="fixed")
    found = [ppo.iterate()["loss/auxiliary"] for _ in range(30)]
    assert found[0] > 0.5
    assert found[-1] < found[0] / 4


def test_without_one_nothing_is_kept_for_it() -> None:
    ppo = PPO(FarEnv(8), small_cfg())
    rollout = ppo.collect()
    assert rollout.next_obs is None and set(rollout.obs) == {"policy", "critic"}
    assert ppo.update(rollout)["loss/auxiliary"] == pytest.approx(0, abs=0)
