"""Arguments that several verbs share, and what the verbs make of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koboshi.errors import KoboshiError

if TYPE_CHECKING:
    from koboshi.stages.folders import Start
    from koboshi.tasks import TaskCfg

Task = Annotated[str, typer.Argument(help="Task, for instance h1-walk.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings: env.num_envs=2048 agent.gamma=0.98 …")
]
PathsAndOverrides = Annotated[
    list[str],
    typer.Argument(metavar="DATA... [KEY=VALUE]...", help="Data sets, and settings: detector.training.epochs=4"),
]
Root = Annotated[Path, typer.Option(help="Folder of all runs.")]
Name = Annotated[
    str | None,
    typer.Option(
        help="The run's name. A run of that name and the same settings is resumed. Without a name: the unfinished "
        "run with the same settings, or else a new one named after the time."
    ),
]
Load = Annotated[
    str | None, typer.Option(help="Run or checkpoint whose weights a new run starts from; settings may differ.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Fail unless there is a run to resume.")]
RUNS = Path("runs")
_OVERRIDE = re.compile(r"\w+(\.[\w-]+)*=")


def task_named(name: str, overrides: list[str] | None) -> TaskCfg:
    """The task of that name under overrides."""
    from koboshi import config
    from koboshi.tasks import make_task

    return config.override(make_task(name), overrides or [])


def split(words: list[str]) -> tuple[list[Path], list[str]]:
    """Paths, and the key=value among them; a path that looks like one is written ./a=b."""
    paths = [Path(word) for word in words if not _OVERRIDE.match(word)]
    if not paths:
        raise KoboshiError("no data set was given, only settings")
    return paths, [word for word in words if _OVERRIDE.match(word)]


def start_of(load: str | None, resume: bool, root: Path) -> Start:
    """Where a training begins."""
    from koboshi.stages.folders import Start, find

    if load is not None and resume:
        raise KoboshiError("--load starts a new run and --resume goes back to an old one; give one of them")
    return Start(find(load, root) if load is not None else None, resume)


def say(path: Path) -> None:
    """Prints a run's folder; of the processes of one torchrun the first does."""
    from koboshi.stages import ranks

    if ranks.is_first():
        print(path)
