"""Actors that carry something inside PPO: a task that asks for memory, stacks, masks, mirrors and exact resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_env import MIRROR, TURN, PointEnv, SpaceEnv, assert_resumes, assert_same, columns, random_rollout, small_cfg

from koboshi.algos.ppo import PPO, FrameStackCfg, GruCfg, MirrorMap, MlpCfg, NetworkCfg, Rollout, TrainerCfg
from koboshi.nets.distributions import Distribution
from koboshi.nets.state_tree import map_state
from koboshi.vec_env import Obs, ObsSpec, State, Step

LENGTH = 4


class RecallEnv(PointEnv):
    """Shows a cue of ±1 in the first of 4 steps and 0 after it; reward −(a − cue)² in each.

    With `traps`, three transitions in ten are not valid, and pay for going the wrong way.
    """

    obs_spec = {"policy": ObsSpec((1,))}

    def __init__(self, num_envs: int, traps: bool = False) -> None:
        super().__init__(num_envs)
        self.traps = traps

    def _start(self, ids: Tensor) -> None:
        super()._start(ids)
        self.x[ids] = self.x[ids].sign()

    def _obs(self) -> Obs:
        return {"policy": (self.x * (self.age == 0))[:, None]}

    def step(self, action: Tensor) -> Step:
        reward = -(action[:, 0] - self.x).square()
        trap = torch.rand(self.num_envs, generator=self.generator) < (0.3 if self.traps else 0.0)
        reward = torch.where(trap, -100 * self.x * action[:, 0].clamp(-2, 2), reward)
        self.age += 1
        final_obs, truncated = self._obs(), self.age == LENGTH
        self._start(truncated.nonzero().squeeze(1))
        return Step(self._obs(), reward, torch.zeros_like(truncated), truncated, final_obs, {"valid": ~trap})


def recall_cfg(actor: MlpCfg | FrameStackCfg | GruCfg) -> NetworkCfg:
    return NetworkCfg(actor, critic_hidden=(16,), init_log_std=-1.0)


def recall_return(actor: MlpCfg | FrameStackCfg | GruCfg, iterations: int) -> Tensor:
    """(2,) mean rewards of two members without noise, each after learning from transitions with traps."""
    cfg = small_cfg(
        network=recall_cfg(actor), trainer=TrainerCfg(rollout=16), epochs=4, gamma=0.5,
        learning_rate=3e-3, schedule="fixed", entropy_coef=0.0,
    )  # fmt: skip
    ppo = PPO(RecallEnv(128, traps=True), cfg, members=2, mirror=MirrorMap({"policy": TURN}, TURN))
    for _ in range(iterations):
        ppo.iterate()
    env, player = RecallEnv(128), ppo.policy.blocks()
    obs, state, rewards = env.reset(5), player.initial_state(128, env.device), []
    reset = torch.ones(128, dtype=torch.bool)
    for _ in range(2 * LENGTH):
        action, state = player.act(obs, state, reset)
        step = env.step(action)
        obs, reset = step.obs, step.truncated
        rewards.append(step.reward.unflatten(0, (2, -1)).mean(1))
    return torch.stack(rewards).mean(0)


def test_what_carries_solves_what_a_memoryless_policy_cannot() -> None:
    # Who forgets the cue does best with 0: three steps of four cost 1.
    assert recall_return(GruCfg(units=16, hidden=()), 60).min() > -0.15
    assert recall_return(FrameStackCfg(frames=LENGTH, hidden=(16,)), 40).min() > -0.15
    assert recall_return(MlpCfg(hidden=(16,)), 30).max() < -0.7


ACTORS = [FrameStackCfg(frames=3, hidden=(8,)), GruCfg(units=6, hidden=(8,))]


def made_up(ppo: PPO, envs: int, seed: int) -> Rollout:
    """A random rollout with a random state to begin with."""
    rollout = random_rollout(envs, seed)
    g = torch.Generator().manual_seed(seed)
    state = ppo.policy.initial_state(envs // ppo.members)
    rollout.state = map_state(lambda x: torch.randn(x.shape, generator=g), state)
    return rollout


@pytest.mark.parametrize("actor", ACTORS, ids=lambda cfg: cfg.kind)
@pytest.mark.parametrize("masked", [False, True])
def test_a_stack_of_two_equals_two_runs_of_one(actor: FrameStackCfg | GruCfg, masked: bool) -> None:
    cfg = small_cfg(network=NetworkCfg(actor, critic_hidden=(8,)))
    alone, stack = [PPO(SpaceEnv(6), cfg) for _ in range(2)], PPO(SpaceEnv(12), cfg, 2)
    for k, ppo in enumerate(alone):
        ppo.policy.set_member(0, stack.policy.member(k))
    for seed in (1, 2):
        rollout = made_up(stack, 12, seed)
        if masked:
            rollout.valid = torch.rand(rollout.valid.shape, generator=torch.Generator().manual_seed(seed)) > 0.3
        stack.update(rollout)
        for k, ppo in enumerate(alone):
            part = columns(rollout, torch.arange(6 * k, 6 * k + 6))
            part.state = map_state(lambda x, k=k: x[k : k + 1], rollout.state)
            ppo.update(part)
    for k, ppo in enumerate(alone):
        assert_same(stack.policy.member(k), ppo.policy.member(0), tolerance=1e-5)


@pytest.mark.parametrize("actor", ACTORS, ids=lambda cfg: cfg.kind)
def test_an_update_sees_the_outputs_that_acted(actor: FrameStackCfg | GruCfg) -> None:
    # In a second rollout, which begins in mid-episode, the ratio of the first step is 1 and its KL 0.
    cfg = small_cfg(network=NetworkCfg(actor, critic_hidden=(8,)), epochs=1, minibatches=1)
    ppo = PPO(PointEnv(6), cfg, members=2, mirror=MIRROR)
    ppo.iterate()
    rollout = ppo.collect()
    assert rollout.begins.any() and not rollout.begins[0].all()
    state, begins, means = rollout.state, rollout.begins.unflatten(1, (2, -1)), []
    for t, row in enumerate(rollout.obs["policy"]):
        mean, state = ppo.policy.act({"policy": row.unflatten(0, (2, -1))}, state, begins[t])
        means.append(mean)
    batch = ppo._prepare(rollout)
    torch.testing.assert_close(batch.old_output, torch.stack(means, dim=1).flatten(1, 2))
    assert ppo.update(rollout)["loss/kl"] == pytest.approx(0, abs=1e-9)


class HandedOver(PointEnv):
    """Somebody else takes over in every environment at age 5."""

    def step(self, action: Tensor) -> Step:
        step = super().step(action)
        return step._replace(extras={"anew": self.age == 5})


@pytest.mark.parametrize("actor", ACTORS, ids=lambda cfg: cfg.kind)
def test_memory_begins_anew_where_the_environment_says_so(actor: FrameStackCfg | GruCfg) -> None:
    cfg = small_cfg(
        network=NetworkCfg(actor, critic_hidden=(8,)), trainer=TrainerCfg(rollout=6), epochs=1, minibatches=1
    )
    ppo = PPO(HandedOver(6), cfg)
    told: list[Tensor] = []
    act = ppo.policy.distribution

    def listen(obs: Obs, state: State, reset: Tensor) -> tuple[Distribution, State]:
        told.append(reset[0].clone())
        return act(obs, state, reset)

    ppo.policy.distribution = listen
    rollout = ppo.collect()
    assert torch.equal(torch.stack(told), rollout.begins), "who acts is told what the update will assume"
    ended = rollout.terminated[:5] | rollout.truncated[:5]
    assert torch.equal(rollout.begins[1:5], ended[:4]) and (rollout.begins[5] | ended.any(0)).all()
    alone = (rollout.begins[5] & ~ended.any(0)).nonzero().squeeze(1)
    assert len(alone), "somebody got that far"
    obs = {"policy": rollout.obs["policy"][5].unsqueeze(0)}
    empty = ppo.policy.initial_state(6)
    mean, _ = ppo.policy.act(obs, empty, torch.ones(1, 6, dtype=torch.bool))
    torch.testing.assert_close(ppo._prepare(rollout).old_output[0].view(6, 6, -1)[5, alone], mean[0, alone])
    assert ppo.update(rollout)["loss/kl"] == pytest.approx(0, abs=1e-9), "the update forgets there too"


def test_the_mirror_image_carries_its_own_state() -> None:
    # Without biases a linear policy of three frames is odd, so it has no mirror loss if the image's frames are images.
    network = NetworkCfg(FrameStackCfg(frames=3, hidden=()), critic_hidden=(8,))
    ppo = PPO(PointEnv(6), small_cfg(network=network, epochs=1, minibatches=1), members=2, mirror=MIRROR)
    for _ in range(3):
        rollout = ppo.collect()
        ppo.parameters.value[:] += 0.1
        for name, parameter in ppo.policy.actor.named_parameters():
            if name.endswith("bias"):
                parameter.data.zero_()
        assert ppo.update(rollout)["loss/mirror"] == pytest.approx(0, abs=1e-9)
    assert not rollout.begins[0].all()


@pytest.mark.parametrize("actor", ACTORS, ids=lambda cfg: cfg.kind)
def test_kill_and_resume_gives_the_same_numbers(actor: FrameStackCfg | GruCfg, tmp_path: Path) -> None:
    def make() -> PPO:
        cfg = small_cfg(network=NetworkCfg(actor, critic_hidden=(8,)))
        return PPO(PointEnv(12), cfg, members=2, mirror=MIRROR)

    assert_resumes(make, tmp_path)
