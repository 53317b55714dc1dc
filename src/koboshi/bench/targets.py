"""What is asked of the benchmark's main controller, and whether its figures reach it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from koboshi.bench.worlds import NOMINAL, WALKED

Json = Mapping[str, Any]
HOURS_NOMINAL, HOURS_WORLD = 30.0, 5.0
"""Robot-hours that a rate of false alarms must rest on."""


class Line(NamedTuple):
    """One line of the headline table."""

    figure: str
    wanted: str
    measured: str
    reached: bool | None
    """None: nothing was measured."""


class _Limit(NamedTuple):
    """One number and what it must be."""

    value: float | None
    limit: float
    at_least: bool = True

    @property
    def reached(self) -> bool | None:
        if self.value is None or math.isnan(self.value):
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def headline(figures: Json, main: str, singles: Sequence[str], banks: Sequence[str]) -> list[Line]:
    """The table of targets.

    `singles`: the policies without a switch that it must be better than. `banks`: the same switch over banks of all
    sizes, one of which is the main controller's own and not trained again.
    """
    table = _banks(figures, (*banks, main), len(banks))
    whole = table.reached is not None and set(singles) <= set(figures["survival"])
    return [
        *_survival(figures, main),
        *_course(figures["course"].get(main, {}).get(NOMINAL, {})),
        *_detection(figures["detection"].get(main) or {}),
        *(_better(figures, name) for name in singles),
        table,
        *_costs(figures, whole),
    ]


def _value(interval: Json | None) -> float | None:
    return None if interval is None else interval.get("value", math.inf)


def share(interval: Json | None) -> str:
    """Per cent and its interval."""
    if interval is None:
        return "–"
    value, low, high = (100 * interval[name] for name in ("value", "low", "high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def number(unit: str, digits: int = 2, sign: str = "") -> Callable[[Json | None], str]:
    """Writes a figure and its interval; a bound that is infinite as ∞."""

    def write(interval: Json | None) -> str:
        if interval is None:
            return "–"
        value, low, high = (interval.get(name) for name in ("value", "low", "high"))
        words = ["∞" if x is None else f"{x:{sign}.{digits}f}" for x in (value, low, high)]
        return f"{words[0]} {unit}".rstrip() + f" [{words[1]}, {words[2]}]"

    return write


def points(interval: Json | None) -> str:
    """A difference of shares in percentage points."""
    if interval is None:
        return "–"
    return number("points", 1, "+")({name: 100 * interval[name] for name in ("value", "low", "high")})


def _line(figure: str, wanted: str, parts: Sequence[tuple[str, _Limit]]) -> Line:
    """One line of several numbers: reached where all are, unknown where any is."""
    reached = [limit.reached for _, limit in parts]
    both = None if None in reached else all(reached)
    return Line(figure, wanted, " / ".join(words for words, _ in parts), both)


def _least(figure: str, wanted: str, *parts: tuple[Json | None, float]) -> Line:
    return _line(figure, wanted, [(share(i), _Limit(_value(i), limit)) for i, limit in parts])


def _survival(figures: Json, main: str) -> list[Line]:
    worlds = figures["survival"].get(main) or {}
    here = worlds.get(NOMINAL) or {}
    lines = [
        _least(
            "k = 1, every kind and severity, nominal: survival, mean / worst joint", "≥ 98 / ≥ 90 %",
            (here.get("k=1"), 0.98), (here.get("k=1, worst joint"), 0.90),
        )
    ]  # fmt: skip
    others = [(w["k=1"], w["k=1, worst joint"]) for name, w in worlds.items() if name != NOMINAL and w["k=1"]]
    # Each world has to reach it: the lowest is shown.
    mean, worst = (
        (min(column, key=lambda i: i["value"]) for column in zip(*others, strict=True)) if others else [None] * 2
    )
    whole = _everywhere({name: world["k=1"] for name, world in worlds.items()})
    limits = [(share(i), _Limit(_value(i) if whole else None, x)) for i, x in ((mean, 0.95), (worst, 0.80))]
    lines.append(_line("the same in the worst of the other worlds", "≥ 95 / ≥ 80 %", limits))
    lines.append(_least("k = 2 / k = 3: survival", "≥ 90 / ≥ 75 %", (here.get("k=2"), 0.90), (here.get("k=3"), 0.75)))
    return lines


def _everywhere(found: Json) -> bool:
    """Whether there is something of every world that is walked without being named."""
    return set(WALKED) <= {name for name in found if found[name]}


def _course(found: Json) -> list[Line]:
    mean, worst, along = (found.get(name) for name in ("heading_error", "heading_error_worst", "path_progress"))
    write = number("rad")
    parts = [
        (write(mean), _Limit(_value(mean), 0.15, False)),
        (write(worst), _Limit(_value(worst), 0.4, False)),
        (number("", 3)(along), _Limit(_value(along), 0.95)),
    ]
    return [
        _line(
            "heading error at the end, mean / worst joint; progress along the path", "≤ 0.15 / ≤ 0.4 rad; ≥ 0.95", parts
        )
    ]


def _detection(worlds: Json) -> list[Line]:
    here = worlds.get(NOMINAL) or {}
    write, limits = number("ms", 0), (("dead, median", 60), ("dead, p95", 200), ("half-dead, median", 300))
    delays = [(write(here.get(f"delay {n}")), _Limit(_value(here.get(f"delay {n}")), ms, False)) for n, ms in limits]
    exact = [(here.get("exact k=1"), 0.98), (here.get("exact k=2"), 0.93)]
    kinds = here.get("kind macro-F1")
    sets = [(share(i), _Limit(_value(i), limit)) for i, limit in exact]
    return [
        _line("delay of dead joints, median / p95; of half-dead joints, median", "≤ 60 / ≤ 200; ≤ 300 ms", delays),
        _alarms(worlds),
        _line("exact set, k = 1 / k = 2; kind macro-F1", "≥ 98 / ≥ 93 %; ≥ 0.9",
              [*sets, (number("")(kinds), _Limit(_value(kinds), 0.9))]),
    ]  # fmt: skip


def _alarms(worlds: Json) -> Line:
    rates = {name: found["false alarms"]["both"] for name, found in worlds.items() if found["false alarms"]["both"]}
    everywhere, here = _everywhere(rates), rates.pop(NOMINAL, None)
    worst = max(rates.values(), key=lambda r: r["value"], default=None)
    parts = []
    for found, all_of, limit, hours in (
        (here, [here], 0.1, HOURS_NOMINAL),
        (worst, [*rates.values()] if everywhere else [None], 1.0, HOURS_WORLD),
    ):
        enough = all(rate is not None and rate["hours"] >= 0.999 * hours for rate in all_of)
        # Few hours prove no low rate, but a high one; and one world that is too high is the worst's least.
        enough = enough or (found is not None and found["low"] > limit)
        enough = enough or any(r is not None and r["hours"] >= 0.999 * hours and r["value"] > limit for r in all_of)
        words = number("")(found) + (f" in {found['hours']:.1f} h" if found else "")
        parts.append((words, _Limit(_value(found) if enough else None, limit, False)))
    return _line("false alarms an hour, nominal / worst other world", "≤ 0.1 in ≥ 30 h / ≤ 1 in ≥ 5 h", parts)


def _better(figures: Json, name: str) -> Line:
    """Ten points more, and intervals apart: that of the difference lies above 0 by itself. Known when the other has as
    many seeds."""
    found = figures["differences"].get(name, {}).get("k=1")
    reached = None
    if found is not None and found["seeds"] == figures["survival"][figures["main"]][NOMINAL]["k=1"]["seeds"]:
        ours, theirs = found["of"]
        reached = found["value"] >= 0.10 and ours["low"] > theirs["high"]
    return Line(f"better than {name} at k = 1", "≥ 10 points, intervals apart", points(found), reached)


def _banks(figures: Json, names: Sequence[str], sizes: int) -> Line:
    """The same budget for banks of all sizes: a finding, and no more is asked than that it is there."""
    survival = figures["survival"]
    found = {n: survival[n][NOMINAL]["k=1"] for n in names if NOMINAL in survival.get(n, {})}
    words = " / ".join(f"{name} {share(interval)}" for name, interval in found.items())
    return Line("banks of several sizes, survival at k = 1", "a table", words or "–", len(found) >= sizes or None)


def _costs(figures: Json, whole: bool) -> list[Line]:
    """`whole`: whether there is a part of every controller, without which the hours say little."""
    tax, regrets = (figures[name].get(NOMINAL, {}) for name in ("tax", "regret"))
    tracking, lost, regret = tax.get("tracking"), tax.get("survival"), regrets.get("k=1")
    parts = [
        (share(tracking), _Limit(_value(tracking), 0.05, False)),
        (points(lost), _Limit(_value(lost), 0.005, False)),
        (points(regret), _Limit(_value(regret), 0.01, False)),
    ]
    hours = figures["hours_a_seed"]
    limit = _Limit(hours if whole else None, 2.5, False)
    return [
        _line("healthy tax, v_x RMSE and survival; switch regret", "≤ 5 %, ≤ 0.5 points; ≤ 1 point", parts),
        _line("one seed of the benchmark", "≤ 2.5 h", [(f"{hours:.2f} h", limit)]),
    ]
