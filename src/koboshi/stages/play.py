"""`koboshi play` and `koboshi demo`: a checkpoint on real physics, to look at."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from rich.table import Table

from koboshi import config, robots, runs
from koboshi.bench.detection import detection_metrics
from koboshi.bench.metrics import COURSE, controller_metrics
from koboshi.bench.report import write_report
from koboshi.bench.rollout import Recording
from koboshi.errors import KoboshiError
from koboshi.faults import Fault, Scenario, Scenarios, sweep
from koboshi.policies.storage import check_layouts
from koboshi.robots import Robot
from koboshi.specialists.assignment import Assignment
from koboshi.specialists.controller import Controller
from koboshi.specialists.storage import StoredController, load_healthy
from koboshi.stages import evaluate as evaluating
from koboshi.stages.film import check_film, film, trajectory
from koboshi.stages.folders import label, task_of
from koboshi.stages.progress import console, json_safe, watched_rollout
from koboshi.tasks import TaskCfg, make_task
from koboshi.view import plots
from koboshi.view.video import camera_named

DEMO_EPISODES_A_JOINT = 2
DEMO_SECONDS = 10.0
DEMO_SEED = 7
ASSET = "controller.safetensors"
WRITTEN_AS = (
    "joint@seconds[:kind[:severity[:duration[:period]]]], left_knee@3.0, left_knee@3.0:braking:0.5:2.0 or, "
    "coming and going, left_knee@3.0:torque_loss:1:0.5:1.5"
)

FIGURES = (
    "survival_mean", "survival_worst", "fell_before_onset", "vx_rmse", "vy_rmse", "yaw_rmse", "progress", *COURSE,
    "recovery", "duty_difference", "delay_ms_median", "delay_ms_p95", "switch_ms_median", "switch_ms_p95", "missed",
    "false_alarms_per_hour", "macro_f1", "cost_us", "controller_us", "controller_gru_ratio",
)  # fmt: skip
"""Keys of `metrics.json` that the table in the terminal shows."""


def parse_fault(text: str, robot: Robot) -> Fault:
    """`joint@seconds[:kind[:severity[:duration[:period]]]]`; KoboshiError where that cannot happen to the robot."""
    joint, at, rest = text.partition("@")
    onset, *more = rest.split(":")
    if not at or len(more) > 4:
        raise KoboshiError(f"'{text}' is not a fault; write {WRITTEN_AS}")
    kind: Any = more[0] if more else "torque_loss"
    try:
        seconds, numbers = float(onset), [float(text) for text in more[1:]]
    except ValueError:
        raise KoboshiError(f"'{text}' is not a fault; write {WRITTEN_AS}") from None
    fault = Fault(
        joint, kind, onset_s=seconds, **dict(zip(("severity", "duration_s", "period_s"), numbers, strict=False))
    )
    fault.check(robot)
    return fault


def load_any(checkpoint: Path, task: TaskCfg) -> tuple[Controller, Assignment | None]:
    """A controller from a controller file or any policy checkpoint, and its table of specialists if it has one."""
    if evaluating.is_controller(checkpoint):
        stored = evaluating.load(checkpoint, task)
        return stored.learned(), stored.assignment
    return evaluating.policy_alone(checkpoint, task), None


def play(
    checkpoint: Path,
    faults: Sequence[str],
    command: tuple[float, float, float],
    seconds: float,
    camera: str,
    video: Path,
    overrides: Sequence[str] = (),
    cell: tuple[str, int] | None = None,
) -> dict[str, Any]:
    """Films one robot for `seconds`, and draws its timeline beside the video; says what happened.

    `overrides` change the world that it was trained in; scenarios know no pushes, time-outs or other commands. `cell`:
    type and level of the ground that it begins on.
    """
    camera_named(camera)
    check_film(video)
    if not 0 < seconds < math.inf:
        raise KoboshiError(f"--seconds must be above 0, not {seconds}")
    task = config.override(task_of(checkpoint), overrides)
    robot = robots.find(task.env.robot)
    found = tuple(parse_fault(text, robot) for text in faults)
    start = min((fault.onset_s for fault in found), default=0.0)
    scenarios = Scenarios(robot.name, 1, (Scenario(found, command, start),))
    scenarios.validate()
    controller, assignment = load_any(checkpoint, task)
    begin = None if cell is None else lambda env: env.scene.levels.stand_on(*cell)
    recording = watched_rollout(
        "play", task, controller, scenarios, max(seconds - start, 1.0), detail=True, film=(0,), begin=begin
    )
    panel = trajectory(recording, 0, label(checkpoint), assignment)
    picture = video.with_suffix(".png")
    plots.timeline(panel, picture)
    return {
        "fell_at_s": panel.fell_at,
        "noticed": ", ".join(f"{alarm.joint} at {alarm.time:.2f} s" for alarm in panel.alarms) or None,
        "switched_to": _first_switch(panel.actor, recording.step_dt),
        "video": film(task.env, [panel], video, camera),
        "timeline": picture,
    }


def _first_switch(actors: Sequence[str], step_dt: float) -> str | None:
    return next((f"{name} at {i * step_dt:.2f} s" for i, name in enumerate(actors) if name != "healthy"), None)


def shipping() -> list[str]:
    """The tasks whose controller the package carries."""
    folders = (folder for folder in files("koboshi").joinpath("assets").iterdir() if folder.is_dir())
    return sorted(folder.name.replace("_", "-") for folder in folders if folder.joinpath(ASSET).is_file())


@contextmanager
def _asset(task: TaskCfg) -> Iterator[Path]:
    """The file of the controller that the package carries for the task; KoboshiError where it carries none."""
    asset = files("koboshi").joinpath("assets", task.name.replace("-", "_"), ASSET)
    if not asset.is_file():
        raise KoboshiError(
            f"no controller of task '{task.name}' is shipped, only of: {', '.join(shipping()) or '(none)'}; "
            f"make one: koboshi pipeline {task.name}"
        )
    with as_file(asset) as path:
        yield path


def shipped(task: TaskCfg) -> StoredController:
    """The controller that the package carries for the task; KoboshiError where it carries none."""
    with _asset(task) as path:
        return evaluating.load(path, task)


def shipped_walker(task: TaskCfg) -> Controller:
    """Its healthy policy alone, whatever kinds of fault there are beside those that its specialists know."""
    env = evaluating.loading_env(task)
    with _asset(task) as path:
        healthy, meta = load_healthy(path)
        check_layouts(meta, env, path)
    return evaluating.healthy_alone(healthy.to(env.device).single(), len(env.robot.joint_names))


def demo_scenarios(task: TaskCfg) -> Scenarios:
    """A few episodes of what may break in the task, each joint in turn."""
    robot = robots.find(task.env.robot)
    if task.faults is None:
        raise KoboshiError(f"task '{task.name}' has no faults, and the demo shows a robot that breaks")
    return sweep(
        robot, task.faults.candidates(robot), DEMO_EPISODES_A_JOINT, DEMO_SEED,
        faults=task.faults, commands=task.evaluate.commands, onset_s=task.evaluate.onset_s,
    )  # fmt: skip


def demo(folder: Path, name: str = "h1-walk", overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A shipped controller through a set of faults: a table, metrics, a video and a report."""
    task = config.override(make_task(name), overrides)
    stored, scenarios = shipped(task), demo_scenarios(task)
    metrics: dict[str, Any] = {"task": task.name, "commit": stored.meta["commit"], "controllers": {}}
    metrics["changed"] = config.diff(make_task(name), task)
    metrics["scenario"] = {"hash": scenarios.hash, "episodes": len(scenarios.episodes), "seconds": DEMO_SECONDS}
    healthy = evaluating.healthy_alone(stored.healthy, len(stored.robot.joint_names))
    recordings = {}
    for each, controller in {"healthy": healthy, "learned": stored.learned()}.items():
        candidates = evaluating.film_candidates(scenarios)
        recording = watched_rollout(
            f"demo {each}", task, controller, scenarios, DEMO_SECONDS, detail=True, film=candidates
        )
        recordings[each], metrics["controllers"][each] = recording, controller_metrics(recording, DEMO_SECONDS)
    metrics["controllers"]["learned"] |= detection_metrics(recordings["learned"], stored.assignment)
    metrics = json_safe(metrics)
    console.print(controllers_table(metrics))
    runs.write_json(folder / "metrics.json", metrics)
    row = showcase(recordings)
    videos, timelines = evaluating.side_by_side(task.env, recordings, [row], folder, stored.assignment)
    if videos:
        # The one video has a fixed name.
        videos = [(videos[0][0], videos[0][1].replace(folder / "video.mp4"))]
    write_report(
        folder / "report.html", title=f"{task.name}: a robot that keeps moving", metrics=metrics, videos=videos,
        pictures=timelines,
    )  # fmt: skip
    return metrics


def showcase(recordings: dict[str, Recording]) -> int:
    """The filmed scenario that the controller survives and the healthy policy, falling, survives the shortest."""
    learned, healthy = recordings["learned"], recordings["healthy"]
    steps = len(learned.velocity)
    best = [row for row in learned.filmed if int(learned.end[row]) == steps] or list(learned.filmed)
    return min(best, key=lambda row: int(healthy.end[row] - healthy.onset[row]))


def controllers_table(metrics: dict[str, Any]) -> Table:
    """The figures of `metrics.json` to read in a terminal."""
    table = Table(title=f"{metrics['task']}: {metrics['scenario']['episodes']} episodes")
    table.add_column("")
    for name in metrics["controllers"]:
        table.add_column(name.replace("_", " "), justify="right")
    for key in FIGURES:
        cells = [figures.get(key) for figures in metrics["controllers"].values()]
        if any(cell is not None for cell in cells):
            table.add_row(key.replace("_", " "), *(_cell(cell) for cell in cells))
    return table


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "–"
