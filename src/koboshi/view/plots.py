"""Plots of what was measured, one style, colours that colour-blind eyes can tell apart.

Each returns the PNG's bytes and, given a `path`, writes them there whole or not at all.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koboshi.errors import KoboshiError
from koboshi.runs import read_jsonl, write_atomic
from koboshi.view.trajectory import Array, Trajectory

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#7f8790")
_FAULT = "#d55e00"
_INK, _MUTED, _GRID = "#1a222e", "#687280", "#dee3e9"
LABELS = {
    "healthy": "healthy only", "oracle": "oracle", "oracle_60ms": "oracle + 60 ms",
    "oracle_200ms": "oracle + 200 ms", "oracle_500ms": "oracle + 500 ms", "learned": "learned switch",
}  # fmt: skip
"""Controller key in `metrics.json` -> words, in the order to show them."""
HEAT = ((179, 65, 10), (240, 176, 112), (247, 243, 232), (120, 196, 186), (0, 118, 110))
"""Survival 0 to 1 as RGB: vermilion to teal over a pale middle, told apart by colour-blind eyes."""

Path_ = str | os.PathLike[str] | None
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.edgecolor": _MUTED, "axes.labelcolor": _INK, "text.color": _INK,
    "xtick.color": _MUTED, "ytick.color": _MUTED, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": _GRID, "grid.linewidth": 0.8,
    "legend.frameon": False, "figure.facecolor": "white", "savefig.facecolor": "white",
}  # fmt: skip


@contextmanager
def _figure(rows: int, columns: int, size: tuple[float, float], **kwargs: Any) -> Iterator[tuple[Any, Any]]:
    """A figure in our style that never touches pyplot's or the caller's state."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, dpi=130, layout="constrained")
        yield figure, figure.subplots(rows, columns, **kwargs)


def _write_cells(axes: Any, values: Array, form: str, pale: NDArray[np.bool]) -> None:
    """Each of values (rows, columns) in its cell of an `imshow`, white where `pale` (the same shape), else black."""
    for (row, column), value in np.ndenumerate(values):
        ink = "white" if pale[row, column] else "black"
        axes.text(column, row, form.format(value), ha="center", va="center", fontsize=8, color=ink)
    axes.grid(False)
    axes.tick_params(length=0)


def _png(figure: Any, path: Path_) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    if path is not None:
        write_atomic(path, buffer.getvalue())
    return buffer.getvalue()


def _controllers(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = metrics.get("controllers") or {}
    if not found:
        raise KoboshiError("these metrics hold no controllers; run `koboshi evaluate` first")
    return {name: found[name] for name in sorted(found, key=lambda n: _rank(n))}


def _rank(name: str) -> tuple[int, str]:
    order = list(LABELS)
    return (order.index(name) if name in order else len(order), name)


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def survival_mean_bars(metrics: Mapping[str, Any], path: Path_ = None) -> bytes:
    """Mean survival of each controller as a bar, its worst joint as a dot."""
    controllers = _controllers(metrics)
    mean = np.array([_number(c.get("survival_mean")) for c in controllers.values()])
    worst = np.array([_number(c.get("survival_worst")) for c in controllers.values()])
    rows = np.arange(len(controllers))
    with _figure(1, 1, (7, 1.3 + 0.45 * len(rows))) as (figure, axes):
        special = {"healthy": COLOURS[5], "learned": COLOURS[2]}
        colours = [special.get(name, COLOURS[0]) for name in controllers]
        axes.barh(rows, 100 * np.nan_to_num(mean), color=colours, height=0.62)
        axes.plot(100 * worst, rows, "o", color=_INK, ms=5, label="worst joint", clip_on=False)
        for row, value in zip(rows, mean, strict=True):
            text = "–" if np.isnan(value) else f"{100 * value:.1f}"
            axes.text(102, row, text, va="center", ha="left")
        axes.set_yticks(rows, [LABELS.get(n, n) for n in controllers], color=_INK)
        axes.invert_yaxis()
        axes.set(xlim=(0, 100), xlabel="survival, %", title="Mean survival over joints")
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside lower right")
        return _png(figure, path)


def learning_curve(
    metrics_jsonl: str | os.PathLike[str],
    path: Path_ = None,
    *,
    keys: Sequence[str] | None = None,
    x: str = "step",
) -> bytes:
    """A run's `metrics.jsonl`: one small plot for each of `keys` (default: the first six) against `x`."""
    rows = read_jsonl(metrics_jsonl)
    names = dict.fromkeys(k for row in rows for k, v in row.items() if isinstance(v, int | float))
    chosen = list(keys) if keys is not None else [n for n in names if n not in (x, "time", "iteration")][:6]
    missing = [k for k in (x, *chosen) if k not in names]
    if missing or not chosen:
        valid = ", ".join(names) or "(none)"
        raise KoboshiError(f"{metrics_jsonl} has no key {missing or '(any)'}; keys: {valid}")
    columns = 2 if len(chosen) in (2, 4) else min(3, len(chosen))
    lines = -(-len(chosen) // columns)
    with _figure(lines, columns, (3.6 * columns, 2.5 * lines), squeeze=False) as (figure, grid):
        for axes in grid.flat[len(chosen) :]:
            axes.set_visible(False)
        for axes, key in zip(grid.flat, chosen, strict=False):
            points = [(row[x], row[key]) for row in rows if row.get(key) is not None and x in row]
            axes.plot(*np.array(points, float).T, color=COLOURS[0], lw=1.6)
            axes.set_title(key, fontsize=9)
            axes.set_xlabel(x)
        return _png(figure, path)


def delay_cdf(delays_ms: Mapping[str, Sequence[float | None]], path: Path_ = None, *, limit: float = 1000) -> bytes:
    """For each name: the share of faults noticed within so many ms; None or infinity counts as never."""
    with _figure(1, 1, (6.4, 3.4)) as (figure, axes):
        for colour, (name, delays) in zip(COLOURS * 4, delays_ms.items(), strict=False):
            values = np.sort([np.inf if d is None else float(d) for d in delays])
            seen = values[values <= limit]
            share = 100 * np.arange(1, len(seen) + 1) / max(len(values), 1)
            end = share[-1] if len(share) else 0
            axes.step([0, *seen, limit], [0, *share, end], where="post", color=colour, lw=1.8, label=name)
        axes.set(xlim=(0, limit), ylim=(0, 101), ylabel="faults, %")
        axes.set_xlabel("delay from the failure, ms")
        axes.set_title("How soon a failure is noticed")
        axes.legend(loc="lower right")
        return _png(figure, path)


def timeline(trajectory: Trajectory, path: Path_ = None) -> bytes:
    """One trajectory: forward speed and command, the likeliest joints' probabilities, fault and switch."""
    t = trajectory
    time = np.arange(len(t.qpos)) * t.control_dt
    rows = 1 if t.probability is None else 2
    with _figure(rows, 1, (8, 2.2 * rows + 0.3), squeeze=False, sharex=True) as (figure, grid):
        top = grid[0, 0]
        top.plot(time, t.command[:, 0], color=_MUTED, ls="--", lw=1.2, label="command")
        top.plot(time, t.velocity[:, 0], color=COLOURS[0], lw=1.5, label="measured")
        top.set(title=t.title, ylabel="forward speed, m/s")
        top.set_ylim(bottom=min(0, *top.get_ylim()))
        if t.probability is not None:
            broken = {mark.joint for mark in t.fault}
            colours = iter((COLOURS[0], COLOURS[1], COLOURS[3], COLOURS[4]))  # green says `noticed`
            for j in t.top_joints(4):
                name = t.joint_names[j]
                colour = _FAULT if name in broken else next(colours)
                grid[1, 0].plot(time, t.probability[:, j], color=colour, lw=1.5, label=name)
            grid[1, 0].set(ylim=(-0.02, 1.02), ylabel="probability")
        for axes in grid.flat:
            _mark_events(axes, t, label=axes is top)
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
        grid[-1, 0].set(xlabel="time, s", xlim=(0, max(t.duration, t.control_dt)))
        return _png(figure, path)


@dataclass(frozen=True, eq=False)
class FaultTrace:
    """A joint around the onset of a fault, (T,) each."""

    time: Array
    """s since the onset."""
    angle: Array
    """rad."""
    shown_angle: Array
    """What the encoder shows."""
    torque: Array
    """N·m."""
    shown_torque: Array
    """What the torque sensor shows."""


def fault_traces(
    title: str, well: FaultTrace, broken: Mapping[str, Mapping[float, FaultTrace]], path: Path_ = None
) -> bytes:
    """Kinds of fault down, angle and torque across: severity -> trace, beside one that stays well."""
    with _figure(len(broken), 2, (10, 1.7 * len(broken) + 0.7), squeeze=False, sharex=True) as (figure, grid):
        for row, (kind, levels) in zip(grid, broken.items(), strict=True):
            for axes, name, unit in zip(row, ("angle", "torque"), ("rad", "N·m"), strict=True):
                axes.axvline(0, color=_FAULT, lw=1.2)
                axes.plot(well.time, getattr(well, name), color=_MUTED, lw=1.2, label="well")
                for colour, (level, trace) in zip((COLOURS[0], COLOURS[1]), levels.items(), strict=True):
                    true, shown = getattr(trace, name), getattr(trace, f"shown_{name}")
                    axes.plot(trace.time, true, color=colour, lw=1.6, label=f"severity {level:g}")
                    if not np.array_equal(true, shown):
                        axes.plot(trace.time, shown, color=colour, lw=1.2, ls=":", label=f"shown, {level:g}")
                axes.set(title=kind.replace("_", " "), ylabel=f"{name}, {unit}")
            lines = {line.get_label(): line for axes in row for line in axes.get_lines()[1:]}
            row[1].legend(lines.values(), lines, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
        for axes in grid[-1]:
            axes.set(xlabel="time since the onset, s", xlim=(well.time[0], well.time[-1]))
        figure.suptitle(title)
        return _png(figure, path)


def _mark_events(axes: Any, t: Trajectory, label: bool) -> None:
    def words(text: str) -> str:
        return text if label else "_"  # matplotlib leaves such names out of the legend

    for mark in t.fault:
        axes.axvline(mark.time, color=_FAULT, lw=1.2, label=words(f"{mark.joint} breaks"))
    for alarm in t.alarms:
        axes.axvline(alarm.time, color=COLOURS[2], lw=1.2, label=words(t.alarm_text(alarm)))
    if t.fell_at is not None:
        end = max(t.duration, t.fell_at)
        axes.axvspan(t.fell_at, end, color=_MUTED, alpha=0.18, lw=0, label=words("fell"))
