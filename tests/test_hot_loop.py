"""What a GPU would have to be waited for, in a step of an environment and of learning, on a pretended device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from devices import DEVICE, PretendBackend, PretendDevice, pretend_cuda
from koboshi import config, robots
from koboshi.algos.ppo import PPO
from koboshi.bench.rollout import rollout
from koboshi.envs import Env, EnvCfg
from koboshi.faults import Fault, FaultsCfg, FaultSchedule, Scenario, Scenarios
from koboshi.policies import ActorCritic, NetworkCfg
from koboshi.specialists.assignment import assign
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import OracleRouter
from koboshi.stages.collect import _Collector
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


@pytest.mark.parametrize("task", ["h1-dead-joint", "go2-flat", "go2-rough"])
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


def judged(task: str) -> tuple[EnvCfg, Scenarios, Controller]:
    """A task on frozen scenarios under a policy that knows nothing and a router that knows all."""
    cfg, robot = env_cfg(task), robots.find(make_task(task).env.robot)
    faults = tuple(Fault(name, onset_s=0.04) for name in robot.fault_candidates[:N])
    scenarios = Scenarios(robot.name, 1, tuple(Scenario((fault,), (0.5, 0.0, 0.0), 0.04) for fault in faults))
    env = Env(replace(cfg, num_envs=1))
    policy = ActorCritic(1, {g: env.obs_spec[g] for g in ("policy", "critic")}, env.action_space, NetworkCfg())
    table = assign(robot, "joint", robot.fault_candidates)
    return cfg, scenarios, Controller(policy.to(DEVICE).single(), None, OracleRouter(table, robot, env.step_dt))


def test_judging_waits_for_nothing_before_its_end(device: PretendDevice) -> None:
    cfg, scenarios, controller = judged("go2-flat")
    waited: list[list[str]] = []

    def note(done: int) -> None:
        waited.append(list(device.synchronised))
        device.synchronised.clear()

    found = rollout(cfg, controller, scenarios, 0.2, detail=True, film=(1,), report=note)
    assert len(waited) == 12 and waited[1:] == [[]] * 11
    assert found.velocity.device.type == "cpu" and bool(found.alarm[-1].any())  # type: ignore[index]


def test_recording_waits_once_a_chunk(device: PretendDevice) -> None:
    _, _, controller = judged("go2-flat")
    task = config.override(make_task("go2-flat"), ["collect.num_envs=4", "collect.steps=40"])
    env, counts = Env(env_cfg("go2-flat")), []
    for shard_steps in (4, 4, 12):  # the first one warms up
        collector = _Collector(env, controller, replace(task.collect, shard_steps=shard_steps), 1)
        device.synchronised.clear()
        chunk = collector._chunk()
        counts.append(len(device.synchronised))
        assert all(column.device.type == DEVICE.type for column in chunk.columns.values())
    # Where episodes ended, and what the environment noted: its failures and whether a number was not finite.
    assert counts[1:] == [3, 3], counts


@pytest.mark.parametrize("members", [1, 2])
def test_collecting_waits_for_nothing_and_an_update_for_its_log(members: int, device: PretendDevice) -> None:
    task = make_task("h1-dead-joint")
    env = Env(env_cfg("h1-dead-joint"))
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
