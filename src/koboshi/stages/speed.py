"""`koboshi bench speed`: the speed rows of the README."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from koboshi import runs
from koboshi.bench import speed
from koboshi.robots import ROBOTS
from koboshi.stages.play import demo_scenario, shipped
from koboshi.stages.progress import console
from koboshi.tasks import TaskCfg


def bench(task: TaskCfg, folder: Path, warp: bool = True) -> dict[str, Any]:
    """Measures one thing after the other; writes `speed.json`."""
    figures: dict[str, Any] = {"commit": runs.git_commit(), "cpus": os.cpu_count(), "machine": platform.machine()}

    def add(part: dict[str, float]) -> None:
        figures.update(part)
        console.print("  ".join(f"{k} {v:,.4g}" for k, v in part.items()), highlight=False)

    add(speed.env_speed(task.env))
    if warp:
        add(speed.warp_speed(task.env, figures["env_steps_per_s"]))
    add(speed.ppo_speed(task.env, task.agent))
    add(speed.stack_speed(task.env, task.specialists.agent))
    add(speed.controller_speed(task.env, shipped(task).learned(), demo_scenario(ROBOTS[task.env.robot])))
    runs.write_json(folder / "speed.json", figures)
    return figures
