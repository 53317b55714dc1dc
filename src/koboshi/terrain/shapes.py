"""Sub-terrains: `build(site, difficulty, rng) -> Cell`, with a difficulty from 0 to 1.

Their ranges follow Isaac Lab's rough terrains (stairs 0.05 to 0.23 m with treads of 0.3 m, slopes up to 0.4, noise of
0.02 to 0.10 m, boxes up to 0.2 m). What goes up goes up from the middle, where robots begin.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from koboshi.errors import KoboshiError
from koboshi.terrain.cell import RASTER_STEP, Array, Box, Cell, Site, on_raster, ring, square

Range = tuple[float, float]


class SubTerrain(Protocol):
    """What a grid needs to know of a type of ground."""

    @property
    def share(self) -> float:
        """Of the grid's columns, relative to the other types'."""
        ...

    def build(self, site: Site, difficulty: float, rng: np.random.Generator) -> Cell: ...


def between(bounds: Range, difficulty: float) -> float:
    """From the first at difficulty 0 to the second at 1."""
    return bounds[0] + (bounds[1] - bounds[0]) * difficulty


class _Checked:
    """Settings of which all numbers are at least 0."""

    share: float

    def validate(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(np.isfinite(n) and n >= 0 for n in numbers):
                raise KoboshiError(f"{type(self).__name__}.{each.name} is finite and at least 0, not {value}")
        if self.share == 0:
            raise KoboshiError(f"{type(self).__name__}.share is above 0; null removes a sub-terrain")


def _check_edges(cfg: _Checked, **lengths: float) -> None:
    for name, length in lengths.items():
        if length < RASTER_STEP or abs(length - on_raster(length)) > 1e-6:
            raise KoboshiError(f"{type(cfg).__name__}.{name} is a multiple of {RASTER_STEP} m, not {length} m")


@dataclass(frozen=True)
class FlatCfg(_Checked):
    """Level ground."""

    share: float = 1.0

    def build(self, site: Site, difficulty: float, rng: np.random.Generator) -> Cell:
        return Cell([square(site.size / 2, 0.0)])


@dataclass(frozen=True)
class StairsCfg(_Checked):
    """Stairs on four sides of a platform, with upright risers."""

    share: float = 1.0
    up: bool = True
    riser: Range = (0.05, 0.23)
    """Height of a step, m."""
    tread: float = 0.3
    """m."""
    platform: float = 2.0
    """Side of the platform in the middle, m; what is left over makes it larger."""

    def build(self, site: Site, difficulty: float, rng: np.random.Generator) -> Cell:
        _check_edges(self, tread=self.tread)
        treads = int((site.half - self.platform / 2) / self.tread + 1e-6)
        if treads < 1:
            raise KoboshiError(f"StairsCfg.platform of {self.platform} m leaves no room for a tread of {self.tread} m")
        riser = between(self.riser, difficulty)
        outer = [site.half - step * self.tread for step in range(treads + 1)]
        top = (treads + 1) * riser
        if not self.up:
            steps = [square(half, (step + 1) * riser) for step, half in enumerate(outer)]
            return Cell([square(site.size / 2, 0.0), *steps], start=top)
        boxes = [*ring(site.half, site.size / 2, 0.0), square(outer[-1], -top)]
        for step in range(treads):
            boxes += ring(outer[step + 1], outer[step], -(step + 1) * riser)
        return Cell(boxes, start=-top)


@dataclass(frozen=True)
class BoxesCfg(_Checked):
    """Boxes in the way; wide and low, they are platforms."""

    share: float = 1.0
    count: int = 24
    width: Range = (0.4, 1.0)
    """Least and greatest side, m."""
    height: Range = (0.05, 0.2)
    """Of the highest, m; others have at least a third of it."""
    platform: float = 2.0
    """Side of the square in the middle that is kept free, m."""

    def build(self, site: Site, difficulty: float, rng: np.random.Generator) -> Cell:
        if self.platform / 2 + self.width[0] >= site.half > self.width[0] / 2:  # or it would look for a place for ever
            raise KoboshiError(f"BoxesCfg.platform of {self.platform} m leaves no room for boxes of {self.width} m")
        highest, boxes = between(self.height, difficulty), [square(site.size / 2, 0.0)]
        while len(boxes) <= self.count:
            half_x, half_y = (on_raster(side) / 2 for side in rng.uniform(*self.width, 2))
            reach = site.half - max(half_x, half_y)
            if reach <= 0:
                raise KoboshiError(f"BoxesCfg.width of {self.width} m is too much for the {2 * site.half} m of a cell")
            low = [
                on_raster(middle - half)
                for middle, half in zip(rng.uniform(-reach, reach, 2), (half_x, half_y), strict=True)
            ]
            box = Box((low[0], low[1]), (low[0] + 2 * half_x, low[1] + 2 * half_y), highest * rng.uniform(1 / 3, 1))
            if not _covers_middle(box, self.platform / 2):
                boxes.append(box)
        return Cell(boxes)


def _covers_middle(box: Box, half: float) -> bool:
    return all(low < half and high > -half for low, high in zip(box.low, box.high, strict=True))


@dataclass(frozen=True)
class GapsCfg(_Checked):
    """Gaps to step over, one behind the other around a platform."""

    share: float = 1.0
    gap: Range = (0.05, 0.4)
    """Width, m, rounded to 0.05."""
    strip: float = 0.6
    """Ground between two gaps, m."""
    platform: float = 2.0
    """Side of the platform in the middle, m."""
    depth: float = 0.8
    """m."""

    def build(self, site: Site, difficulty: float, rng: np.random.Generator) -> Cell:
        gap, inner = on_raster(between(self.gap, difficulty)), self.platform / 2
        _check_edges(self, gap=gap, strip=self.strip, **{"platform's half": inner})
        boxes = [square(site.size / 2, -self.depth), square(inner, 0.0)]
        while inner + 2 * gap + self.strip <= site.half:
            boxes += ring(inner + gap, inner + gap + self.strip, 0.0)
            inner += gap + self.strip
        return Cell([*boxes, *ring(inner + gap, site.size / 2, 0.0)])


@dataclass(frozen=True)
class SlopeCfg(_Checked):
    """Slopes on four sides of a platform, rough where there is noise; without a slope, rough ground."""

    share: float = 1.0
    up: bool = True
    slope: Range = (0.0, 0.4)
    """How far it rises per metre."""
    noise: Range = (0.0, 0.0)
    """Heights differ by up to this from the slope, m, every 0.2 m."""
    platform: float = 2.0
    """Side of the platform in the middle, m."""

    def build(self, site: Site, difficulty: float, rng: np.random.Generator) -> Cell:
        x, y = site.vertices()
        way = np.clip(site.half - np.maximum(abs(x), abs(y)), 0, site.half - self.platform / 2)
        heights = (-1 if self.up else 1) * between(self.slope, difficulty) * way
        noise = between(self.noise, difficulty)
        return _field(site, heights + noise * _lattice(len(x), rng) * site.inside() if noise else heights)


@dataclass(frozen=True)
class WavesCfg(_Checked):
    """Waves along x and along y."""

    share: float = 1.0
    height: Range = (0.02, 0.2)
    """From the middle to a crest, m."""
    waves: int = 3
    """Number on the length of a cell."""

    def build(self, site: Site, difficulty: float, rng: np.random.Generator) -> Cell:
        x, y = site.vertices()
        turn = 2 * np.pi * self.waves / site.size
        rise = (np.cos(turn * x) + np.sin(turn * y)) / 2
        fade = np.clip(2 * (site.half - np.maximum(abs(x), abs(y))), 0, 1)
        return _field(site, between(self.height, difficulty) * rise * fade)


def _field(site: Site, heights: Array) -> Cell:
    """Robots begin on the highest point within half a metre of the middle."""
    x, y = site.vertices()
    return Cell(heights=heights, start=float(heights[np.maximum(abs(x), abs(y)) <= 0.5].max()))


def _lattice(n: int, rng: np.random.Generator) -> Array:
    """(n, n) from −1 to 1: random at every second vertex, and linear between."""
    coarse = rng.uniform(-1, 1, (n // 2 + 1, n // 2 + 1))
    at, known = np.arange(n) / 2, np.arange(n // 2 + 1)
    rows = np.array([np.interp(at, known, row) for row in coarse])
    return np.array([np.interp(at, known, column) for column in rows.T]).T


AnySubTerrain = FlatCfg | StairsCfg | BoxesCfg | GapsCfg | SlopeCfg | WavesCfg
