"""`koboshi bench speed`: the speed rows of the README."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

from koboshi import runs
from koboshi.bench import speed
from koboshi.detect import DetectorSpec
from koboshi.envs import Env
from koboshi.stages.collect import collect_env_cfg, dataset_card
from koboshi.stages.progress import console
from koboshi.tasks import TaskCfg


def detector_spec(task: TaskCfg) -> DetectorSpec:
    """What a detector of this task listens to."""
    env = Env(replace(collect_env_cfg(task), num_envs=1))
    return DetectorSpec.from_card(dataset_card(task, env, None, "healthy", 0))


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
    add(speed.controller_speed(detector_spec(task)))
    runs.write_json(folder / "speed.json", figures)
    return figures
