"""`koboshi evaluate`: one controller under several routers on the same frozen scenarios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from koboshi import runs
from koboshi.bench.detection import detection_metrics, false_alarms, healthy_steps
from koboshi.bench.metrics import controller_metrics
from koboshi.bench.report import write_report
from koboshi.bench.rollout import Recording
from koboshi.bench.speed import controller_speed
from koboshi.envs import Env
from koboshi.errors import KoboshiError
from koboshi.faults import Scenarios, joint_sweep
from koboshi.robots import ROBOTS
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import HealthyRouter, OracleRouter
from koboshi.specialists.storage import StoredController
from koboshi.stages.collect import collect_env_cfg
from koboshi.stages.film import cut, film, trajectory
from koboshi.stages.progress import json_safe, progress, watched_rollout
from koboshi.tasks import TaskCfg
from koboshi.view import plots

FILMED = ("knee", "hip_pitch", "hip_roll")
"""Parts of joint names whose first scenarios are filmed."""
FILM_S = 12.0


def load(path: Path, task: TaskCfg) -> StoredController:
    """A controller file, checked against the task's robot and observations."""
    return StoredController(path, Env(replace(collect_env_cfg(task), num_envs=1)))


def frozen_scenarios(task: TaskCfg, path: Path | None, folder: Path) -> Scenarios:
    """The given file's scenarios, or the task's own, written to `folder/scenarios.json`."""
    robot, cfg = ROBOTS[task.env.robot], task.evaluate
    if path is not None:
        scenarios = Scenarios.load(path)
        if scenarios.robot != robot.name:
            raise KoboshiError(f"scenario file {path} is for robot '{scenarios.robot}', not '{robot.name}'")
        return scenarios
    joints = task.collect.schedule.joints or robot.fault_candidates
    scenarios = joint_sweep(robot, joints, cfg.episodes_a_joint, cfg.seed)
    scenarios.save(folder / "scenarios.json")
    return scenarios


def evaluate(task: TaskCfg, path: Path, folder: Path, scenario_file: Path | None = None) -> dict[str, Any]:
    """Writes `metrics.json`, `report.html`, plots and videos to `folder`; gives the metrics.

    Beside what bench.metrics and bench.detection define, `cost_us` is what a decision costs each robot of the batch,
    and `controller_us` what detector and router cost one robot alone on one core.
    """
    stored, seconds = load(path, task), task.evaluate.seconds
    scenarios = frozen_scenarios(task, scenario_file, folder)
    filmed = _filmed(scenarios)
    metrics: dict[str, Any] = {
        "task": task.name,
        "controller": str(path),
        "controller_sha256": runs.digest(path),
        "commit": runs.git_commit(),
        "scenario": {"hash": scenarios.hash, "episodes": len(scenarios.episodes), "seconds": seconds},
        "controllers": {},
    }
    kept: dict[str, Recording] = {}
    for name, controller in _controllers(stored, task).items():
        wanted = filmed if name in ("healthy", "learned") else ()
        recording = watched_rollout(
            f"evaluate {name}", task, controller, scenarios, seconds, detail=name == "learned", film=wanted
        )
        metrics["controllers"][name] = controller_metrics(recording, seconds) | {"cost_us": _cost_us(recording)}
        if name in ("healthy", "learned"):
            kept[name] = recording
    learned = metrics["controllers"]["learned"]
    learned |= detection_metrics(kept["learned"]) | _healthy_hours(task, stored.learned())
    learned |= controller_speed(task.env, stored.learned(), scenarios)
    metrics = json_safe(metrics)
    runs.write_json(folder / "metrics.json", metrics)
    videos = _videos(kept, filmed, folder, stored)
    _report(metrics, folder, videos)
    return metrics


def _controllers(stored: StoredController, task: TaskCfg) -> dict[str, Controller]:
    step_dt = task.env.step_dt
    found = {
        "healthy": Controller(stored.healthy, None, HealthyRouter()),
        "oracle": stored.routed_by(OracleRouter(step_dt)),
    }
    for delay in task.evaluate.oracle_delays_s:
        found[f"oracle_{delay * 1000:.0f}ms"] = stored.routed_by(OracleRouter(step_dt, delay))
    return found | {"learned": stored.learned()}


def _cost_us(recording: Recording) -> float:
    """µs that a decision takes for each robot of a batch."""
    return recording.decision_s / recording.joint.numel() * 1e6


def _healthy_hours(task: TaskCfg, controller: Controller) -> dict[str, float]:
    cfg, robots = task.evaluate, 512
    steps = healthy_steps(cfg.healthy_hours, task.env.step_dt, robots)
    with progress("false alarms", steps * robots) as update:
        return false_alarms(task.env, controller, cfg.healthy_hours, robots, cfg.seed + 1, lambda t: update(t * robots))


def _filmed(scenarios: Scenarios) -> tuple[int, ...]:
    """The first scenario of each kind of joint that is worth a look."""
    rows = []
    for part in FILMED:
        found = [i for i, e in enumerate(scenarios.episodes) if e.joint is not None and part in e.joint]
        rows += found[:1]
    return tuple(rows)


def _videos(
    kept: dict[str, Recording], filmed: Sequence[int], folder: Path, stored: StoredController
) -> list[tuple[str, Path]]:
    videos = []
    for place, row in enumerate(filmed):
        panels = [
            trajectory(cut(kept["learned"], FILM_S), place, row, "koboshi", stored.assignment),
            trajectory(cut(kept["healthy"], FILM_S), place, row, "without the switch", None),
        ]
        joint = kept["learned"].scenarios.episodes[row].joint
        path = film(kept["learned"].scenarios.robot, panels, folder / "video" / f"{joint}.mp4")
        if path is not None:
            videos.append((f"{joint} dead: with and without the switch", path))
    return videos


def _report(metrics: dict[str, Any], folder: Path, videos: list[tuple[str, Path]]) -> None:
    delays = metrics["controllers"]["learned"]["delays_ms"]
    pictures = [
        ("Mean survival", plots.survival_mean_bars(metrics, folder / "survival.png")),
        ("From failure to switch", plots.delay_cdf({"learned": delays}, folder / "delay.png")),
    ]
    title = f"{metrics['task']}: one joint dead"
    write_report(folder / "report.html", title=title, metrics=metrics, pictures=pictures, videos=videos)
