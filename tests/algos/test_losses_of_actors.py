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
from koboshi.algos.ppo.ppo import OWN_GRAD_NORM
from koboshi.nets.actors import DreamWaqCfg, EstCfg, HimCfg, Mlp
from koboshi.nets.stack import StackedLinear
from koboshi.vec_env import Obs, ObsSpec, Place, Step

EST = EstCfg(truth="far", targets=("distance",), encoder_hidden=(16,), hidden=(8,))
HIM = HimCfg(truth="far", targets=("distance",), after=("distance",), latent=2, prototypes=4, hidden=(8,))

DREAM = DreamWaqCfg(truth="far", targets=("distance",), after=("distance",), latent=2, hidden=(8,))


class FarEnv(PointEnv):
    """A `PointEnv` of twice the stride with a group that only a loss reads, x + 10, and one that nobody does."""

    obs_spec = PointEnv.obs_spec | {"far": ObsSpec((1,)), "unread": ObsSpec((3,))}

    def _obs(self) -> Obs:
        return super()._obs() | {"far": self.x[:, None] + 10, "unread": torch.zeros(self.num_envs, 3)}

    def step(self, action: Tensor) -> Step:
        return super().step(2 * action)


class Foresight(Mlp):
    """Guesses the next `far` from what it sees."""

    next_groups = ("policy", "far")

    def __init__(self, members: int, specs: Mapping[str, ObsSpec], outputs: int) -> None:
        super().__init__(members, specs, (8,), outputs)
        self.guess = StackedLinear(members, self.features, 1)

    def auxiliary_loss(self, batch: Batch) -> Tensor:
        error = self.guess(self.encode(batch.obs)) - batch.next_obs["far"]
        return error.square().mean(2)


@dataclass(frozen=True)
class ForesightCfg:
    groups: tuple[str, ...] = ("policy",)
    loss_groups: tuple[str, ...] = ("far",)

    def build(self, members: int, specs: Mapping[str, ObsSpec], outputs: int) -> Foresight:
        return Foresight(members, {group: specs[group] for group in self.groups}, outputs)


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


class NamedFarEnv(FarEnv):
    """With a name for the number in `far`."""

    obs_spec = FarEnv.obs_spec | {"far": ObsSpec((1,), terms=(Place("distance", 0, 1),))}


def estimating(actor: EstCfg | HimCfg | DreamWaqCfg = EST, seed: int = 1, **settings: object) -> PPO:
    network = NetworkCfg(actor, critic_hidden=(8,))
    trainer = TrainerCfg(rollout=12, seed=seed)
    return PPO(NamedFarEnv(8), small_cfg(network=network, trainer=trainer, **settings), members=2)


def test_what_an_estimator_guesses_is_logged_in_the_units_of_the_term_and_learnt_at_its_own_rate() -> None:
    ppo = estimating(learning_rate=0.0, schedule="fixed")
    trunk = ppo.policy.actor.trunk.layers[0].weight.clone()
    found = [ppo.iterate()["estimate/distance"] for _ in range(150)]
    assert found[0] > 1 and found[-1] < 0.1 < ppo.policy.norm("far").deviation.min() / 3
    assert torch.equal(ppo.policy.actor.trunk.layers[0].weight, trunk)  # whose rate is 0
    x = torch.tensor([[[0.4]], [[0.4]]])
    guess = ppo.policy.estimates({"policy": x})["distance"]
    torch.testing.assert_close(guess, x + 10, rtol=0, atol=0.1)


def test_a_clip_of_its_own_norm() -> None:
    """One step of Adam is as long whatever the clip, but what it remembers is not."""
    ppo = estimating(epochs=1, minibatches=1)
    rollout = ppo.collect()
    ppo.policy.actor.estimator.layers[-1].bias.data += 1e4  # an error that dwarfs the policy's gradient
    ppo.update(rollout)
    own = ppo._own_optimizer
    assert own is not None
    torch.testing.assert_close(own.mean.norm(dim=1), torch.full((2,), 0.1 * OWN_GRAD_NORM), rtol=1e-3, atol=0)
    assert (ppo.optimizer.mean.norm(dim=1) <= 0.1 * ppo.cfg.max_grad_norm + 1e-6).all()


@pytest.mark.parametrize("actor", [EST, HIM, DREAM], ids=["est", "him", "dreamwaq"])
def test_a_killed_estimator_goes_on_with_the_same_numbers(actor: EstCfg | HimCfg | DreamWaqCfg) -> None:
    whole = estimating(actor)
    whole.iterate()
    state = {name: x.clone() for name, x in whole.state_dict().items()}
    again = estimating(actor, seed=2)
    again.load_state_dict(state)
    assert [whole.iterate() for _ in range(2)] == [again.iterate() for _ in range(2)]


def test_members_without_a_row_that_teaches_keep_their_estimator() -> None:
    ppo = estimating()
    rollout = ppo.collect()
    rollout.valid[:, 4:] = False  # member 1's environments
    before = ppo.parameters.value.clone()
    ppo.update(rollout)
    moved = (ppo.parameters.value != before).any(1)
    assert moved.tolist() == [True, False]
