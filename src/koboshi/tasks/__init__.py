"""Tasks: one file each, a plain function that returns all of its settings."""

from __future__ import annotations

from collections.abc import Callable

from koboshi.errors import unknown
from koboshi.tasks.h1_walk import h1_walk
from koboshi.tasks.task import TaskCfg

TASKS: dict[str, Callable[[], TaskCfg]] = {"h1-walk": h1_walk}

__all__ = ["TASKS", "TaskCfg", "make_task"]


def make_task(name: str) -> TaskCfg:
    """The task's default settings."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]()
