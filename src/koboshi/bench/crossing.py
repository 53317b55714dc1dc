"""How much rough ground a controller crosses: robots in cells of every type and level, told to walk straight on.

Definitions
- **crossed**: a robot came further than half a cell from where it began, in its horizontal plane, before it fell.
- **speed**: its mean forward speed, until it had crossed, fell or time was over, as a share of the one commanded. The
  first second, in which it starts, does not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from koboshi.bench.rollout import Recording
from koboshi.errors import KoboshiError, at_least
from koboshi.faults import Scenario, Scenarios
from koboshi.terrain import GridCfg

START_S = 1.0
PASSED = 0.8
"""Share of robots that must cross for a level to be passed."""


@dataclass(frozen=True)
class Cells:
    """Where N robots walk; int64 (N,) each."""

    level: Tensor
    column: Tensor
    kind: Tensor
    """Index of the type among `types`."""
    types: tuple[str, ...]
    levels: int
    size: float
    """Side of a cell, m."""


def every_cell(ground: GridCfg, robots: int) -> Cells:
    """`robots` in each type at each level, spread over the type's columns."""
    at_least("robots", robots, 1)
    columns = ground.build().column_types
    types = tuple(dict.fromkeys(columns))
    rows = [
        (level, where[i % len(where)], kind)
        for kind, name in enumerate(types)
        for where in [[c for c, other in enumerate(columns) if other == name]]
        for level in range(ground.levels)
        for i in range(robots)
    ]
    level, column, kind = torch.tensor(rows).T
    return Cells(level, column, kind, types, ground.levels, ground.size)


def straight_on(robot: str, count: int, speed: float, seed: int) -> Scenarios:
    """Healthy episodes in which robots hold the heading that they begin with, as far as their task's yaw rates go, at
    `speed` m/s."""
    if not speed > 0:
        raise KoboshiError(f"robots cross ground at a speed above 0 m/s, not {speed}")
    return Scenarios(robot, seed, (Scenario((), (speed, 0.0, 0.0), 0.0, heading=0.0),) * count)


@dataclass(frozen=True)
class Crossings:
    """(N,) each: bool, bool, and the share of the commanded speed, NaN of robots that fell or had crossed within the
    first second."""

    crossed: Tensor
    fell: Tensor
    speed: Tensor


def crossings(recording: Recording, cells: Cells) -> Crossings:
    """What became of each robot."""
    steps = torch.arange(len(recording.pose))[:, None]
    alive = steps < recording.end[None, :]
    away = (recording.pose[..., :2] - recording.pose[0, :, :2]).norm(dim=-1)
    there = (away > cells.size / 2) & alive
    crossed = there.any(0)
    before = alive & (there.cumsum(0) == 0)
    counts = before & (steps >= round(START_S / recording.step_dt))
    forward = recording.velocity[..., 0].masked_fill(~counts, 0.0).sum(0) / counts.sum(0)
    fell = ~crossed & (recording.end < len(recording.pose))
    return Crossings(crossed, fell, forward / recording.command[0, :, 0])


def crossing_figures(found: Crossings, cells: Cells) -> dict[str, Any]:
    """By type: shares by level that crossed and fell, the speed kept by those that crossed, and the level passed.

    `passed` counts levels from the first one on in each of which at least 80 % crossed.
    """
    by_type = {name: _of_type(found, cells, kind) for kind, name in enumerate(cells.types)}
    return {
        "crossed": float(found.crossed.float().mean()),
        "fell": float(found.fell.float().mean()),
        "speed": _mean(found.speed[found.crossed]),
        "passed": sum(figures["passed"] for figures in by_type.values()) / len(by_type),
        "types": by_type,
    }


def _of_type(found: Crossings, cells: Cells, kind: int) -> dict[str, Any]:
    rows = [(cells.kind == kind) & (cells.level == level) for level in range(cells.levels)]
    crossed = [float(found.crossed[row].float().mean()) for row in rows]
    short = [level for level, share in enumerate(crossed) if share < PASSED]
    return {
        "crossed": crossed,
        "fell": [float(found.fell[row].float().mean()) for row in rows],
        "speed": [_mean(found.speed[row & found.crossed]) for row in rows],
        "passed": short[0] if short else cells.levels,
    }


def _mean(values: Tensor) -> float | None:
    known = values[~values.isnan()]
    return float(known.mean()) if len(known) else None
