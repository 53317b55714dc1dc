"""`koboshi view`: a controller at work on a page that anybody with a browser can look at and meddle with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from koboshi import config, robots, runs
from koboshi.envs.scene import visual_scene
from koboshi.errors import KoboshiError
from koboshi.live.page import LOCAL, Page, serve
from koboshi.live.session import Driver, Session
from koboshi.live.tape import Tape
from koboshi.specialists.routing import OracleRouter
from koboshi.stages import evaluate as evaluating
from koboshi.stages.folders import label, task_of
from koboshi.stages.training import levels_by_type
from koboshi.tasks import TaskCfg
from koboshi.view.gl import choose_gl, gl_hint


def drivers(path: Path, task: TaskCfg) -> dict[str, Driver]:
    """What can drive the robot with this file: of a controller the detector, the truth, or nobody who switches."""
    if not evaluating.is_controller(path):
        return {label(path): Driver(evaluating.policy_alone(path, task), None)}
    stored = evaluating.load(path, task)
    oracle = OracleRouter(stored.assignment, stored.robot, task.env.step_dt)
    alone = evaluating.healthy_alone(stored.healthy, len(stored.robot.joint_names))
    return {
        label(path): Driver(stored.learned(), stored.assignment),
        f"{label(path)}, told the truth": Driver(stored.routed_by(oracle), stored.assignment),
        f"{label(path)}, healthy policy alone": Driver(alone, None),
    }


def session(path: Path, against: Sequence[Path] = (), overrides: Sequence[str] = ()) -> tuple[Session, TaskCfg]:
    """A session of the first file's task, in which all of them can take over from one another."""
    task = config.override(task_of(path), overrides)
    found: dict[str, Driver] = {}
    for each in (path, *against):
        for name, driver in drivers(each, task).items():
            # Two runs of one name lie in different folders.
            found[name if name not in found else f"{name} ({each})"] = driver
    return Session(task.env, found, trained=_levels(path)), task


def _levels(path: Path) -> dict[str, float]:
    """Type of ground -> the mean level to which a checkpoint's run had come by then; of other files nothing."""
    log = path.parent.parent / "metrics.jsonl"
    if path.parent.name != "checkpoints" or not log.is_file():
        return {}
    step = runs.load_checkpoint(path)[1].get("step")
    rows = [row for row in runs.read_jsonl(log) if step is None or row["step"] <= step]
    return levels_by_type(rows[-1:]) if rows else {}


def film(task: TaskCfg, tape: Tape, path: Path) -> Path:
    """Writes what was taped as a video; KoboshiError where nothing was, or there is no OpenGL."""
    from koboshi.view.video import render_video

    trajectory = tape.trajectory()
    if choose_gl() is None:
        raise KoboshiError(gl_hint())
    path.parent.mkdir(parents=True, exist_ok=True)
    render_video(visual_scene(task.env.scene, robots.find(task.env.robot)), [trajectory], path)
    return path


def view(
    path: Path,
    against: Sequence[Path],
    overrides: Sequence[str],
    folder: Path,
    host: str = LOCAL,
    port: int = 8080,
) -> Page:
    """The running page of a controller or a policy; whoever called it waits, and closes it."""
    # One robot's tensors are too small for threads, which would only take the page's and the viewer's cores.
    torch.set_num_threads(1)
    watched, task = session(path, against, overrides)
    return serve(watched, lambda tape, where: film(task, tape, where), folder, host, port)
