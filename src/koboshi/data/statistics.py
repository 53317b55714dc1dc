"""What is in a data set, as numbers and a picture, and the checks that refuse a bad one.

Data sets are gone through some environments at a time, so that their size does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from koboshi.data.dataset import Dataset
from koboshi.data.sequences import PARTS, UNSPLIT, Episodes, Sequences, find_episodes, find_faults
from koboshi.errors import KoboshiError
from koboshi.runs import atomic_path

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
MOST_FAILED = 0.9
"""A joint that fails in more than this part of the rows leaves too little healthy to learn from."""
SHOWN = 8
"""Problems that an error names; the same one may be found in many blocks of environments."""


def statistics(data: Dataset | list[Sequences]) -> dict[str, Any]:
    """Counts and distributions, as JSON data; times in s, quantiles as {"0.5": …}.

    Where the data have no column `severity`, what is said of faults is empty.
    """
    sequences = data.sequences() if isinstance(data, Dataset) else data
    card = sequences[0].card
    joints = len(card.joint_names)
    rows_failed, episodes_failed = np.zeros(joints, dtype=np.int64), np.zeros(joints, dtype=np.int64)
    simultaneous = np.zeros(joints + 1, dtype=np.int64)
    onsets, severities, lengths = [], [], []
    for block in _blocks(sequences):
        episodes = find_episodes(block)
        lengths.append((episodes.end - episodes.start) * card.control_dt)
        if "severity" not in block.columns:
            continue
        faults, severity = find_faults(block, episodes), block["severity"]
        faulty = severity > 0
        rows_failed += faulty.sum((0, 1)).numpy()
        simultaneous += np.bincount(faulty.sum(-1).flatten().numpy(), minlength=len(simultaneous))
        failed = np.unique(np.stack([faults.episode, faults.joint]), axis=1)
        episodes_failed += np.bincount(failed[1], minlength=joints)
        onsets.append((faults.onset - faults.start) * card.control_dt)
        severities.append(severity[faults.onset, faults.env, faults.joint].numpy())
    rows = sum(seq.part.numel() for seq in sequences)
    return {
        "robot": card.robot,
        "rows": rows,
        "hours": rows * card.control_dt / 3600,
        "episodes": sum(map(len, lengths)),
        "faults": sum(map(len, onsets)) if onsets else None,
        "split": _rows_by_part(sequences),
        "healthy_fraction": float(simultaneous[0] / rows) if onsets else None,
        "rows_by_joint": {n: int(rows_failed[j]) for j, n in enumerate(card.joint_names) if onsets},
        "episodes_by_joint": {n: int(episodes_failed[j]) for j, n in enumerate(card.joint_names) if onsets},
        "simultaneous": {str(k): int(v) for k, v in enumerate(simultaneous) if v},
        "onset_s": _distribution(onsets),
        "severity": _distribution(severities),
        "episode_s": _distribution(lengths),
    }


def _blocks(sequences: list[Sequences]) -> Iterator[Sequences]:
    for seq in sequences:
        for _, block in seq.blocks():
            yield block


def _rows_by_part(sequences: list[Sequences]) -> dict[str, int] | None:
    """Rows of each part; None where there is no split."""
    if any(bool((seq.part == UNSPLIT).any()) for seq in sequences):
        return None
    return {name: sum(int((seq.part == i).sum()) for seq in sequences) for i, name in enumerate(PARTS)}


def _distribution(parts: list[np.ndarray]) -> dict[str, Any]:
    values = np.concatenate(parts).astype(np.float64) if parts else np.empty(0)
    if not len(values):
        return {"quantiles": {}, "histogram": {"edges": [], "counts": []}}
    counts, edges = np.histogram(values, bins=30)
    quantiles = {str(q): float(v) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}
    return {"quantiles": quantiles, "histogram": {"edges": edges.tolist(), "counts": counts.tolist()}}


def check(data: Dataset | list[Sequences]) -> None:
    """Raises one KoboshiError that lists everything that makes the rows unfit to learn from.

    Parts of a split that mix are refused earlier, when a data set is read.
    """
    sequences = data.sequences() if isinstance(data, Dataset) else data
    problems: list[str] = []
    for seq in sequences:
        starts: dict[int, int] = {}
        for first, block in seq.blocks():
            problems += _not_finite(block, first) + _bad_episodes(block, first, starts)
        twice = [i for i, count in starts.items() if count > 1]
        if twice:
            problems.append(f"episode ids are not unique: {twice[0]} starts {starts[twice[0]]} times")
    if "severity" in sequences[0].columns:
        problems += _bad_joints(sequences)
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise KoboshiError("this data set is not fit to learn from: " + "; ".join(problems[:SHOWN]) + more)


def _not_finite(block: Sequences, first: int) -> list[str]:
    found = []
    for name, column in block.columns.items():
        if not column.is_floating_point():
            continue
        flat = column.flatten(2) if column.ndim > 2 else column.unsqueeze(-1)
        # A sum is finite only where every summand is; far cheaper than isfinite on every number.
        for i in (~flat.sum((0, 1), dtype=torch.float64).isfinite()).nonzero().flatten().tolist():
            where = _first(~flat[:, :, i].isfinite(), first)
            found.append(f"{block.card.name_of(name, i)} is NaN or infinite, first at {where}")
    if "severity" in block.columns:
        severity = block["severity"]
        outside = ~((severity >= 0) & (severity <= 1))
        if bool(outside.any()):
            step, env, joint = outside.nonzero()[0].tolist()
            what = f"severity of {block.card.joint_names[joint]} is {float(severity[step, env, joint])}"
            found.append(f"{what}, not in 0..1, at step {step} of environment {first + env}")
    return found


def _first(where: Tensor, first_env: int) -> str:
    step, env = where.nonzero()[0].tolist()
    return f"step {step} of environment {first_env + env}"


def _bad_episodes(block: Sequences, first: int, starts: dict[int, int]) -> list[str]:
    """What is wrong with the episodes of a block; counts in `starts` how often each id starts one."""
    found = []
    episodes = find_episodes(block)
    for i in episodes.id.tolist():
        starts[i] = starts.get(i, 0) + 1
    # A first row cut out of the middle of an episode would start with a carried state that nobody knows.
    silent = ~block["reset"].numpy()[episodes.start, episodes.env]
    if silent.any():
        found.append(f"{silent.sum()} episodes start without a reset, such as {_where(episodes, silent, first)}")
    onset = block.card.onset_s
    if "severity" in block.columns and onset is not None and onset[0] > 0:
        alive = (block["severity"] > 0).any(-1).numpy()[episodes.start, episodes.env]
        if alive.any():
            found.append(f"labels outlive {alive.sum()} resets, such as {_where(episodes, alive, first)}")
    return found


def _where(episodes: Episodes, chosen: np.ndarray, first: int) -> str:
    i = int(np.flatnonzero(chosen)[0])
    return f"episode {episodes.id[i]} (environment {first + episodes.env[i]}, step {episodes.start[i]})"


def _bad_joints(sequences: list[Sequences]) -> list[str]:
    card = sequences[0].card
    rows = sum(seq.part.numel() for seq in sequences)
    failed = np.sum([(block["severity"] > 0).sum((0, 1)).numpy() for block in _blocks(sequences)], axis=0) / rows
    found = []
    for j, name in enumerate(card.joint_names):
        if name in card.candidates and failed[j] == 0:
            found.append(f"candidate joint {name} never fails")
        elif failed[j] > MOST_FAILED:
            found.append(f"joint {name} fails in {failed[j]:.0%} of the rows (at most {MOST_FAILED:.0%})")
        elif name not in card.candidates and failed[j] > 0:
            found.append(f"joint {name} fails but is not a candidate ({', '.join(card.candidates)})")
    return found


def picture(stats: dict[str, Any], path: str | Path) -> None:
    """Draws `statistics`: rows a joint, onsets, episode lengths, severities."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    joints, onset, length, severity = figure.subplots(2, 2).flatten()
    joints.barh(list(stats["rows_by_joint"]), list(stats["rows_by_joint"].values()))
    healthy = "" if stats["healthy_fraction"] is None else f", {stats['healthy_fraction']:.0%} healthy"
    joints.set(title=f"{stats['rows']} rows{healthy}", xlabel="rows failed")
    joints.invert_yaxis()
    joints.tick_params(axis="y", labelsize=7)
    for axis, key, label in (
        (onset, "onset_s", "onset after the start, s"),
        (length, "episode_s", "episode length, s"),
        (severity, "severity", "severity at onset"),
    ):
        histogram = stats[key]["histogram"]
        if histogram["counts"]:
            axis.stairs(histogram["counts"], histogram["edges"], fill=True)
        axis.set(xlabel=label)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
