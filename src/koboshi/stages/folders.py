"""Run folders as verbs see them: begun, resumed after a kill, held by one process, found by name."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from koboshi import config, runs
from koboshi.errors import KoboshiError, unknown
from koboshi.runs import RunFolder
from koboshi.stages import ranks
from koboshi.stages.progress import console
from koboshi.tasks import TaskCfg, make_task

CONTROLLER = "controller.safetensors"
"""A pipeline's result in its folder."""
CONFIG = "config.yaml"
UNFINISHED = ".unfinished"
"""Lies in a run's folder from its start until its last file is written."""


class Start(NamedTuple):
    """Where a training starts: anew, from other weights, or only where it was stopped."""

    load: Path | None = None
    """A checkpoint whose weights a new run starts from."""
    resume: bool = False
    """Whether it is a mistake if there is nothing to resume."""

    def origin(self) -> dict[str, str]:
        """What a run's `made_from` says about it."""
        return {"load": runs.digest(self.load)} if self.load else {}


@contextmanager
def open_run(
    task: TaskCfg,
    root: Path,
    name: str | None,
    overrides: list[str],
    made_from: dict[str, Any],
    resume: bool = False,
) -> Iterator[RunFolder]:
    """The run `root/<task>/<name>`, new or to be resumed; no other process can open it meanwhile.

    Without a name it is the unfinished run that was made with the very same, so that a killed command only has to
    be given again; or a new one, named after the time. `made_from`: the verb and what it started from (JSON data).
    `resume`: KoboshiError where there is nothing to resume. Of the processes of one `torchrun` the first one opens
    the run, and the others are told which it is.
    """
    if not ranks.is_first():
        path, error = ranks.gather(None)[0]
        if error is not None:
            raise KoboshiError(error)
        yield RunFolder(Path(path))
        return
    told = False
    try:
        with _open_run(task, root, name, overrides, made_from, resume) as run:
            told = True
            ranks.gather([str(run.path.absolute()), None])
            yield run
    except KoboshiError as error:
        if not told:
            ranks.gather([None, str(error)])
        raise


@contextmanager
def _open_run(
    task: TaskCfg, root: Path, name: str | None, overrides: list[str], made_from: dict[str, Any], resume: bool
) -> Iterator[RunFolder]:
    found = _unfinished(task, root, made_from) if name is None else None
    if resume:
        _check_resumable(root / task.name, name, found)
    run = RunFolder(found) if found else RunFolder.open(root, task.name, name or _new_name(root / task.name))
    if not (run.path / CONFIG).exists():
        (run.path / UNFINISHED).touch()
    with held(run.path, task, overrides, made_from):
        if found or resume:
            console.print(f"resuming {run.path}", highlight=False, soft_wrap=True)
        yield run
        (run.path / UNFINISHED).unlink(missing_ok=True)


def _check_resumable(folder: Path, name: str | None, unfinished: Path | None) -> None:
    if name is None and unfinished is None:
        raise KoboshiError(f"nothing to resume: no run under {folder} with these settings is unfinished")
    path = folder / name if name is not None else unfinished
    assert path is not None
    if not (path / runs.RESUME).exists():
        raise KoboshiError(f"nothing to resume: {path} holds no {runs.RESUME}")
    if not (path / UNFINISHED).exists():
        raise KoboshiError(f"nothing to resume: {path} is finished; a new run can start from it: --load {path}")


@contextmanager
def held(folder: Path, task: TaskCfg, overrides: list[str], made_from: dict[str, Any]) -> Iterator[None]:
    """Locks the folder and writes what it is made with; one that exists must have been made with the same."""
    with locked(folder):
        if (folder / CONFIG).exists():
            changed = _changed(folder, task, made_from)
            if changed:
                raise KoboshiError(
                    f"{folder} was made with other settings ({'; '.join(changed[:4])}); use those, or another name"
                )
        else:
            runs.write_json(folder / "made_from.json", made_from)
            runs.write_atomic(folder / "overrides.txt", "".join(f"{line}\n" for line in overrides).encode())
            # Last, since its presence says that all of this is there.
            config.save_yaml(folder / CONFIG, task)
        yield


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """KoboshiError where another process holds the folder; a killed process holds nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        if not _lock(file):
            raise KoboshiError(f"another process is writing to {folder}; wait for it, or give another name")
        yield


def _new_name(folder: Path) -> str:
    """The time, and a number where another run began in the same second. The run's folder is made."""
    time = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        try:
            (folder / f"{time}{suffix}").mkdir(parents=True)
        except FileExistsError:
            continue
        return f"{time}{suffix}"
    raise KoboshiError(f"1000 runs began in {folder} within a second; name this one")


def _lock(file: Any) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _changed(folder: Path, task: TaskCfg, made_from: dict[str, Any]) -> list[str]:
    """What differs between the folder's settings and these, a line a key."""
    try:
        found = config.diff(config.load_yaml(folder / CONFIG, task), task)
    except KoboshiError as error:
        # Settings that this task has no place for: a term removed now, or another version's key.
        found = [str(error)]
    origin = folder / "made_from.json"
    return found + (config.diff(runs.read_json(origin), made_from) if origin.exists() else [])


def _unfinished(task: TaskCfg, root: Path, made_from: dict[str, Any]) -> Path | None:
    """The newest run of this very kind that is not finished and that nobody is working on."""
    for path in reversed(runs.list_runs(root)):
        begun = path.parent.name == task.name and (path / UNFINISHED).exists()
        if begun and not _changed(path, task, made_from):
            with open(path / ".lock") as file:
                if _lock(file):
                    return path
    return None


def names(root: Path) -> list[str]:
    """All that `find` knows under `root`: runs, pipelines' controllers, and the runs inside pipelines."""
    checkpoints = {path.parent for depth in ("*/*", "*/*/*") for path in root.glob(f"{depth}/checkpoints")}
    pipelines = {path.parent for path in root.glob(f"*/*/{CONTROLLER}")}
    return sorted(path.relative_to(root).as_posix() for path in checkpoints | pipelines)


def find(name: str, root: Path) -> Path:
    """The checkpoint meant by a file, a run (its newest), a pipeline, or `task/name` under `root`.

    A pipeline's is its controller, or, where its task has no faults, its policy.
    """
    for path in (Path(name), root / name):
        if (path / CONTROLLER).is_file():
            return path / CONTROLLER
        if (path / "healthy" / "checkpoints" / runs.FINAL).is_file():
            return path / "healthy" / "checkpoints" / runs.FINAL
        if path.is_file() or (path / "checkpoints").is_dir():
            return runs.resolve_run(path, root)
    raise unknown("run", name, names(root))


def label(checkpoint: Path) -> str:
    """What to call a checkpoint: its run's name, its pipeline's, or its own."""
    if checkpoint.parent.name == "checkpoints":
        return checkpoint.parent.parent.name
    return checkpoint.parent.name if checkpoint.name == CONTROLLER else checkpoint.stem


def task_of(checkpoint: Path) -> TaskCfg:
    """The task that a policy or a controller was made for, with the settings that its run was made with."""
    meta = runs.load_checkpoint(checkpoint)[1]
    if meta.get("kind") not in ("policy", "controller"):
        raise KoboshiError(f"{checkpoint} holds a {meta.get('kind')}, and a policy or a controller is wanted")
    task = make_task(meta.get("task", "(none)"), wanted_by=checkpoint)
    # Only its run's: a file that lies elsewhere must not take a stranger's settings for its own.
    nested = checkpoint.parent.name in ("checkpoints", "members")
    folder = checkpoint.parent.parent if nested else checkpoint.parent
    return config.load_yaml(folder / CONFIG, task) if (folder / CONFIG).is_file() else task
