"""Figures of the benchmark as functions of rows; each has its formula in docs/method/benchmark.md, under its name.

A function gives one number (or row of numbers) for each of E episodes or F faults, NaN where there is nothing to
count, so that `statistics.bootstrap` can draw them; what is made of them (a mean, a quantile, the least mean of any
joint) is the statistic's part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from koboshi.bench.episode_columns import Columns
from koboshi.bench.statistics import Values
from koboshi.bench.strain import NONE
from koboshi.bench.suite import comes_and_goes, is_dead, joints_of
from koboshi.faults import KINDS, Scenario
from koboshi.faults.held_out import held_out_pairs
from koboshi.robots import Robot

TIMELY_S = 0.5
"""An alarm is timely that comes within so long after the first load on the joint, s, and before a fall."""
NAMED_S = "1"
"""Sets are compared so many seconds after the last onset (`episode_columns.NAMED_AFTER_S`)."""
RECALLED_S = 1.0
"""A fault is recalled whose joint is alarmed within so long after its onset, s."""
RECALL = 0.95


@dataclass(frozen=True)
class Episodes:
    """What E scenarios ask for: arrays (E,)."""

    scenarios: tuple[Scenario, ...]
    robot: Robot

    @cached_property
    def broken(self) -> Values:
        """How many joints break for good; −1 where a fault comes and goes."""
        return np.array([-1 if comes_and_goes(s) else len(joints_of(s)) for s in self.scenarios])

    @cached_property
    def moves(self) -> Values:
        return np.array([any(s.command) for s in self.scenarios])

    @cached_property
    def dead(self) -> Values:
        return np.array([is_dead(s) for s in self.scenarios])

    @cached_property
    def held_out(self) -> Values:
        """Whether its two joints are a pair that trainings should leave out."""
        out = held_out_pairs(self.robot)
        return np.array([frozenset(joints_of(s)) in out for s in self.scenarios])

    def with_kinds(self, kinds: Sequence[str]) -> Values:
        """Whether something breaks, and only in these ways."""
        return np.array([bool(s.faults) and all(f.kind in kinds for f in s.faults) for s in self.scenarios])

    @cached_property
    def joints(self) -> Values:
        """(E, J) bool: which joints break."""
        found = np.zeros((len(self.scenarios), len(self.robot.joint_names)), dtype=bool)
        for row, joints in zip(found, self.sets, strict=True):
            row[list(joints)] = True
        return found

    @cached_property
    def kind(self) -> Values:
        """Index into KINDS of the first fault's kind, −1 where nothing breaks."""
        return np.array([KINDS.index(s.faults[0].kind) if s.faults else -1 for s in self.scenarios])

    @cached_property
    def severity(self) -> Values:
        """Of the first fault, 0 where nothing breaks."""
        return np.array([s.faults[0].severity if s.faults else 0.0 for s in self.scenarios])

    @cached_property
    def sets(self) -> list[frozenset[int]]:
        """The joints that break."""
        return [frozenset(self.robot.joint_id(j) for j in joints_of(s)) for s in self.scenarios]


def numbers(column: Sequence[Any]) -> Values:
    """(E,) float; None is NaN and a bool 0 or 1."""
    return np.array([math.nan if x is None else float(x) for x in column])


def survived(rows: Columns) -> Values:
    return numbers(rows["survived"])


def of_survivors(rows: Columns, name: str) -> Values:
    """A column of those that survive; NaN for the rest."""
    return np.where(survived(rows) == 1, numbers(rows[name]), np.nan)


def of_all(rows: Columns, name: str) -> Values:
    """A column of all that count."""
    return numbers(rows[name])


def common_survivors(of: Sequence[Columns]) -> Values:
    """(E,) bool: every one of these controllers survives."""
    return np.logical_and.reduce([survived(rows) == 1 for rows in of])


def by_joint(values: Values, episodes: Episodes) -> Values:
    """(E, 1 + J) for `statistics.least` and `greatest`: an episode counts for each joint that breaks in it."""
    return np.column_stack((values, episodes.joints))


@dataclass(frozen=True)
class FaultRows:
    """F faults that robots stood to feel, of the episodes chosen; arrays (F,)."""

    delay: Values
    """ms from the onset to the alarm; inf: missed."""
    load: Values
    """ms from the onset to the first load on the joint; inf: never."""
    severity: Values
    kind: Values
    """Index into KINDS."""
    believed: Values
    """Index into KINDS of the kind believed, −1 none; NaN where nobody was asked."""


def felt_faults(rows: Columns, episodes: Episodes, chosen: Values) -> FaultRows:
    """`chosen` (E,) bool; a void episode has no faults."""
    found = []
    for i in np.flatnonzero(chosen):
        if rows["survived"][i] is None:
            continue
        for f, fault in enumerate(episodes.scenarios[i].faults):
            if rows["felt"][i][f]:
                kinds = [_number(kind) for kind in (fault.kind, rows["kinds"][i][f])]
                times = [_ms(rows[name][i][f]) for name in ("delay_ms", "load_ms")]
                found.append((*times, fault.severity, *kinds))
    return FaultRows(*np.array(found, dtype=float).reshape(-1, 5).T)


def _number(kind: str | None) -> float:
    return math.nan if kind is None else -1.0 if kind == NONE else KINDS.index(kind)


def _ms(value: float | None) -> float:
    return math.inf if value is None else value


def recalled(faults: FaultRows) -> Values:
    return (faults.delay <= RECALLED_S * 1000).astype(float)


def from_load(faults: FaultRows) -> Values:
    """ms from the first load to the alarm, at least 0; NaN where the joint is never loaded."""
    with np.errstate(invalid="ignore"):
        late = np.maximum(faults.delay - faults.load, 0.0)
    return np.where(np.isinf(faults.load), np.nan, late)


def timely(faults: FaultRows) -> Values:
    late = np.round(from_load(faults), 6)  # a difference of multiples of a control period, which is not one of floats
    return np.where(np.isnan(late), np.nan, (late <= TIMELY_S * 1000).astype(float))


def exact_set(rows: Columns, episodes: Episodes) -> Values:
    """Whether the joints alarmed are those that are broken; NaN after a fall."""
    named = rows[f"named_{NAMED_S}"]
    return np.array(
        [
            math.nan if found is None else float(frozenset(found) == true)
            for found, true in zip(named, episodes.sets, strict=True)
        ]
    )


def smallest_severity(faults: Sequence[FaultRows], kind: str) -> float | None:
    """The smallest severity from which on every severity of a kind is recalled in at least RECALL; None: none is."""
    severity = np.concatenate([f.severity[f.kind == KINDS.index(kind)] for f in faults])
    found = np.concatenate([recalled(f)[f.kind == KINDS.index(kind)] for f in faults])
    smallest = None
    for each in sorted(set(severity.tolist()), reverse=True):
        if found[severity == each].mean() < RECALL:
            break
        smallest = each
    return smallest


def healthy_tax(judged: Columns, alone: Columns, chosen: Values) -> tuple[Values, Values]:
    """((E, 2) tracking, (E,) survival) of episodes in which nothing breaks.

    The first: squared v_x RMSE of the judged and of the healthy policy alone, of those that both survive; their
    `statistics.root_ratio` is the tax. The second: survival of the healthy policy less that of the judged.
    """
    both = chosen & common_survivors([judged, alone])
    squares = np.stack([np.where(both, of_all(rows, "vx_rmse"), np.nan) ** 2 for rows in (judged, alone)], axis=1)
    return squares, np.where(chosen, survived(alone) - survived(judged), np.nan)


Choice = Callable[[Episodes], Values]
STRATA: dict[str, Choice] = {
    "k=0, walking": lambda e: (e.broken == 0) & e.moves,
    "k=0, standing": lambda e: (e.broken == 0) & ~e.moves,
    "k=1": lambda e: e.broken == 1,
    "k=1, dead": lambda e: (e.broken == 1) & e.dead,
    "k=2": lambda e: e.broken == 2,
    "k=2, held out": lambda e: (e.broken == 2) & e.held_out,
    "k=3": lambda e: e.broken == 3,
    "k=4": lambda e: e.broken == 4,
    "comes and goes": lambda e: e.broken == -1,
}
"""Name -> which episodes (E,) bool."""
