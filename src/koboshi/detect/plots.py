"""A picture of a detector's evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from koboshi.runs import atomic_path


def picture(result: dict[str, Any], path: str | Path) -> None:
    """Draws what `evaluate_detector` gave: delays, confusion, and figures against the threshold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.5), layout="constrained")
    delay, matrix, against = figure.subplots(1, 3)
    values = np.array([np.inf if d is None else d for d in result["delays_ms"]])
    delay.ecdf(values[np.isfinite(values)], weights=None) if np.isfinite(values).any() else None
    delay.set(
        xlabel="delay, ms",
        ylabel="share of the noticed",
        xlim=(0, 500),
        title=f"{result['faults']} faults, {_shown(result['missed'], '.2%')} missed; {result['episodes']} episodes",
    )
    _draw_confusion(matrix, np.array(result["confusion"]), result["classes"])
    matrix.set(title=f"macro-F1 {_shown(result['macro_f1'], '.3f')}")
    if "curve" in result:
        _draw_curve(against, result["curve"], result["threshold"])
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _drawn(curve: list[dict[str, Any]], key: str) -> list[float]:
    """A column of the curve, with gaps where nothing was measured."""
    return [np.nan if row[key] is None else row[key] for row in curve]


def _draw_confusion(axis: Any, counts: np.ndarray, classes: list[str]) -> None:
    axis.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(classes)), classes, rotation=90, fontsize=6)
    axis.set_yticks(range(len(classes)), classes, fontsize=6)
    axis.set(xlabel="noticed first", ylabel="failed")


def _draw_curve(axis: Any, curve: list[dict[str, Any]], threshold: float) -> None:
    def log_odds(p: float) -> float:
        return float(np.log(p / (1 - p)))

    x = [log_odds(row["threshold"]) for row in curve]
    axis.plot(x, _drawn(curve, "precision"), label="precision")
    axis.plot(x, _drawn(curve, "recall"), label="recall")
    axis.axvline(log_odds(threshold), color="0.7", linewidth=1)
    axis.set(xlabel="threshold, log-odds", ylim=(0, 1.02))
    rates = axis.twinx()
    rates.plot(x, _drawn(curve, "false_alarms_per_hour"), "C3--", label="false alarms an hour")
    rates.plot(x, _drawn(curve, "delay_ms_median"), "C2:", label="median delay, ms")
    rates.set_yscale("symlog", linthresh=1)
    handles = [*axis.get_legend_handles_labels()[0], *rates.get_legend_handles_labels()[0]]
    axis.legend(handles=handles, fontsize=7, loc="lower center")
