"""`koboshi data` and `koboshi detector`: look at data sets, train a detector on them, judge one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from koboshi import data, runs
from koboshi.data import Dataset
from koboshi.detect import (
    AlarmCfg,
    DetectorSpec,
    FaultDetector,
    Mirror,
    calibrate,
    evaluate_detector,
    judge_all,
    load_detector,
    picture,
    save_detector,
    train_detector,
)
from koboshi.envs import Env
from koboshi.errors import KoboshiError
from koboshi.stages.collect import collect_env_cfg, dataset_card
from koboshi.stages.progress import json_safe, progress
from koboshi.tasks import TaskCfg
from koboshi.tasks.task import DetectorStageCfg

FILE = "detector.safetensors"


def inspect(paths: Sequence[Path], split: float | None, seed: int = 0) -> dict[str, Any]:
    """Statistics (also `statistics.json` and `.png` beside the first data set), checks, and perhaps a split."""
    dataset = Dataset.open(paths)
    sequences = dataset.sequences()
    statistics = data.statistics(sequences)
    runs.write_json(paths[0] / "statistics.json", json_safe(statistics))
    data.picture(statistics, paths[0] / "statistics.png")
    data.check(sequences)
    if split is not None:
        statistics["test_rows"] = sum(int(test.sum()) for test in data.split(dataset, split, seed))
        runs.write_json(paths[0] / "statistics.json", json_safe(statistics))
    return statistics


def detector_spec(task: TaskCfg) -> DetectorSpec:
    """What a detector of this task listens to."""
    env = Env(replace(collect_env_cfg(task), num_envs=1))
    return DetectorSpec.from_card(dataset_card(task, env, None, "healthy", 0))


def load_for(task: TaskCfg, path: Path) -> tuple[FaultDetector, AlarmCfg]:
    """A detector for this task; KoboshiError where it listens to another robot, layout, rate or PD law."""
    mine = detector_spec(task)
    model, alarm, _ = load_detector(path, expect_robot=mine.robot, expect_layout=mine.layout_hash)
    for name in ("control_dt", "pd"):
        if getattr(model.spec, name) != getattr(mine, name):
            raise KoboshiError(
                f"detector {path} was made for {name} {getattr(model.spec, name)}, not {getattr(mine, name)}"
            )
    return model, alarm


def mirror_of_detector(env: Env) -> Mirror:
    """The mirror of the detector's observations and of its joints."""
    ids, signs = env.mirror("detector")
    return Mirror(ids, signs, torch.as_tensor(env.robot.mirror_ids))


def train(task: TaskCfg, paths: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Trains on the training episodes, calibrates the alarms, judges the test episodes; files go to `folder`.

    A kill loses at most a few hundred iterations.
    """
    env = Env(replace(collect_env_cfg(task), num_envs=1))
    layout = dataset_card(task, env, None, "healthy", 0).layout_hash
    sequences = Dataset.open(paths, expect_robot=task.env.robot, expect_layout=layout).sequences()
    data.check(sequences)
    mirror = mirror_of_detector(env)
    cfg = task.detector
    with progress("train detector", 1, unit="iterations") as update:

        def report(step: int, total: int, values: dict[str, float]) -> None:
            update(step, total=total, **{"loss": values["loss"]})

        model = train_detector(
            sequences,
            cfg.network,
            cfg.training,
            mirror,
            report,
            checkpoint=folder / "training.safetensors",
        )
    alarm = _calibrated(model, sequences, cfg)
    meta = {"data": [str(p) for p in paths], "seed": cfg.training.seed, "commit": runs.git_commit()}
    save_detector(folder / FILE, model, alarm, meta)
    figures = _judge(model, sequences, alarm, folder)
    # Last, so that a kill before does not cost the training.
    (folder / "training.safetensors").unlink(missing_ok=True)
    return figures


def _calibrated(model: FaultDetector, sequences: list[data.Sequences], cfg: DetectorStageCfg) -> AlarmCfg:
    """Alarms set on all episodes: rare false alarms need more hours than the test episodes hold."""
    return calibrate(judge_all(model, sequences), cfg.alarm, cfg.false_alarms_per_hour)


def evaluate(detector: Path, paths: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Figures of a detector on the test episodes of data sets (all episodes where there is no split)."""
    model, alarm, _ = load_detector(detector)
    dataset = Dataset.open(paths, expect_robot=model.spec.robot, expect_layout=model.spec.layout_hash)
    return _judge(model, dataset.sequences(), alarm, folder)


def _judge(model: FaultDetector, sequences: list[data.Sequences], alarm: AlarmCfg, folder: Path) -> dict[str, Any]:
    has_split = any(bool(s.test.any()) for s in sequences)
    result: dict[str, Any] = json_safe(evaluate_detector(model, sequences, alarm, test_only=has_split))
    runs.write_json(folder / "detector.json", result)
    picture(result, folder / "detector.png")
    return result
