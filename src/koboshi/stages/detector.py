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
    COLUMNS,
    GROUP,
    AlarmCfg,
    Detector,
    DetectorSpec,
    Mirror,
    calibrate,
    evaluate_detector,
    judge_all,
    load_detector,
    picture,
    save_detector,
    train_detector,
)
from koboshi.devices import local_device
from koboshi.envs import Env
from koboshi.errors import KoboshiError
from koboshi.nets.distributed import init_from_environment, sum_over_ranks
from koboshi.stages.collect import collect_env_cfg, collection, dataset_card
from koboshi.stages.progress import console, json_safe, progress
from koboshi.tasks import TaskCfg
from koboshi.tasks.task import required

FILE = "detector.safetensors"


def shares(task: TaskCfg) -> tuple[float, float]:
    """The task's shares of calibrate and test episodes."""
    cfg = collection(task)
    return cfg.calibrate_fraction, cfg.test_fraction


def inspect(paths: Sequence[Path], split: tuple[float, float] | None, seed: int = 0) -> dict[str, Any]:
    """Statistics (also `statistics.json` and `.png` beside the first data set), checks, and perhaps a new split.

    `split`: shares of the calibrate and of the test episodes.
    """
    dataset = Dataset.open(paths)
    sequences = dataset.sequences()
    data.check(sequences)
    if split is not None:
        data.draw_split(dataset, *split, seed)
        sequences = dataset.sequences()
    statistics = data.statistics(sequences)
    runs.write_json(paths[0] / "statistics.json", json_safe(statistics))
    data.picture(statistics, paths[0] / "statistics.png")
    return statistics


def detector_spec(task: TaskCfg) -> DetectorSpec:
    """What a detector of this task listens to."""
    env = Env(replace(collect_env_cfg(task), num_envs=1))
    return DetectorSpec.from_card(dataset_card(task, env, None, "healthy", 0))


def load_for(task: TaskCfg, path: Path, device: torch.device | str | None = None) -> tuple[Detector, AlarmCfg]:
    """A detector for this task, on the device (default: where the task's physics are).

    KoboshiError where it listens to another robot, layout, rate or actuators' law, or knows nothing of a joint that
    may fail.
    """
    mine = detector_spec(task)
    where = local_device(task.env.sim.device) if device is None else device
    model, alarm, _ = load_detector(path, expect_robot=mine.robot, expect_layout=mine.layout_hash, device=where)
    for name in ("control_dt", "law"):
        if getattr(model.spec, name) != getattr(mine, name):
            raise KoboshiError(
                f"detector {path} was made for {name} {getattr(model.spec, name)}, not {getattr(mine, name)}"
            )
    unknown_to_it = [name for name in mine.candidates if name not in model.spec.candidates]
    if unknown_to_it:
        raise KoboshiError(f"detector {path} was not trained to notice {', '.join(unknown_to_it)}")
    strange = [kind for kind in mine.kinds if kind not in model.spec.kinds]
    if strange:
        raise KoboshiError(f"detector {path} was not trained on faults of kind {', '.join(strange)}")
    return model, alarm


def mirror_of_detector(env: Env) -> Mirror:
    """The mirror of the detector's observations and of its joints."""
    ids, signs = env.mirror_map((GROUP,)).obs[GROUP]
    return Mirror(ids, signs, torch.as_tensor(env.robot.mirror_ids))


def train(task: TaskCfg, paths: Sequence[Path], folder: Path, load: Path | None = None) -> dict[str, Any]:
    """Trains on the train episodes, calibrates alarms on the calibrate ones, judges the test ones; files in `folder`.

    `load`: a detector whose weights it begins with; KoboshiError where it was trained on these data with another split.
    Data sets without a split get one with the task's shares, and the terminal says so: what is called a test
    afterwards was never trained on. A kill loses at most a few hundred iterations. Under `torchrun` all ranks train;
    the first one writes.
    """
    rank, _ = init_from_environment()
    env = Env(replace(collect_env_cfg(task), num_envs=1))
    card = dataset_card(task, env, None, "healthy", 0)
    dataset = Dataset.open(paths, expect_robot=card.robot, expect_layouts={GROUP: card.layout_hash(GROUP)})
    DetectorSpec.from_cards([part.card for part in dataset.folders])  # refused before a split is drawn
    sequences = _prepared(task, dataset, rank)
    cfg = required(task, "detector", task.detector)
    mirror = mirror_of_detector(env) if cfg.mirrored and env.robot.mirrored else None
    start = _start(task, dataset, load) if load is not None else None
    model = _trained(task, sequences, mirror, folder, start, quiet=rank > 0)
    ignored = cfg.training.min_severity
    alarm = calibrate(judge_all(model, sequences, "calibrate", ignored), cfg.alarm, cfg.false_alarms_per_hour)
    splits = dataset.split_digests()
    result = _judged(model, dataset, sequences, alarm, ignored)
    if rank == 0:
        meta = {"data": [str(p) for p in paths], "seed": cfg.training.seed, "commit": runs.git_commit()}
        meta["loaded"] = str(load) if load is not None else None
        save_detector(folder / FILE, model, alarm, meta | {"split": splits, "min_severity": ignored})
        _write(result, folder)
        # Last, so that a kill before does not cost the training.
        (folder / "training.safetensors").unlink(missing_ok=True)
    return result


def _prepared(task: TaskCfg, dataset: Dataset, rank: int) -> list[data.Sequences]:
    """The columns that a detector needs, checked; the first rank decodes and splits, then the others read."""
    if rank == 0:
        for path in data.draw_split(dataset, *shares(task), collection(task).seed, redraw=False):
            console.print(f"{path} had no split; drew one with the task's shares {shares(task)}", soft_wrap=True)
        data.check(dataset.sequences(COLUMNS))
    sum_over_ranks(torch.zeros(1))  # nobody passes before the first rank is here
    return dataset.sequences(COLUMNS)


def _start(task: TaskCfg, dataset: Dataset, path: Path) -> Detector:
    """The detector whose weights another begins with; what that one tested on it must not have learnt from."""
    dataset.check_split(load_detector(path)[2].get("split", {}), f"detector {path}")
    return load_for(task, path, "cpu")[0]


def _trained(
    task: TaskCfg,
    sequences: list[data.Sequences],
    mirror: Mirror | None,
    folder: Path,
    start: Detector | None,
    quiet: bool,
) -> Detector:
    cfg = required(task, "detector", task.detector)
    with progress("train detector", 1, unit="iterations") as update:

        def report(step: int, total: int, values: dict[str, float]) -> None:
            if not quiet:
                update(step, total=total, **{"loss": values["loss"]})

        return train_detector(
            sequences,
            cfg.network,
            cfg.training,
            mirror,
            report,
            checkpoint=folder / "training.safetensors",
            device=local_device(cfg.training.device),
            start=start,
        )


def evaluate(detector: Path, paths: Sequence[Path], folder: Path, device: str = "cpu") -> dict[str, Any]:
    """Figures of a detector on the test episodes of data sets.

    Where there is no split they are of all episodes, and say so (`split` is null). KoboshiError where the detector was
    trained on these data with another split.
    """
    model, alarm, meta = load_detector(detector, device=local_device(device))
    layouts = {GROUP: model.spec.layout_hash}
    dataset = Dataset.open(paths, expect_robot=model.spec.robot, expect_layouts=layouts)
    dataset.check_split(meta.get("split", {}), f"detector {detector}")
    result = _judged(model, dataset, dataset.sequences(COLUMNS), alarm, meta.get("min_severity", 0.0))
    _write(result, folder)
    return result


def _judged(
    model: Detector, dataset: Dataset, sequences: list[data.Sequences], alarm: AlarmCfg, min_severity: float
) -> dict[str, Any]:
    """Figures as JSON data; `split`: digests of the data sets' splits, null where there is none.

    Faults no graver than `min_severity`, which training left aside, are neither asked for nor false alarms.
    """
    digests = dataset.split_digests()
    split = digests if all(digests.values()) else None
    result: dict[str, Any] = json_safe({"split": split, **evaluate_detector(model, sequences, alarm, min_severity)})
    return result


def _write(result: dict[str, Any], folder: Path) -> None:
    runs.write_json(folder / "detector.json", result)
    picture(result, folder / "detector.png")
