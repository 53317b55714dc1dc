"""From recordings to videos: one scenario under several controllers, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from koboshi.bench.rollout import Recording
from koboshi.robots import ROBOTS, visual_spec
from koboshi.specialists.assignment import Assignment
from koboshi.specialists.routing import NOBODY
from koboshi.stages.progress import console, progress
from koboshi.view import FaultMark, Trajectory
from koboshi.view.gl import choose_gl, gl_hint


def trajectory(recording: Recording, place: int, row: int, title: str, assignment: Assignment | None) -> Trajectory:
    """Scenario `row`, filmed as number `place`, from its start to its fall or the recording's end."""
    robot, episode = ROBOTS[recording.scenarios.robot], recording.scenarios.episodes[row]
    fell = int(recording.end[row]) < len(recording.velocity)
    # The step in which a robot falls is followed by its reset, so the last picture is the one before.
    last = int(recording.end[row]) if fell else len(recording.velocity)
    joint = recording.joint[:last, row].long()
    noticed = (joint != NOBODY).nonzero()
    step_dt = recording.step_dt
    faults = []
    onset = float(recording.onset[row]) * step_dt
    if episode.joint is not None and onset < last * step_dt:
        faults = [FaultMark(episode.joint, episode.kind, episode.severity, onset)]
    probability = recording.probability
    return Trajectory(
        qpos=recording.qpos[:last, place].double().numpy(),
        control_dt=step_dt,
        joint_names=robot.joint_names,
        title=title,
        command=recording.command[row].expand(last, 3).double().numpy(),
        velocity=recording.velocity[:last, row].double().numpy(),
        fault=faults,
        noticed=float(noticed[0]) * step_dt if len(noticed) else None,
        noticed_joint=robot.joint_names[int(joint[noticed[0]])] if len(noticed) else None,
        actor=_actors(joint, assignment, robot.joint_names),
        probability=probability[:last, row].double().numpy() if probability is not None else None,
        fell_at=last * step_dt if fell else None,
    )


def _actors(joint: torch.Tensor, assignment: Assignment | None, names: Sequence[str]) -> list[str]:
    serving = {j: m.name for m in assignment.members for j in m.joints} if assignment is not None else {}
    acting = ["healthy"] + [f"{serving[n]} specialist" if n in serving else "healthy" for n in names]
    return [acting[i + 1] for i in joint.tolist()]


def film(robot: str, panels: Sequence[Trajectory], path: Path, camera: str = "three_quarter") -> Path | None:
    """Writes a video; None, and a line that says what to install, where there is no OpenGL."""
    from koboshi.view.video import render_video

    if choose_gl() is None:
        console.print(f"no video: {gl_hint()}")
        return None
    spec = visual_spec(ROBOTS[robot])
    with progress(f"video {path.name}", 1, unit="frames") as update:
        render_video(spec, panels, path, camera=camera, progress=lambda done, total: update(done, total=total))
    return path


def cut(recording: Recording, seconds: float) -> Recording:
    """The recording's first `seconds`, for a shorter film."""
    steps = min(round(seconds / recording.step_dt), len(recording.velocity))
    names = ("velocity", "contact", "joint", "qpos", "probability", "severity")
    short = {n: getattr(recording, n)[:steps] for n in names if getattr(recording, n) is not None}
    return replace(recording, end=recording.end.clamp(max=steps), **short)
