"""`koboshi benchmark ground`: how much of its task's ground a controller crosses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from koboshi import config, runs
from koboshi.bench.crossing import crossing_figures, crossings, every_cell, straight_on
from koboshi.envs import Env
from koboshi.errors import KoboshiError
from koboshi.specialists.controller import Controller
from koboshi.stages.folders import task_of
from koboshi.stages.play import load_any
from koboshi.stages.progress import watched_rollout
from koboshi.tasks import TaskCfg
from koboshi.terrain import GridCfg
from koboshi.view.ground import crossing_map

SEED = 5


def ground_of(task: TaskCfg) -> GridCfg:
    """The task's grid of sub-terrains; KoboshiError where its ground is one plane."""
    cfg = task.env.scene.ground
    if not isinstance(cfg, GridCfg):
        raise KoboshiError(f"the ground of task '{task.name}' is one plane, and no grid of sub-terrains")
    return cfg


def benchmark(
    task: TaskCfg, path: Path, folder: Path, robots: int = 8, speed: float = 0.6, seconds: float = 20.0
) -> dict[str, Any]:
    """Writes `ground.json` and `ground.png` to `folder`; gives the figures (see `bench.crossing`).

    `robots` in each type at each level, told to walk at `speed` m/s for `seconds`, in the task's own world without what
    strikes in mid-episode.
    """
    controller, _ = load_any(path, task)
    figures = cross(task, controller, robots, speed, seconds)
    figures |= {
        "task": task.name, "controller_sha256": runs.digest(path), "commit": runs.git_commit(),
        "changed": config.diff(task_of(path), task),
    }  # fmt: skip
    runs.write_json(folder / "ground.json", figures)
    crossing_map({name: each["crossed"] for name, each in figures["types"].items()}, folder / "ground.png")
    return figures


def cross(task: TaskCfg, controller: Controller, robots: int, speed: float, seconds: float) -> dict[str, Any]:
    """The figures alone. KoboshiError for a speed that the task never asks for."""
    low, high = task.env.command.lin_vel_x
    if not low <= speed <= high:
        raise KoboshiError(f"task '{task.name}' asks for v_x from {low:g} to {high:g} m/s, and never for {speed:g}")
    if not 0 < seconds < math.inf:
        raise KoboshiError(f"robots cross ground in more than 0 s, not {seconds}")
    cells = every_cell(ground_of(task), robots)
    scenarios = straight_on(task.env.robot, len(cells.level), speed, SEED)

    def begin(env: Env) -> None:
        env.scene.levels.pin(cells.level, cells.column)

    recording = watched_rollout("cross", task, controller, scenarios, seconds, begin=begin)
    about = {"robots_a_cell": robots, "speed": speed, "seconds": seconds, "seed": SEED}
    return crossing_figures(crossings(recording, cells), cells) | {"scenario": about}
