"""The plain task to start from: an H1 under velocity commands that hold a heading, as in Isaac Lab; nothing breaks."""

from __future__ import annotations

from dataclasses import replace

from koboshi.envs.cfg import HeadingCfg, VelocityCommandCfg
from koboshi.tasks import h1_walk, velocity
from koboshi.tasks.task import TaskCfg


def h1_velocity() -> TaskCfg:
    """`koboshi … h1-velocity`."""
    env = replace(
        h1_walk.env_cfg(),
        observations=velocity.walking_groups(),
        command=VelocityCommandCfg(heading=HeadingCfg()),
    )
    return TaskCfg("h1-velocity", env, h1_walk.agent_cfg())
