"""Plots of the fault benchmark; each gives a PNG's bytes. A figure is {value, low, high, …} or None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from koboshi.view.plots import _INK, _MUTED, COLOURS, _figure, _png

Interval = Mapping[str, Any] | None
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h", "p")


def _style(i: int) -> dict[str, Any]:
    """Colour and mark of the i-th of several controllers: told apart without colours too."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": _MARKS[i % len(_MARKS)], "ms": 5, "lw": 1.4}


def _columns(row: Sequence[Interval], scale: float) -> tuple[np.ndarray, np.ndarray]:
    """(n,) values and (2, n) how far the interval reaches down and up."""
    value, low, high = (
        np.array([np.nan if each is None else each.get(name, np.nan) for each in row], dtype=float) * scale
        for name in ("value", "low", "high")
    )
    return value, np.stack((np.maximum(value - low, 0), np.maximum(high - value, 0)))


def lines(
    found: Mapping[str, Sequence[Interval]], ticks: Sequence[str], *, title: str, x: str, y: str, scale: float = 100.0
) -> bytes:
    """One line a controller over the ticks, with intervals; beside one another so that none hides another."""
    at = np.arange(len(ticks))
    with _figure(1, 1, (8, 3.6)) as (figure, axes):
        for i, (name, row) in enumerate(found.items()):
            value, reach = _columns(row, scale)
            aside = (i - (len(found) - 1) / 2) * 0.5 / max(len(found), 1)
            axes.errorbar(at + aside, value, reach, label=name, capsize=2, elinewidth=1.0, **_style(i))
        axes.set_xticks(at, ticks, color=_INK)
        axes.set(title=title, xlabel=x, ylabel=y)
        if scale == 100:
            axes.set_ylim(0, 104)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        return _png(figure, None)


def forest(found: Mapping[str, Interval], *, title: str, x: str, scale: float = 100.0) -> bytes:
    """Differences down, each a dot with its interval, beside a line at 0."""
    names = list(found)
    value, reach = _columns([found[name] for name in names], scale)
    at = np.arange(len(names))
    with _figure(1, 1, (8, 1.1 + 0.34 * len(names))) as (figure, axes):
        axes.axvline(0, color=_MUTED, lw=1.2)
        axes.errorbar(value, at, xerr=reach, fmt="o", color=COLOURS[0], ms=5, capsize=3)
        axes.set_yticks(at, names, color=_INK)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set(title=title, xlabel=x)
        axes.grid(axis="y", visible=False)
        return _png(figure, None)


def rates(found: Mapping[str, Interval], *, title: str, x: str, limit: float) -> bytes:
    """Rates down, each a bar with its interval, on a scale that shows small ones; and a limit."""
    names = list(found)
    value, reach = _columns([found[name] for name in names], 1.0)
    at = np.arange(len(names))
    with _figure(1, 1, (8, 1.1 + 0.34 * len(names))) as (figure, axes):
        axes.barh(at, np.nan_to_num(value), color=COLOURS[4], height=0.6)
        axes.errorbar(value, at, xerr=reach, fmt="none", ecolor=_INK, capsize=3, elinewidth=1.0)
        axes.axvline(limit, color=_MUTED, lw=1.2, ls="--", label=f"{limit:g}")
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xlim(left=0)
        axes.set_yticks(at, names, color=_INK)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set(title=title, xlabel=x)
        axes.legend(loc="lower right", fontsize=9)
        axes.grid(axis="y", visible=False)
        return _png(figure, None)
