"""One cell of a grid of grounds: boxes with sharp edges, or heights of a field, around a place to begin."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

FIELD_STEP = 0.1
"""Between two vertices of a height field, m."""
RASTER_STEP = 0.05
"""Edges of boxes lie on multiples of this, m, so that a look-up knows their tops exactly."""
DEPTH = 1.0
"""How far a box reaches below its top, m: nothing falls through it."""


@dataclass(frozen=True)
class Site:
    """Where a sub-terrain is built: a square, with level ground at height 0 along its edge."""

    size: float
    """Length of its sides, m."""
    border: float
    """Width of the level edge, m."""

    @property
    def half(self) -> float:
        """From the centre to where the level edge begins, m."""
        return self.size / 2 - self.border

    def vertices(self) -> tuple[Array, Array]:
        """(n, n) x and (n, n) y, m from the centre, of a height field's vertices; y grows with the row."""
        line = np.linspace(-self.size / 2, self.size / 2, round(self.size / FIELD_STEP) + 1)
        x, y = np.meshgrid(line, line)
        return x, y

    def inside(self) -> NDArray[np.bool_]:
        """(n, n) which vertices lie within the level edge."""
        x, y = self.vertices()
        return np.maximum(abs(x), abs(y)) < self.half - 1e-9


@dataclass(frozen=True)
class Box:
    """An upright box between two corners, m from the cell's centre; its top may be walked on."""

    low: tuple[float, float]
    high: tuple[float, float]
    top: float


@dataclass(frozen=True)
class Cell:
    """Ground: either boxes that cover all of it, or heights; 0 along the edge."""

    boxes: list[Box] = field(default_factory=list)
    heights: Array | None = None
    """(n, n) of `Site.vertices`, m."""
    start: float = 0.0
    """Height of the ground at the centre, where robots begin, m."""


def on_raster(x: float) -> float:
    """The nearest multiple of `RASTER_STEP`."""
    return round(x / RASTER_STEP) * RASTER_STEP


def square(half: float, top: float) -> Box:
    return Box((-half, -half), (half, half), top)


def ring(inner: float, outer: float, top: float) -> list[Box]:
    """Four boxes between two squares about the centre; `inner` and `outer`: half their sides, m."""
    return [
        Box((-outer, inner), (outer, outer), top),
        Box((-outer, -outer), (outer, -inner), top),
        Box((inner, -inner), (outer, inner), top),
        Box((-outer, -inner), (-inner, inner), top),
    ]
