"""The error of what a policy guesses, held against a loop of our own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from koboshi.bench.estimation import estimation, level_spread
from koboshi.envs import Env, EnvCfg
from koboshi.envs.cfg import EventTerm
from koboshi.envs.terms import events
from koboshi.nets.actors import EstCfg, HimCfg, MlpCfg
from koboshi.policies import ActorCritic, NetworkCfg
from koboshi.tasks import make_task

TERMS = ("base_lin_vel",)


def cfg() -> EnvCfg:
    base = make_task("go2-flat").env
    groups = {"policy": replace(base.observations["policy"], history_length=2), "critic": base.observations["critic"]}
    return replace(base, num_envs=3, observations=groups)


def policy(actor: EstCfg | HimCfg | MlpCfg) -> ActorCritic:
    """Of zeros: it stays in the default pose, and guesses what the critic's normaliser takes for the mean."""
    env = Env(cfg())
    torch.manual_seed(0)
    found = ActorCritic(1, env.obs_spec, env.action_space, NetworkCfg(actor, critic_hidden=(4,)))
    for name, x in found.actor.named_parameters():
        if "trunk" in name or "estimator" in name or "encoder" in name or "network" in name:
            x.data.zero_()
    norm = found.norm("critic")
    norm.mean[0, 0, :3], norm.var[0, 0, :3] = torch.tensor([0.5, 0.0, -0.1]), 4.0
    return found.requires_grad_(False)


@pytest.mark.parametrize("ahead", [False, True])
def test_errors_by_hand(ahead: bool) -> None:
    actor = HimCfg(targets=TERMS, after=TERMS, hidden=(4,)) if ahead else EstCfg(targets=TERMS, hidden=(4,))
    found = estimation(cfg(), policy(actor), seconds=0.2, seed=3)
    env = Env(level_spread(cfg()))
    env.reset(3)
    velocities, commands = [env.state.base_lin_vel], [env.command.value.clone()]
    tracked = [env.state.lin_vel_yaw[:, 0]]
    for _ in range(10):
        step = env.step(torch.zeros(3, 12))
        assert not (step.terminated | step.truncated).any()
        velocities.append(env.state.base_lin_vel)
        tracked.append(env.state.lin_vel_yaw[:, 0])
        commands.append(env.command.value.clone())
    v = torch.stack(velocities[1:] if ahead else velocities[:-1])
    now, c = torch.stack(velocities[:-1]), torch.stack(commands[:-1])
    guess = torch.tensor([0.5, 0.0, -0.1])
    assert found["estimate"]["base_lin_vel"] == pytest.approx((guess - v).square().mean().sqrt().item(), rel=1e-4)
    told = torch.cat((c[..., :2], torch.zeros_like(c[..., :1])), dim=-1)
    assert found["command_as_estimate"] == pytest.approx((told - now).square().mean().sqrt().item(), rel=1e-4)
    slow = c[..., 0] - torch.stack(tracked[:-1])
    assert found["vx_rmse"] == pytest.approx(slow.square().mean().sqrt().item(), rel=1e-4)
    assert found["falls_a_minute"] == 0


def test_who_guesses_nothing_has_no_error_of_it() -> None:
    found = estimation(cfg(), policy(MlpCfg(hidden=(4,))), seconds=0.1, seed=3)
    assert found["estimate"] == {} and found["vx_rmse"] > 0


def test_levels_alike_and_nothing_that_strikes() -> None:
    rough = make_task("go2-rough").env
    spread = level_spread(replace(rough, events=rough.events | {"push": EventTerm(events.push, "interval")}))
    assert "push" not in spread.events and "mass" in spread.events and spread.curriculum == {}
    env = Env(replace(spread, num_envs=200))
    env.reset(0)
    assert len(env.scene.levels.level.unique()) == 10
