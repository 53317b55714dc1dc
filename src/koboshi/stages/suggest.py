"""`koboshi suggest clips`: what a run's reward terms were worth, and bounds for those with rare, large values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from koboshi import runs
from koboshi.envs.cfg import RewardTerm
from koboshi.errors import KoboshiError
from koboshi.stages.folders import task_of
from koboshi.view.reward_plots import reward_shares

SETTLED = 0.2
"""Share of a run, its last, that statistics are taken from."""
WIDTH = 3.0
"""Standard deviations that a clip leaves on either side of the mean."""
RARE = 5.0
"""A value whose deviation is as many times its mean is an event (a fall, a touch), which a clip would abolish."""
BOUNDED = ("exp", "tanh")


@dataclass(frozen=True)
class Worth:
    """A reward term over the last fifth of a run."""

    name: str
    earned: float
    """Per second of a full episode, weight and clip included."""
    share: float
    """Of all terms' magnitudes."""
    mean: float
    """Of the shaped value in each step, before clip and weight."""
    std: float
    most: float
    """Its greatest magnitude."""
    clip: tuple[float, float] | None
    """What is proposed; None: nothing."""
    why: str
    """Why nothing is."""


def clips(run: Path, folder: Path) -> list[Worth]:
    """Every term's worth; draws their shares over the run to `folder/rewards.png`."""
    task = task_of(runs.resolve_run(run))
    rows = runs.read_jsonl(run / "metrics.jsonl")
    terms = {name: term for name, term in task.env.rewards.items() if term is not None}
    if not rows or f"value/{next(iter(terms))}/mean" not in rows[-1]:
        raise KoboshiError(f"{run} has no statistics of its rewards: it was made before they were logged")
    ended = [row for row in rows if f"reward/{next(iter(terms))}" in row]
    earned = {name: [row[f"reward/{name}"] for row in ended] for name in terms}
    reward_shares([row["step"] for row in ended], earned, folder / "rewards.png")
    return _worths(terms, runs.settled(rows, SETTLED))


def _worths(terms: dict[str, RewardTerm], rows: list[dict[str, Any]]) -> list[Worth]:
    earned = {name: _mean(rows, f"reward/{name}") for name in terms}
    whole = sum(map(abs, earned.values())) or 1.0
    return [_worth(name, term, earned[name], abs(earned[name]) / whole, rows) for name, term in terms.items()]


def _mean(rows: list[dict[str, Any]], key: str) -> float:
    values = [row[key] for row in rows if row.get(key) is not None]
    return mean(values) if values else math.nan


def _worth(name: str, term: RewardTerm, earned: float, share: float, rows: list[dict[str, Any]]) -> Worth:
    average, deviation = (_mean(rows, f"value/{name}/{kind}") for kind in ("mean", "std"))
    most = max((row[key] for row in rows if row.get(key := f"value/{name}/most") is not None), default=math.nan)
    bounds, why = _proposal(term, average, deviation, most)
    return Worth(name, earned, share, average, deviation, most, bounds, why)


def _proposal(
    term: RewardTerm, average: float, deviation: float, most: float
) -> tuple[tuple[float, float] | None, str]:
    if term.shape in BOUNDED:
        return None, "bounded"
    if deviation > RARE * abs(average):
        return None, "rare"
    low, high = average - WIDTH * deviation, average + WIDTH * deviation
    if most <= max(abs(low), abs(high)):
        return None, "never far"
    if term.shape != "raw":
        low = 0.0  # l1, l2 and log are never below
    return (_rounded(low), _rounded(high)), ""


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")
