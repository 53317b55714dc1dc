"""A student that must match its teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_env import PointEnv, assert_resumes

from koboshi.algos.distillation import Distillation, DistillationCfg
from koboshi.algos.learner import AgentCfg, Learner, TrainerCfg
from koboshi.algos.ppo import GruCfg, MlpCfg, NetworkCfg, PPOCfg
from koboshi.config import override, to_dict
from koboshi.errors import KoboshiError
from koboshi.vec_env import Obs, State, VecEnv


class Leaning:
    """Goes to the middle, further left with every step of an episode; so it carries a clock."""

    def __init__(self, lean: float) -> None:
        self.lean = lean

    def initial_state(self, num_envs: int, device: torch.device) -> State:
        return torch.zeros(num_envs, device=device)

    def act(self, obs: Obs, state: State, reset: Tensor) -> tuple[Tensor, State]:
        clock = torch.where(reset, 0.0, state + 1)
        return -0.5 * obs["critic"] - self.lean * clock[:, None], clock


def load(path: str, env: VecEnv) -> Leaning:
    return Leaning(float(path))


def cfg(actor: MlpCfg | GruCfg, teacher: str) -> DistillationCfg:
    network = NetworkCfg(actor, critic_hidden=())
    return DistillationCfg(teacher, load, trainer=TrainerCfg(rollout=10), network=network, epochs=4, learning_rate=3e-3)


def error(learner: Learner, teacher: Leaning) -> float:
    """Mean square difference of actions where the student leads."""
    env, student = PointEnv(32), learner.policy.single()
    obs, reset, errors = env.reset(9), torch.ones(32, dtype=torch.bool), []
    states = [student.initial_state(32, env.device), teacher.initial_state(32, env.device)]
    for _ in range(20):
        mine, states[0] = student.act(obs, states[0], reset)
        right, states[1] = teacher.act(obs, states[1], reset)
        errors.append((mine - right).square().mean())
        step = env.step(mine)
        obs, reset = step.obs, step.terminated | step.truncated
    return torch.stack(errors).mean().item()


@pytest.mark.parametrize(("actor", "teacher"), [(MlpCfg(hidden=(16,)), "0"), (GruCfg(units=16, hidden=()), "0.05")])
def test_the_student_matches_the_teacher(actor: MlpCfg | GruCfg, teacher: str) -> None:
    agent: AgentCfg = cfg(actor, teacher)
    learner = agent.build(PointEnv(64), None)
    before = error(learner, load(teacher, learner.env))  # type: ignore[attr-defined]
    for _ in range(40):
        log = learner.iterate()
    assert learner.iteration == 40 and log["loss/imitation"] < 1e-2
    assert error(learner, load(teacher, learner.env)) < min(2e-3, before / 20)  # type: ignore[attr-defined]


def test_a_clock_cannot_be_matched_without_memory() -> None:
    learner = cfg(MlpCfg(hidden=(16,)), "0.05").build(PointEnv(64), None)
    for _ in range(40):
        learner.iterate()
    assert error(learner, Leaning(0.05)) > 1e-2


def test_kill_and_resume_gives_the_same_numbers(tmp_path: Path) -> None:
    def make() -> Distillation:
        return cfg(GruCfg(units=4, hidden=()), "0.05").build(PointEnv(12), None)

    assert_resumes(make, tmp_path)


def test_its_settings() -> None:
    changed = override(cfg(MlpCfg(), ""), ["teacher=some/file", "trainer.seed=7", "network.actor.hidden=[4]"])
    assert changed.teacher == "some/file" and changed.load_teacher is load
    assert to_dict(changed)["load_teacher"].endswith("load")
    with pytest.raises(KoboshiError, match="agent.teacher is empty"):
        cfg(MlpCfg(), "").build(PointEnv(4), None)
    with pytest.raises(KoboshiError, match="actions are discrete"):
        cfg(MlpCfg(), "0").build(PointEnv(4, discrete=True), None)
    with pytest.raises(KoboshiError, match="agent.epochs must be at least 1, not 0"):
        override(cfg(MlpCfg(), ""), ["epochs=0"])


def test_ppos_settings_build_its_learner() -> None:
    agent: AgentCfg = PPOCfg(trainer=TrainerCfg(rollout=2))
    learner: Learner = agent.build(PointEnv(4), None, rank=3)
    other: Learner = agent.build(PointEnv(4), None)
    assert learner.iterate() and learner.iteration == 1
    assert not torch.equal(learner.state_dict()["env.rng"], (other.iterate(), other.state_dict()["env.rng"])[1])
