"""The H1 of `h1-dead-joint` under every kind of fault, several at once, in worlds that differ, on courses."""

from __future__ import annotations

from dataclasses import replace

from koboshi.algos.ppo import TrainerCfg
from koboshi.tasks import velocity
from koboshi.tasks.h1_dead_joint import h1_dead_joint
from koboshi.tasks.task import TaskCfg


def h1_walk() -> TaskCfg:
    """`koboshi … h1-walk`."""
    plain = h1_dead_joint()
    env, agent = velocity.in_differing_worlds(plain.env), replace(plain.agent, trainer=TrainerCfg(timesteps=8000))
    return velocity.under_any_faults(replace(plain, name="h1-walk", env=env, agent=agent))
