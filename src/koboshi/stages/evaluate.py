"""`koboshi evaluate`: a controller under several routers, or one policy, on the same frozen scenarios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from koboshi import config, robots, runs
from koboshi.bench.detection import detection_metrics, false_alarms, healthy_steps
from koboshi.bench.metrics import controller_metrics, episode_rows, gait_metrics, paired
from koboshi.bench.report import write_report
from koboshi.bench.rollout import Recording
from koboshi.bench.speed import controller_speed
from koboshi.bench.worlds import in_world
from koboshi.envs import Env, EnvCfg
from koboshi.errors import KoboshiError
from koboshi.faults import Scenarios, sweep
from koboshi.policies.storage import load_single
from koboshi.specialists.assignment import Assignment
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import HealthyRouter, OracleRouter
from koboshi.specialists.storage import StoredController
from koboshi.stages.film import cut, film, trajectory
from koboshi.stages.folders import task_of
from koboshi.stages.progress import json_safe, progress, watched_rollout
from koboshi.tasks import TaskCfg
from koboshi.vec_env import Policy
from koboshi.view import plots

FILMED = 3
"""Scenarios that are filmed: of the joints that the healthy policy survives least."""
FILM_S = 12.0
FALSE_ALARM_ROBOTS = 512
PAIRS = (("learned", "oracle"), ("learned", "healthy"))
"""Controllers that are compared on the episodes that both survive."""


def loading_env(task: TaskCfg) -> Env:
    """A single environment to check files against: robot, observations, actions, device."""
    return Env(replace(task.env, num_envs=1))


def load(path: Path, task: TaskCfg) -> StoredController:
    """A controller file, checked against the task's robot and observations."""
    return StoredController(path, loading_env(task))


def policy_alone(path: Path, task: TaskCfg) -> Controller:
    """A policy's checkpoint as a controller that never switches."""
    env = loading_env(task)
    return healthy_alone(load_single(path, env)[0].single(), len(env.robot.joint_names))


def healthy_alone(policy: Policy, num_joints: int) -> Controller:
    """A policy as a controller that never switches."""
    return Controller(policy, None, HealthyRouter(num_joints))


def is_controller(path: Path) -> bool:
    """Whether a file holds a whole controller; otherwise it holds a policy."""
    return runs.load_checkpoint(path)[1].get("kind") == "controller"


def frozen_scenarios(task: TaskCfg, path: Path | None, folder: Path) -> Scenarios:
    """The given file's scenarios, or the task's own, written to `folder/scenarios.json`.

    A task without faults has as many episodes as it would have with them, and commands alone differ.
    """
    robot, cfg = robots.find(task.env.robot), task.evaluate
    if path is not None:
        scenarios = Scenarios.load(path)
        if scenarios.robot != robot.name:
            raise KoboshiError(f"scenario file {path} is for robot '{scenarios.robot}', not '{robot.name}'")
        return scenarios
    about: dict[str, Any] = {"commands": cfg.commands, "onset_s": cfg.onset_s}
    if task.faults is None:
        count = cfg.episodes_a_joint * len(robot.fault_candidates)
        scenarios = sweep(robot, (None,), count, cfg.seed, **about)
    else:
        faults = task.faults
        if cfg.single:
            faults = replace(faults.one_at_a_time(), duration_s=None, pause_s=None)
        scenarios = sweep(robot, faults.candidates(robot), cfg.episodes_a_joint, cfg.seed, faults=faults, **about)
    scenarios.save(folder / "scenarios.json")
    return scenarios


def evaluate(
    task: TaskCfg, path: Path, folder: Path, scenario_file: Path | None = None, world: str | None = None
) -> dict[str, Any]:
    """Writes `metrics.json`, `episodes.json`, `report.html`, plots and videos to `folder`; gives the metrics.

    `path` is a controller's file or any policy's checkpoint. Beside what bench.metrics and bench.detection define,
    `cost_us` is what a decision costs each robot of the batch, and `controller_us` what detector and router cost
    one robot alone on one core; `changed` says where the task differs from the one trained in, `world` which of
    `bench.worlds` it was judged in (null: the task's own).
    """
    there = task if world is None else replace(task, env=in_world(task.env, world))
    stored = load(path, task) if is_controller(path) else None
    controllers = _routed(stored, task) if stored is not None else {"healthy": policy_alone(path, task)}
    scenarios, seconds = frozen_scenarios(task, scenario_file, folder), task.evaluate.seconds
    recordings: dict[str, Recording] = {}
    metrics: dict[str, Any] = {
        "task": task.name,
        "controller": str(path),
        "controller_sha256": runs.digest(path),
        "commit": runs.git_commit(),
        "changed": config.diff(task_of(path), task),
        "world": world,
        "scenario": {"hash": scenarios.hash, "episodes": len(scenarios.episodes), "seconds": seconds},
        "controllers": {},
    }
    rows = {}
    for name, controller in controllers.items():
        shown = name in ("healthy", "learned")
        recording = watched_rollout(
            f"evaluate {name}", task, controller, scenarios, seconds,
            world=world, detail=name == "learned", film=film_candidates(scenarios) if shown else (),
        )  # fmt: skip
        metrics["controllers"][name] = _figures(recording, seconds)
        rows[name] = episode_rows(recording, seconds)
        if shown:
            recordings[name] = recording
    metrics["differences"] = {f"{a} - {b}": paired(rows[a], rows[b]) for a, b in PAIRS if a in rows and b in rows}
    if stored is not None:
        metrics["controllers"]["learned"] |= _switch_figures(there, stored, recordings["learned"])
        metrics["controllers"]["learned"] |= controller_speed(task.env, stored.learned(), scenarios)
    metrics = json_safe(metrics)
    runs.write_json(folder / "metrics.json", metrics)
    episodes = {name: found.to_dict() for name, found in rows.items()}
    runs.write_json(folder / "episodes.json", {"scenario": scenarios.hash, "controllers": episodes})
    _report(there, metrics, recordings, folder, stored.assignment if stored is not None else None, path)
    return metrics


def _routed(stored: StoredController, task: TaskCfg) -> dict[str, Controller]:
    def oracle(delay: float) -> Controller:
        return stored.routed_by(OracleRouter(stored.assignment, stored.robot, task.env.step_dt, delay))

    found = {"healthy": healthy_alone(stored.healthy, len(stored.robot.joint_names)), "oracle": oracle(0.0)}
    found |= {f"oracle_{delay * 1000:.0f}ms": oracle(delay) for delay in task.evaluate.oracle_delays_s}
    return found | {"learned": stored.learned()}


def _figures(recording: Recording, seconds: float) -> dict[str, Any]:
    spent = recording.decision_s
    cost = None if spent is None else spent / recording.member.numel() * 1e6
    return controller_metrics(recording, seconds) | gait_metrics(recording, seconds) | {"cost_us": cost}


def _switch_figures(task: TaskCfg, stored: StoredController, recording: Recording) -> dict[str, Any]:
    return detection_metrics(recording, stored.assignment) | _healthy_hours(task, stored.learned())


def _healthy_hours(task: TaskCfg, controller: Controller) -> dict[str, float]:
    cfg, count = task.evaluate, FALSE_ALARM_ROBOTS
    steps = healthy_steps(cfg.healthy_hours, task.env.step_dt, count)
    with progress("false alarms", steps * count) as update:
        return false_alarms(task.env, controller, cfg.healthy_hours, count, cfg.seed + 1, lambda t: update(t * count))


def film_candidates(scenarios: Scenarios) -> tuple[int, ...]:
    """The first scenario of each joint that fails, or the first of all where none does."""
    first: dict[str, int] = {}
    for i, episode in enumerate(scenarios.episodes):
        for fault in episode.faults[:1]:
            first.setdefault(fault.joint, i)
    return tuple(first.values()) or (0,)


def worth_a_look(recordings: dict[str, Recording], by_joint: dict[str, float | None]) -> list[int]:
    """The filmed scenarios of the joints that the healthy policy survives least, at most FILMED."""
    healthy = recordings["healthy"]

    def survival(row: int) -> float:
        faults = healthy.scenarios.episodes[row].faults
        share = by_joint.get(faults[0].joint) if faults else None
        return 1.0 if share is None else share

    return sorted(healthy.filmed, key=survival)[:FILMED]


def _panels(recordings: dict[str, Recording], row: int, assignment: Assignment | None) -> list[Any]:
    tables = {"learned": ("koboshi", assignment), "healthy": ("without the switch", None)}
    if "learned" not in recordings:
        tables = {"healthy": ("policy", None)}
    return [trajectory(cut(recordings[n], FILM_S), row, title, table) for n, (title, table) in tables.items()]


def side_by_side(
    cfg: EnvCfg, recordings: dict[str, Recording], rows: Sequence[int], folder: Path, assignment: Assignment | None
) -> tuple[list[tuple[str, Path]], list[tuple[str, bytes]]]:
    """(caption, video) and (caption, timeline as PNG) of filmed scenarios; cfg: the environment they were run in."""
    videos, timelines = [], []
    for row in rows:
        faults = recordings["healthy"].scenarios.episodes[row].faults
        words = " and ".join(f"{fault.joint}: {fault.kind.replace('_', ' ')}" for fault in faults) or "nothing breaks"
        name = "-".join(fault.joint for fault in faults) or "healthy"
        panels = _panels(recordings, row, assignment)
        path = film(cfg, panels, folder / "video" / f"{name}.mp4")
        if path is not None:
            videos.append((words, path))
        timelines.append((words, plots.timeline(panels[0], folder / "video" / f"{name}.png")))
    return videos, timelines


def learning_log(path: Path) -> Path | None:
    """What was logged while the policy of a run's checkpoint, or a pipeline's healthy policy, was trained."""
    logs = (path.parent.parent / "metrics.jsonl", path.parent / "healthy" / "metrics.jsonl")
    return next((log for log in logs if log.is_file() and log.stat().st_size), None)


def _report(
    task: TaskCfg,
    metrics: dict[str, Any],
    recordings: dict[str, Recording],
    folder: Path,
    assignment: Assignment | None,
    path: Path,
) -> None:
    rows = worth_a_look(recordings, metrics["controllers"]["healthy"]["survival_by_joint"])
    videos, timelines = side_by_side(task.env, recordings, rows, folder, assignment)
    pictures = [("Mean survival", plots.survival_mean_bars(metrics, folder / "survival.png"))]
    learned = metrics["controllers"].get("learned")
    if learned is not None:
        found = {"alarm": learned["delays_ms"], "switch": learned["switches_ms"]}
        pictures.append(("From failure to alarm and switch", plots.delay_cdf(found, folder / "delay.png")))
    log = learning_log(path)
    if log is not None:
        pictures.append(("Learning", plots.learning_curve(log, folder / "learning.png")))
    title = f"{metrics['task']}: {metrics['scenario']['episodes']} episodes"
    write_report(folder / "report.html", title=title, metrics=metrics, pictures=[*pictures, *timelines], videos=videos)
