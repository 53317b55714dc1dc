"""Small random policies and a small random detector of the H1 task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from koboshi.algos.ppo import ActorCritic, MirrorMap, NetworkCfg
from koboshi.data import PdCard
from koboshi.detect import DetectorCfg, DetectorSpec, FaultDetector
from koboshi.envs import Env
from koboshi.tasks.h1_walk import env_cfg
from koboshi.vec_env import ActionSpace

MakePolicy = Callable[..., ActorCritic]


@pytest.fixture(scope="session")
def make_policy() -> MakePolicy:
    def make(members: int, policy_dim: int = 69, critic_dim: int = 74, seed: int = 0) -> ActorCritic:
        """Weights and normalisers that differ in every number."""
        policy = ActorCritic(members, policy_dim, critic_dim, ActionSpace(19), NetworkCfg((8,)))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, value in policy.state_dict().items():
                noise = torch.randn(value.shape, generator=generator)
                value.copy_(noise.abs() + 0.5 if name.endswith(("var", "count")) else 0.3 * noise)
        return policy.requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def env() -> Env:
    return Env(replace(env_cfg(), num_envs=2))


@pytest.fixture(scope="session")
def mirror(env: Env) -> MirrorMap:
    return MirrorMap(*env.mirror("policy"), *env.mirror("action"))


@pytest.fixture(scope="session")
def detector(env: Env) -> FaultDetector:
    robot = env.robot
    gains = [x.tolist() for x in (robot.stiffness, robot.damping, robot.effort_limit, robot.default_joint_pos)]
    layout = [(e.name, e.start, e.width) for e in env.layouts["detector"]]
    names = list(robot.joint_names)
    spec = DetectorSpec(robot.name, layout, names, list(robot.fault_candidates), env.step_dt, PdCard(0.5, *gains), "")
    torch.manual_seed(0)
    model = FaultDetector(spec, DetectorCfg(embed=16, hidden=16))
    return model.eval().requires_grad_(False)
