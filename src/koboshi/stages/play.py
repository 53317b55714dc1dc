"""`koboshi play` and `koboshi demo`: a checkpoint on real physics, to look at."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from rich.table import Table

from koboshi import config, runs
from koboshi.bench.detection import detection_metrics
from koboshi.bench.metrics import controller_metrics
from koboshi.bench.report import write_report
from koboshi.bench.rollout import Recording
from koboshi.envs import Env
from koboshi.errors import KoboshiError, unknown
from koboshi.faults import KINDS, Scenario, Scenarios, joint_sweep
from koboshi.robots import ROBOTS, Robot
from koboshi.runs import load_checkpoint
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import HealthyRouter
from koboshi.specialists.storage import StoredController, load_healthy
from koboshi.stages import evaluate as evaluating
from koboshi.stages.collect import collect_env_cfg
from koboshi.stages.film import cut, film, trajectory
from koboshi.stages.folders import CONFIG, label
from koboshi.stages.progress import console, json_safe, watched_rollout
from koboshi.tasks import TaskCfg, make_task
from koboshi.view.video import camera_named

DEMO_EPISODES_A_JOINT = 2
DEMO_JOINT, DEMO_ONSET_S, DEMO_SECONDS = "left_knee", 3.0, 12.0
DEMO_SPEED = (0.8, 0.0, 0.0)

FIGURES = (
    "survival_mean", "survival_worst", "vx_rmse", "yaw_rmse", "progress", "recovery",
    "delay_ms_median", "delay_ms_p95", "missed", "false_alarms_per_hour", "macro_f1", "cost_us", "controller_us",
)  # fmt: skip
"""Keys of `metrics.json` that the table in the terminal shows."""


def parse_fault(text: str, robot: Robot) -> tuple[str, str, float, float]:
    """`joint@seconds[:kind[:severity]]` -> joint, kind, severity, onset s."""
    joint, at, rest = text.partition("@")
    onset, *more = rest.split(":")
    robot.joint_id(joint)
    kind = more[0] if more else "torque_loss"
    if kind not in KINDS:
        raise unknown("fault kind", kind, KINDS)
    try:
        time, severity = float(onset), float(more[1]) if len(more) > 1 else 1.0
    except ValueError:
        raise KoboshiError(f"'{text}' is not a fault; write joint@seconds[:kind[:severity]], left_knee@3.0") from None
    if not at or not 0 <= time < math.inf or not 0 < severity <= 1 or len(more) > 2:
        raise KoboshiError(f"'{text}' is not a fault: time ≥ 0 s, severity above 0 and at most 1")
    return joint, kind, severity, time


def task_of(checkpoint: Path) -> TaskCfg:
    """The task that a policy or a controller was made for, with the settings that its run was made with."""
    meta = load_checkpoint(checkpoint)[1]
    if meta.get("kind") not in ("policy", "controller"):
        raise KoboshiError(f"{checkpoint} holds a {meta.get('kind')}, and a policy or a controller is wanted")
    task = make_task(meta.get("task", "(none)"))
    for folder in (checkpoint.parent, checkpoint.parent.parent):
        if (folder / CONFIG).is_file():
            return config.load_yaml(folder / CONFIG, task)
    return task


def load_any(checkpoint: Path, task: TaskCfg) -> tuple[Controller, Any]:
    """A controller from a controller file or any policy checkpoint, and its table of specialists if it has one."""
    kind = load_checkpoint(checkpoint)[1].get("kind")
    env = Env(replace(collect_env_cfg(task), num_envs=1))
    if kind == "controller":
        stored = StoredController(checkpoint, env)
        return stored.learned(), stored.assignment
    return Controller(load_healthy(checkpoint, env)[0], None, HealthyRouter()), None


def play(
    checkpoint: Path, fault: str | None, command: tuple[float, float, float], seconds: float, camera: str, video: Path
) -> dict[str, Any]:
    """Films one robot for `seconds`; says what happened."""
    camera_named(camera)
    if not 0 < seconds < math.inf:
        raise KoboshiError(f"--seconds must be above 0, not {seconds}")
    task = task_of(checkpoint)
    robot = ROBOTS[task.env.robot]
    joint, kind, severity, onset = parse_fault(fault, robot) if fault else (None, "torque_loss", 0.0, 0.0)
    scenarios = Scenarios(robot.name, 1, (Scenario(joint, kind, severity, onset, command),))
    controller, assignment = load_any(checkpoint, task)
    recording = watched_rollout("play", task, controller, scenarios, max(seconds - onset, 1.0), detail=True, film=(0,))
    panel = trajectory(recording, 0, 0, label(checkpoint), assignment)
    switched = None if panel.noticed is None else f"{panel.noticed_joint} at {panel.noticed:.2f} s"
    return {"fell_at_s": panel.fell_at, "switched_to": switched, "video": film(robot.name, [panel], video, camera)}


def shipped(task: TaskCfg) -> StoredController:
    """The controller that the package carries."""
    with as_file(files("koboshi").joinpath("assets/h1_walk/controller.safetensors")) as path:
        if not path.exists():
            raise KoboshiError(f"the shipped controller {path} is missing; make one: koboshi pipeline h1-walk")
        return evaluating.load(path, task)


def demo_scenario(robot: Robot) -> Scenarios:
    """The episode that the demo films."""
    return Scenarios(robot.name, 7, (Scenario(DEMO_JOINT, "torque_loss", 1.0, DEMO_ONSET_S, DEMO_SPEED),))


def demo(folder: Path) -> dict[str, Any]:
    """The shipped H1 controller through a set of faults: a table, metrics, a video and a report."""
    task = make_task("h1-walk")
    stored = shipped(task)
    commit = stored.meta["commit"]
    robot = ROBOTS[task.env.robot]
    sweep = joint_sweep(robot, robot.fault_candidates, DEMO_EPISODES_A_JOINT, seed=7)
    scenarios = Scenarios(robot.name, 7, (*demo_scenario(robot).episodes, *sweep.episodes))
    recordings, metrics = {}, {"task": task.name, "commit": commit, "controllers": {}}
    metrics["scenario"] = {"hash": scenarios.hash, "episodes": len(scenarios.episodes), "seconds": 10.0}
    controllers = {"healthy": Controller(stored.healthy, None, HealthyRouter()), "learned": stored.learned()}
    for name, controller in controllers.items():
        recordings[name] = watched_rollout(f"demo {name}", task, controller, scenarios, 10.0, detail=True, film=(0,))
        metrics["controllers"][name] = controller_metrics(recordings[name], 10.0)
    metrics["controllers"]["learned"] |= detection_metrics(recordings["learned"])
    metrics = json_safe(metrics)
    console.print(controllers_table(metrics))
    runs.write_json(folder / "metrics.json", metrics)
    video = _demo_film(recordings, stored, folder / "video.mp4")
    videos = [("left: koboshi; right: the same robot without the switch", video)] if video else []
    write_report(folder / "report.html", title="An H1 that keeps walking", metrics=metrics, videos=videos)
    return metrics


def _demo_film(recordings: dict[str, Recording], stored: StoredController, path: Path) -> Path | None:
    titles = {"learned": ("koboshi", stored.assignment), "healthy": ("without the switch", None)}
    panels = [
        trajectory(cut(recordings[name], DEMO_SECONDS), 0, 0, title, assignment)
        for name, (title, assignment) in titles.items()
    ]
    return film(recordings["learned"].scenarios.robot, panels, path)


def controllers_table(metrics: dict[str, Any]) -> Table:
    """The figures of `metrics.json` to read in a terminal."""
    table = Table(title=f"{metrics['task']}: {metrics['scenario']['episodes']} episodes, one joint dead")
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
