"""The plain task to start from: an H1 under velocity commands that hold a heading, as in Isaac Lab; nothing breaks."""

from __future__ import annotations

from dataclasses import replace

from koboshi.envs.cfg import HeadingCfg, VelocityCommandCfg
from koboshi.tasks import velocity
from koboshi.tasks.h1_dead_joint import agent_cfg, env_cfg
from koboshi.tasks.task import TaskCfg


def h1_velocity() -> TaskCfg:
    """`koboshi … h1-velocity`."""
    env = replace(
        env_cfg(),
        observations=velocity.walking_groups(),
        command=VelocityCommandCfg(heading=HeadingCfg()),
    )
    return TaskCfg("h1-velocity", env, agent_cfg())
