"""Tasks: one file each, a plain function that returns all of its settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from koboshi.errors import KoboshiError, unknown
from koboshi.tasks.g1_walk import g1_walk
from koboshi.tasks.go2_flat import go2_flat
from koboshi.tasks.go2_rough import go2_rough, go2_rough_faults
from koboshi.tasks.go2w import go2w_rough, go2w_stairs
from koboshi.tasks.h1_dead_joint import h1_dead_joint
from koboshi.tasks.h1_velocity import h1_velocity
from koboshi.tasks.h1_walk import h1_walk
from koboshi.tasks.task import TaskCfg
from koboshi.tasks.wheelbiped import wheelbiped_flat, wheelbiped_stairs

MakeTask = Callable[[], TaskCfg]

TASKS: dict[str, MakeTask] = {
    "h1-velocity": h1_velocity,
    "h1-dead-joint": h1_dead_joint,
    "h1-walk": h1_walk,
    "go2-flat": go2_flat,
    "go2-rough": go2_rough,
    "go2-rough-faults": go2_rough_faults,
    "go2w-stairs": go2w_stairs,
    "go2w-rough": go2w_rough,
    "wheelbiped-flat": wheelbiped_flat,
    "wheelbiped-stairs": wheelbiped_stairs,
    "g1-walk": g1_walk,
}
"""Those that ship with koboshi."""
_added: dict[str, MakeTask] = {}

__all__ = ["TASKS", "MakeTask", "TaskCfg", "add", "known", "make_task"]


def known() -> dict[str, MakeTask]:
    """Name -> the function that makes it: those that ship, then those that were added from outside."""
    return TASKS | _added


def add(name: str, make: MakeTask) -> None:
    """Adds a task from outside; KoboshiError where the name is taken."""
    if name in known():
        raise KoboshiError(f"the task name '{name}' is taken; tasks: {', '.join(known())}")
    _added[name] = make


def make_task(name: str, wanted_by: Path | None = None) -> TaskCfg:
    """The task's default settings. `wanted_by`: the file that names it, so that an error can say so."""
    if name not in known():
        error = unknown("task", name, known())
        if wanted_by is None:
            raise error
        raise KoboshiError(f"{wanted_by} needs its task: {error}; a task from outside needs its --module again")
    task = known()[name]()
    if not isinstance(task, TaskCfg) or task.name != name:
        found = f"a task named '{task.name}'" if isinstance(task, TaskCfg) else f"a {type(task).__name__}"
        raise KoboshiError(f"the function of task '{name}' gives {found}, not a TaskCfg of that name")
    return task
