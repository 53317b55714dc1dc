"""What a GPU would have to be waited for, in a step of an environment and of learning, on a pretended device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from devices import DEVICE, PretendBackend, PretendDevice, pretend_cuda
from koboshi import config
from koboshi.algos.ppo import PPO
from koboshi.envs import Env, EnvCfg
from koboshi.faults import FaultsCfg, FaultSchedule
from koboshi.tasks import make_task, velocity

N = 4
RANDOMISED = [f"env.events.{name}.active=true" for name in velocity.randomisations()]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendDevice]:
    """Physics and learning on the pretended device."""
    monkeypatch.setattr("koboshi.envs.env.make_backend", lambda kind, model, n, where: PretendBackend(model, n))
    monkeypatch.setattr("koboshi.algos.ppo.ppo.local_device", lambda name: DEVICE)
    with pretend_cuda() as device:
        yield device


def env_cfg(task: str) -> EnvCfg:
    """Everything on: faults that come and go, delays, randomisations, pushes, episodes that end now and then."""
    cfg = config.override(make_task(task), [*RANDOMISED, "env.events.push.interval_s=[0.05,0.1]"]).env
    faults = FaultSchedule(FaultsCfg(kinds=("torque_loss", "braking"), duration_s=(0.05, 0.1)), onset_s=(0.05, 0.1))
    return replace(cfg, num_envs=N, faults=faults, episode_length_s=0.12, actions=replace(cfg.actions, delay=(0, 3)))


@pytest.mark.parametrize("task", ["h1-walk", "go2-flat"])
def test_a_step_of_the_environment_waits_for_nothing(task: str, device: PretendDevice) -> None:
    """Not even one in which episodes end, faults begin and end, and robots are pushed."""
    env = Env(env_cfg(task))
    obs = env.reset(0)
    assert all(value.device.type == DEVICE.type for value in obs.values())
    action = torch.zeros(N, env.action_space.dim, device=DEVICE)
    env.step(action)
    device.synchronised.clear()
    ended = [env.step(action) for _ in range(8)]
    assert device.synchronised == []
    device.synchronised.clear()
    assert any(bool(step.truncated.any()) for step in ended), "no episode ended: the test says less than it should"
    assert len(device.synchronised) > 0, "a number that is read back is not counted"


@pytest.mark.parametrize("members", [1, 2])
def test_collecting_waits_for_nothing_and_an_update_for_its_log(members: int, device: PretendDevice) -> None:
    task = make_task("h1-walk")
    env = Env(env_cfg("h1-walk"))
    agent = replace(task.agent, trainer=replace(task.agent.trainer, rollout=4), epochs=2, minibatches=2)
    ppo = PPO(env, agent, members=members, mirror=env.mirror_map(("policy",)))
    ppo.iterate()
    device.synchronised.clear()
    rollout = ppo.collect()
    assert device.synchronised == []
    ppo.update(rollout)
    env.pop_log()
    # Whether anything is masked, what is logged, and three counts of the environment: once an iteration, however
    # many steps, minibatches and terms there are.
    assert len(device.synchronised) <= 6, "\n".join(device.synchronised)
