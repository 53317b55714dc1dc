"""What is in a data set, as numbers and a picture, and the checks that refuse a bad one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from koboshi.data.dataset import Dataset
from koboshi.data.sequences import Episodes, Sequences, find_episodes, find_faults
from koboshi.errors import KoboshiError
from koboshi.runs import atomic_path

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
MOST_FAILED = 0.9
"""A joint that fails in more than this part of the rows leaves too little healthy to learn from."""


def statistics(data: Dataset | list[Sequences]) -> dict[str, Any]:
    """Counts and distributions, as JSON data; times in s, quantiles as {"0.5": …}."""
    sequences = data.sequences() if isinstance(data, Dataset) else data
    card = sequences[0].card
    rows_failed = np.zeros(len(card.joint_names), dtype=np.int64)
    episodes_failed = np.zeros_like(rows_failed)
    simultaneous = np.zeros(len(card.joint_names) + 1, dtype=np.int64)
    onsets, severities, lengths = [], [], []
    for seq in sequences:
        episodes = find_episodes(seq.reset, seq.episode)
        faults = find_faults(seq.severity, episodes)
        faulty = seq.severity > 0
        rows_failed += faulty.sum((0, 1)).numpy()
        simultaneous += np.bincount(faulty.sum(-1).flatten().numpy(), minlength=len(simultaneous))
        failed = np.unique(np.stack([faults.episode, faults.joint]), axis=1)
        episodes_failed += np.bincount(failed[1], minlength=len(rows_failed))
        onsets.append((faults.onset - faults.start) * card.control_dt)
        severities.append(seq.severity.numpy()[faults.onset, faults.env, faults.joint])
        lengths.append((episodes.end - episodes.start) * card.control_dt)
    rows = sum(seq.reset.numel() for seq in sequences)
    return {
        "robot": card.robot,
        "rows": rows,
        "hours": rows * card.control_dt / 3600,
        "episodes": sum(map(len, lengths)),
        "faults": sum(map(len, onsets)),
        "test_rows": sum(int(seq.test.sum()) for seq in sequences),
        "healthy_fraction": float(simultaneous[0] / rows),
        "rows_by_joint": {n: int(rows_failed[j]) for j, n in enumerate(card.joint_names)},
        "episodes_by_joint": {n: int(episodes_failed[j]) for j, n in enumerate(card.joint_names)},
        "simultaneous": {str(k): int(v) for k, v in enumerate(simultaneous) if v},
        "onset_s": _distribution(onsets),
        "severity": _distribution(severities),
        "episode_s": _distribution(lengths),
    }


def _distribution(parts: list[np.ndarray]) -> dict[str, Any]:
    values = np.concatenate(parts).astype(np.float64)
    if not len(values):
        return {"quantiles": {}, "histogram": {"edges": [], "counts": []}}
    counts, edges = np.histogram(values, bins=30)
    quantiles = {str(q): float(v) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}
    return {"quantiles": quantiles, "histogram": {"edges": edges.tolist(), "counts": counts.tolist()}}


def check(data: Dataset | list[Sequences]) -> None:
    """Raises one KoboshiError that lists everything that makes the rows unfit to learn from.

    Train and test episodes that mix are refused earlier, when a data set is read.
    """
    sequences = data.sequences() if isinstance(data, Dataset) else data
    problems: list[str] = []
    for seq in sequences:
        problems += _not_finite(seq) + _bad_episodes(seq)
    problems += _bad_joints(sequences)
    if problems:
        raise KoboshiError("this data set is not fit to learn from: " + "; ".join(problems))


def _not_finite(seq: Sequences) -> list[str]:
    found = []
    # A sum is finite only where every summand is; far cheaper than isfinite on every number.
    for column in (~seq.obs.sum((0, 1), dtype=torch.float64).isfinite()).nonzero().flatten().tolist():
        step, env = (~seq.obs[:, :, column].isfinite()).nonzero()[0].tolist()
        term = seq.card.term_of(column)
        found.append(f"{term} is NaN or infinite, first at step {step} of environment {env}")
    inside = (seq.severity >= 0) & (seq.severity <= 1)
    if not bool(inside.all()):
        step, env, joint = (~inside).nonzero()[0].tolist()
        what = f"severity of {seq.card.joint_names[joint]} is {float(seq.severity[step, env, joint])}"
        found.append(f"{what}, not in 0..1, at step {step} of environment {env}")
    return found


def _bad_episodes(seq: Sequences) -> list[str]:
    found = []
    episodes = find_episodes(seq.reset, seq.episode)
    # A first row cut out of the middle of an episode would start with a hidden state nobody knows.
    silent = ~seq.reset.numpy()[episodes.start, episodes.env]
    if silent.any():
        found.append(f"{silent.sum()} episodes start without a reset, such as {_where(episodes, silent)}")
    ids, counts = np.unique(episodes.id, return_counts=True)
    if (counts > 1).any():
        found.append(f"episode ids are not unique: {ids[counts > 1][0]} starts {counts.max()} times")
    if seq.card.onset_s[0] > 0:
        alive = (seq.severity > 0).any(-1).numpy()[episodes.start, episodes.env]
        if alive.any():
            found.append(f"labels outlive {alive.sum()} resets, such as {_where(episodes, alive)}")
    return found


def _where(episodes: Episodes, chosen: np.ndarray) -> str:
    i = int(np.flatnonzero(chosen)[0])
    return f"episode {episodes.id[i]} (environment {episodes.env[i]}, step {episodes.start[i]})"


def _bad_joints(sequences: list[Sequences]) -> list[str]:
    card = sequences[0].card
    rows = sum(seq.reset.numel() for seq in sequences)
    failed = np.sum([(seq.severity > 0).sum((0, 1)).numpy() for seq in sequences], axis=0) / rows
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
    joints.set(title=f"{stats['rows']} rows, {stats['healthy_fraction']:.0%} healthy", xlabel="rows failed")
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
