"""From recordings to videos: one scenario under several controllers, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from koboshi import robots
from koboshi.bench.rollout import Recording
from koboshi.envs import EnvCfg
from koboshi.envs.scene import visual_scene
from koboshi.errors import KoboshiError
from koboshi.faults import NEVER
from koboshi.specialists.assignment import Assignment
from koboshi.stages.progress import console, progress
from koboshi.view import AlarmMark, FaultMark, Trajectory
from koboshi.view.gl import choose_gl, gl_hint


def trajectory(recording: Recording, row: int, title: str, assignment: Assignment | None) -> Trajectory:
    """Scenario `row`, which was filmed, from its start to its fall or the recording's end.

    Without an assignment nobody listens to the router, so its belief is left out.
    """
    robot = robots.find(recording.scenarios.robot)
    fell = int(recording.end[row]) < len(recording.velocity)
    # The step in which a robot falls is followed by its reset, so the last picture is the one before.
    last = int(recording.end[row]) if fell else len(recording.velocity)
    listens = assignment is not None
    alarm = recording.alarm[:last, row] if listens and recording.alarm is not None else None
    probability = recording.probability if listens else None
    return Trajectory(
        qpos=recording.qpos[:last, recording.filmed.index(row)].double().numpy(),
        control_dt=recording.step_dt,
        joint_names=robot.joint_names,
        title=title,
        command=recording.command[:last, row].double().numpy(),
        velocity=recording.velocity[:last, row].double().numpy(),
        fault=_fault_marks(recording, row, last),
        alarms=_alarm_marks(alarm, recording.step_dt, robot.joint_names) if alarm is not None else (),
        actor=_actors(recording.member[:last, row], assignment),
        probability=probability[:last, row].double().numpy() if probability is not None else None,
        fell_at=last * recording.step_dt if fell else None,
    )


def _fault_marks(recording: Recording, row: int, until: int) -> list[FaultMark]:
    """The faults that begin before control step `until`."""
    dt, faults = recording.step_dt, recording.scenarios.episodes[row].faults
    return [
        FaultMark(fault.joint, fault.kind, fault.severity, start * dt, math.inf if stop == NEVER else stop * dt)
        for fault in faults
        for start, stop in fault.times(dt, until)
    ]


def _alarm_marks(alarm: torch.Tensor, step_dt: float, names: Sequence[str]) -> list[AlarmMark]:
    """Each joint's first alarm in (T, J), in the order of time."""
    first = alarm.int().argmax(0).tolist()
    marks = [AlarmMark(names[j], first[j] * step_dt) for j in alarm.any(0).nonzero().squeeze(1).tolist()]
    return sorted(marks, key=lambda mark: mark.time)


def _actors(member: torch.Tensor, assignment: Assignment | None) -> list[str]:
    names = [f"{m.name} specialist" for m in assignment.members] if assignment is not None else []
    # The healthy policy's index, −1, is the last one.
    return [[*names, "healthy"][k] for k in member.tolist()]


def check_film(path: Path) -> None:
    """KoboshiError for a kind of file that `film` does not write."""
    if path.suffix not in (".mp4", ".gif"):
        raise KoboshiError(f"a film is a .mp4 or a .gif, and '{path.name}' is neither")


def film(cfg: EnvCfg, panels: Sequence[Trajectory], path: Path, camera: str = "three_quarter") -> Path | None:
    """Writes a video of what was recorded in this environment, or a GIF.

    None, and a line that says what to install, where there is no OpenGL.
    """
    from koboshi.view.video import render_gif, render_video

    check_film(path)
    if choose_gl() is None:
        console.print(f"no video: {gl_hint()}")
        return None
    spec = visual_scene(cfg.scene, robots.find(cfg.robot))
    with progress(f"video {path.name}", 1, unit="frames") as update:
        render = render_gif if path.suffix == ".gif" else render_video
        render(spec, panels, path, camera=camera, progress=lambda done, total: update(done, total=total))
    return path


def cut(recording: Recording, seconds: float) -> Recording:
    """The recording's first `seconds`, for a shorter film."""
    steps = min(round(seconds / recording.step_dt), len(recording.velocity))
    names = ("velocity", "contact", "member", "qpos", "probability", "alarm")
    short = {n: getattr(recording, n)[:steps] for n in names if getattr(recording, n) is not None}
    return replace(recording, end=recording.end.clamp(max=steps), **short)
