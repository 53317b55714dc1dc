"""Tasks of wheeled robots: wheels are asked for speeds, nobody is told their angle, episodes begin as they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from koboshi.algos.learner import make_learner
from koboshi.config import override
from koboshi.envs import Env
from koboshi.robots import VelocityActuator
from koboshi.tasks import make_task

TASKS = ["go2w-stairs", "go2w-rough", "wheelbiped-flat", "wheelbiped-stairs"]


def env_of(name: str, n: int = 2) -> Env:
    cfg = make_task(name).env
    calm = {group: replace(each, noise=False) for group, each in cfg.observations.items()}
    return Env(replace(cfg, num_envs=n, observations=calm, random_initial_length=False))


@pytest.mark.parametrize("name", TASKS)
def test_no_wheels_angle_is_observed(name: str) -> None:
    """Turned wheels change nothing that policy or critic is told, whatever else they see."""
    env = env_of(name)
    wheels = [j for j, a in enumerate(env.robot.joint_actuators.values()) if isinstance(a, VelocityActuator)]
    env.reset(0)
    before = {group: x.clone() for group, x in env.observations.compute().items()}
    env.state.joint_pos = env.state.joint_pos.clone()
    env.state.joint_pos[:, wheels] += 123.0
    for group, x in env.observations.compute().items():
        now = env.obs_spec[group].newest
        assert torch.equal(x[:, now], before[group][:, now]), group
    # While the angle of a leg's joint is.
    leg = next(j for j in range(len(env.robot.joint_names)) if j not in wheels)
    env.state.joint_pos[:, leg] += 0.1
    assert not torch.equal(env.observations.compute()["policy"], before["policy"])


@pytest.mark.parametrize(("name", "policy"), [("go2w-stairs", 53), ("wheelbiped-stairs", 31)])
def test_sizes_and_what_an_action_asks_for(name: str, policy: int) -> None:
    env = env_of(name)
    assert env.obs_spec["policy"].newest == slice(0, policy) and env.obs_spec["policy"].shape == (6 * policy,)
    wheels = [isinstance(a, VelocityActuator) for a in env.robot.joint_actuators.values()]
    env.reset(0)
    env.actions.take(torch.ones(2, env.action_space.dim))
    asked = dict(zip(env.robot.joint_names, env.actions.targets()[0].tolist(), strict=True))
    default = dict(zip(env.robot.joint_names, env.default_joint_pos.tolist(), strict=True))
    assert [x == 5.0 for x in asked.values()] == wheels  # rad/s
    steps = {name: round(asked[name] - default[name], 4) for name, w in zip(asked, wheels, strict=True) if not w}
    assert set(steps.values()) == ({0.125, 0.25} if name == "go2w-stairs" else {0.25})


def test_robots_on_stairs_look_across_them_and_are_told_to_go_on() -> None:
    env = env_of("go2w-stairs", 64)
    env.reset(0)
    assert env.state.heading.abs().max() <= 0.1 + 1e-5
    command = env.command.value
    assert command[:, 2].abs().max() <= 0.001 and (command[:, 0] >= 0).all() and command[:, 1].abs().max() == 0
    assert env.scene.levels.count == 20


@pytest.mark.parametrize(("first", "then"), [("go2w-stairs", "go2w-rough"), ("wheelbiped-flat", "wheelbiped-stairs")])
def test_the_second_task_goes_on_with_the_weights_of_the_first(first: str, then: str) -> None:
    small = ["env.num_envs=4", "agent.network.actor.hidden=[8]", "agent.network.critic_hidden=[8]"]
    tasks = [override(make_task(name), small) for name in (first, then)]
    learners = [make_learner(Env(task.env), task.agent) for task in tasks]
    shapes = [{name: x.shape for name, x in learner.policy.state_dict().items()} for learner in learners]
    assert shapes[0] == shapes[1]
    layouts = [learner.env.layouts for learner in learners]  # type: ignore[attr-defined]
    assert layouts[0]["policy"] == layouts[1]["policy"] and layouts[0]["critic"] == layouts[1]["critic"]
