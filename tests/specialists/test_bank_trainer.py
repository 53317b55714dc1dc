"""Training a bank can be cut off anywhere and goes on with the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from koboshi.algos.ppo import NetworkCfg, PPOCfg, TrainerCfg
from koboshi.config import override
from koboshi.detect import AlarmCfg
from koboshi.errors import KoboshiError
from koboshi.robots import UNITREE_H1
from koboshi.specialists.assignment import assign
from koboshi.specialists.routing import DetectorRouter, OracleRouter, Router
from koboshi.specialists.training import BankTrainer, SpecialistsCfg, specialist_env_cfg
from koboshi.tasks.h1_walk import env_cfg

PAIRS = assign(UNITREE_H1, "mirrored_pair", ("left_knee", "right_knee", "torso"))


def settings(**changes: Any) -> SpecialistsCfg:
    agent = PPOCfg(
        TrainerCfg(rollout=6), NetworkCfg((8,), init_log_std=-1.0), epochs=2, minibatches=1, mirror_coef=0.0
    )
    cfg = SpecialistsCfg(
        agent, num_envs=4, stages=(12, 12), solved=-1.0, onset_s=(0.0, 0.04), switch_delay_s=(0.0, 0.06),
        episode_length_s=0.3,
    )  # fmt: skip
    return replace(cfg, **changes)


class Nervous:
    """A detector with a memory that believes now this, now that of the joints whose torques it adds up."""

    spec = SimpleNamespace(joint_names=UNITREE_H1.joint_names)

    def initial(self, num_envs: int) -> Tensor:
        return torch.zeros(num_envs, 19)

    def step(self, obs: Tensor, reset: Tensor | None, hidden: Tensor) -> tuple[Tensor, Tensor]:
        kept = hidden if reset is None else hidden.masked_fill(reset[:, None], 0.0)
        hidden = 0.7 * kept + obs[:, 69:]
        others = torch.tensor([name not in ("left_knee", "right_knee", "torso") for name in UNITREE_H1.joint_names])
        return (hidden / 20).masked_fill(others, -20.0), hidden


def router_of(kind: str) -> Callable[[], Router]:
    alarm = AlarmCfg(threshold=0.6, persistence=2, release_threshold=0.5, release_steps=3)
    oracle = OracleRouter(0.02, (0.0, 0.06))
    return lambda: oracle if kind == "oracle" else DetectorRouter(Nervous(), alarm)


@pytest.mark.parametrize("kind", ["oracle", "detector"])
def test_resume_is_exact(make_policy, kind: str) -> None:
    def start() -> BankTrainer:
        return BankTrainer(env_cfg(), settings(), make_policy(1), PAIRS, router_of(kind))

    trainer, saved = start(), []
    fresh = trainer.bank.actor.layers[0].weight.clone()
    valid = []
    while not trainer.done:
        valid.append(trainer.iterate()["policy/valid"])
        saved.append({name: value.clone() for name, value in trainer.state_dict().items()})
    assert len(saved) == 4 and trainer.iteration == 4 and trainer.stage == 2
    assert any(0 < share < 1 for share in valid), "nobody, or everybody, acted: the test says little"
    assert not torch.equal(trainer.bank.actor.layers[0].weight, fresh), "nothing was learnt"
    for state in saved[:-1]:
        again = start()
        again.load_state_dict(state)
        while not again.done:
            again.iterate()
        assert_same(again.state_dict(), saved[-1])


def test_a_trainer_saved_before_its_first_step(make_policy) -> None:
    one, other = (
        BankTrainer(env_cfg(), settings(), make_policy(1), PAIRS, router_of("oracle")) for _ in range(2)
    )
    assert one.ppo.iteration == 0
    other.load_state_dict(one.state_dict())
    one.iterate(), other.iterate()
    assert_same(one.state_dict(), other.state_dict())


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name].nan_to_num(7.0), b[name].nan_to_num(7.0))]
    assert not different


def test_specialists_start_from_the_healthy_policy(make_policy) -> None:
    healthy = make_policy(1)
    trainer = BankTrainer(env_cfg(), settings(), healthy, PAIRS, router_of("oracle"))
    for k in range(2):
        for name, value in trainer.bank.member(k).items():
            if name == "log_std":
                assert (value == -1.0).all()
            else:
                assert torch.equal(value, healthy.member(0)[name]), name


def test_the_environment_of_a_bank() -> None:
    cfg = specialist_env_cfg(env_cfg(), PAIRS, settings(num_envs=5))
    assert cfg.num_envs == 4, "a stage takes the largest multiple of its members"
    assert cfg.episode_length_s == 0.3
    schedule = cfg.events["change_joint_torque"].params["schedule"]
    assert schedule.groups == (("left_knee", "right_knee"), ("torso",))
    with pytest.raises(KoboshiError, match="specialists.stages must be positive"):
        override(settings(), ["stages=[0]"])


@pytest.mark.parametrize(("num_envs", "near"), [(5, "4 or 6"), (0, "2 or 4"), (1, "2 or 4")])
def test_indivisible_counts_are_refused(make_policy, num_envs: int, near: str) -> None:
    message = f"specialists.num_envs={num_envs} cannot be divided among 2 specialists; {near} can"
    with pytest.raises(KoboshiError, match=message):
        BankTrainer(env_cfg(), settings(num_envs=num_envs), make_policy(1), PAIRS, router_of("oracle"))
