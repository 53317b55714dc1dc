"""The H1 of `h1-walk` under every kind of fault, several at once, in worlds that differ, on courses."""

from __future__ import annotations

from dataclasses import replace

from koboshi.algos.ppo import TrainerCfg
from koboshi.envs import EnvCfg
from koboshi.tasks import h1_walk as walk
from koboshi.tasks import velocity
from koboshi.tasks.task import TaskCfg


def env_cfg() -> EnvCfg:
    """As `h1-walk`, but a world is drawn for each episode, and half of the commands hold a heading."""
    return velocity.in_differing_worlds(walk.env_cfg())


def h1_faults() -> TaskCfg:
    """`koboshi … h1-faults`."""
    agent = replace(walk.agent_cfg(), trainer=TrainerCfg(timesteps=8000))
    return velocity.under_any_faults(replace(walk.h1_walk(), name="h1-faults", env=env_cfg(), agent=agent))
