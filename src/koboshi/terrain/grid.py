"""A grid of sub-terrains: levels of difficulty along x, types along y."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from koboshi.errors import KoboshiError, at_least
from koboshi.robots.model import BODY, GROUND
from koboshi.terrain.cell import DEPTH, FIELD_STEP, RASTER_STEP, Array, Cell, Site
from koboshi.terrain.heights import NO_BOX, HeightMap
from koboshi.terrain.shapes import AnySubTerrain, SubTerrain, between
from koboshi.terrain.windows import AWAY, FIELD, NOTHING, Tiles, Windows, solids


@dataclass(frozen=True)
class GridCfg:
    """Cells of every type at every level; a cell's edge is level ground at height 0, and so is all around the grid."""

    types: dict[str, AnySubTerrain | None]
    levels: int = 10
    columns: int = 20
    """Cells of each level, dealt to types by their shares."""
    size: float = 8.0
    """Side of a cell, m."""
    border: float = 1.0
    """Width of the level edge of a cell, m."""
    reach: float = 0.8
    """How far robots reach beyond their base, m: what lies further off, their physics does not hold."""
    difficulty: tuple[float, float] = (0.0, 1.0)
    """Of the first level and of the last."""
    first_level: int | None = 0
    """Robots begin at random levels up to this one; None: at all levels."""
    friction: float = 1.0
    seed: int = 0
    """Of all that is drawn: boxes, noise."""

    @property
    def present(self) -> dict[str, SubTerrain]:
        return {name: each for name, each in self.types.items() if each is not None}

    def validate(self) -> None:
        at_least("env.scene.ground.levels", self.levels, 1)
        at_least("env.scene.ground.columns", self.columns, len(self.present))
        if not self.present:
            raise KoboshiError("env.scene.ground.types names no sub-terrain")
        for name, least in (("size", 4 * FIELD_STEP), ("border", FIELD_STEP)):
            value = getattr(self, name)
            if not value >= least or abs(value / FIELD_STEP - round(value / FIELD_STEP)) > 1e-6:
                raise KoboshiError(f"env.scene.ground.{name} is a multiple of {FIELD_STEP} m from {least}, not {value}")
        if not self.size > 2 * self.border:
            raise KoboshiError(f"a cell of {self.size} m is all edge where its border is {self.border} m")
        if not all(0 <= d <= 1 for d in self.difficulty):
            raise KoboshiError(f"env.scene.ground.difficulty goes from 0 to 1, not {self.difficulty}")
        if self.first_level is not None and not 0 <= self.first_level < self.levels:
            raise KoboshiError(f"env.scene.ground.first_level is one of {self.levels} levels, not {self.first_level}")
        if not self.reach > 0:
            raise KoboshiError(f"env.scene.ground.reach is above 0 m, not {self.reach}")
        if not self.friction >= 0:
            raise KoboshiError(f"env.scene.ground.friction is at least 0, not {self.friction}")

    def build(self) -> Grid:
        return Grid(self)


class Grid:
    """A `Ground` of which each simulation holds what its robot can reach.

    Thousands of boxes in every simulation would cost more than the robot. A robot that walks on does not notice when
    another window takes the place of the one before, for both agree as far as it reaches.
    """

    def __init__(self, cfg: GridCfg) -> None:
        self.cfg, self.site = cfg, Site(cfg.size, cfg.border)
        self.types = list(cfg.present)
        self._type_of_column = _deal([each.share for each in cfg.present.values()], cfg.columns)
        self.cells = [[self._cell(level, column) for column in range(cfg.columns)] for level in range(cfg.levels)]
        self.first_level = cfg.levels - 1 if cfg.first_level is None else cfg.first_level
        self._maps: dict[torch.device, HeightMap] = {}

    def _cell(self, level: int, column: int) -> Cell:
        cfg, kind = self.cfg, self._type_of_column[column]
        steps = max(cfg.levels - 1, 1)
        rng = np.random.default_rng((cfg.seed, level, column))
        return list(cfg.present.values())[kind].build(self.site, between(cfg.difficulty, level / steps), rng)

    @property
    def column_types(self) -> list[str]:
        """The type of each column."""
        return [self.types[kind] for kind in self._type_of_column]

    def centre(self, level: int, column: int) -> tuple[float, float]:
        """World x, y of a cell's middle, m."""
        size = self.cfg.size
        return (level - (self.cfg.levels - 1) / 2) * size, (column - (self.cfg.columns - 1) / 2) * size

    @cached_property
    def starts(self) -> Tensor:
        """(L, C, 3) where robots begin in each cell, m."""
        rows = [[(*self.centre(i, k), cell.start) for k, cell in enumerate(row)] for i, row in enumerate(self.cells)]
        return torch.tensor(rows)

    @cached_property
    def _tiles(self) -> Tiles:
        """One more on each side than the grid has: robots outside reach into it."""
        along, across = (math.ceil(n * self.cfg.size / 2) * 2 + 2 for n in (self.cfg.levels, self.cfg.columns))
        return Tiles((along, across), self.cfg.reach)

    def tile_of(self, points: Tensor) -> Tensor:
        return self._tiles.of(points)

    @cached_property
    def windows(self) -> Windows:
        return self._tiles.windows(self._boxes, self._fields)

    def height(self, x: Tensor, y: Tensor) -> Tensor:
        if x.device not in self._maps:
            self._maps[x.device] = self._map.to(x.device)
        return self._maps[x.device](x, y)

    @cached_property
    def _map(self) -> HeightMap:
        field = self._field
        return HeightMap(torch.from_numpy(self._tops()), None if field is None else torch.from_numpy(field).float())

    def _tops(self) -> Array:
        """(rows, columns) of `HeightMap`; the ground around the grid is at 0."""
        n = round(self.cfg.size / RASTER_STEP)
        tops = np.full((self.cfg.columns * n, self.cfg.levels * n), NO_BOX, dtype=np.float32)
        for level, row in enumerate(self.cells):
            for column, cell in enumerate(row):
                part = tops[column * n : (column + 1) * n, level * n : (level + 1) * n]
                for box in cell.boxes:
                    x0, y0, x1, y1 = (round((at + self.cfg.size / 2) / RASTER_STEP) for at in (*box.low, *box.high))
                    part[y0:y1, x0:x1] = np.maximum(part[y0:y1, x0:x1], box.top)
        return np.pad(tops, 1)

    @cached_property
    def _boxes(self) -> Array:
        """(B, 5) all of the world's, as `Tiles.windows` takes them; around the grid is level ground."""
        found = [
            (*(at + x for at, x in zip(box.low + box.high, centre * 2, strict=True)), box.top)
            for cell, centre in self._placed
            for box in cell.boxes
        ]
        x, y = self.cfg.levels * self.cfg.size / 2, self.cfg.columns * self.cfg.size / 2
        wide = self.cfg.size + self._tiles.side + self.cfg.reach  # as far as from the outermost tile, and more
        found += [(-x - wide, y, x + wide, y + wide, 0.0), (-x - wide, -y - wide, x + wide, -y, 0.0)]
        return np.array([*found, (x, -y, x + wide, y, 0.0), (-x - wide, -y, -x, y, 0.0)])

    @property
    def _fields(self) -> Array:
        """(F, 4) two corners of each cell whose ground is a height field."""
        half = self.cfg.size / 2
        found = [(x - half, y - half, x + half, y + half) for cell, (x, y) in self._placed if cell.heights is not None]
        return np.array(found).reshape(-1, 4)

    @property
    def _placed(self) -> list[tuple[Cell, tuple[float, float]]]:
        """Every cell and its middle."""
        return [(cell, self.centre(i, k)) for i, row in enumerate(self.cells) for k, cell in enumerate(row)]

    @cached_property
    def _field(self) -> Array | None:
        """(R, C) heights of the vertices of all cells; None where no cell has any. Within cells of boxes it lies deeper
        than all of them: their sides hide the slope down to it."""
        n = round(self.cfg.size / FIELD_STEP)
        if not len(self._fields):
            return None
        deep = min(0.0, *(float(cell.heights.min()) for cell, _ in self._placed if cell.heights is not None))
        deep = min(deep, float(self._boxes[:, 4].min())) - 2 * DEPTH
        heights = np.zeros((self.cfg.columns * n + 1, self.cfg.levels * n + 1))
        for level, row in enumerate(self.cells):
            for column, cell in enumerate(row):
                part = heights[column * n : (column + 1) * n + 1, level * n : (level + 1) * n + 1]
                if cell.heights is not None:
                    part[:] = cell.heights
                else:
                    part[1:-1, 1:-1] = deep
        return heights

    def add_to(self, spec: mujoco.MjSpec) -> None:
        common = {"friction": (self.cfg.friction, 0.005, 0.0001), "contype": GROUND, "conaffinity": BODY}
        for name in self.windows.boxes:
            _add_box(spec, [0.0, 0.0, AWAY], [NOTHING] * 3, name=name, **common)
        # MuJoCo bounds the world once for all; a plane, far below, has it look at every geom.
        plane = mujoco.mjtGeom.mjGEOM_PLANE
        spec.worldbody.add_geom(name="ground_abyss", type=plane, size=(0, 0, 1), pos=(0, 0, AWAY / 2), **common)
        self._add_field(spec, common)

    def draw_on(self, spec: mujoco.MjSpec) -> None:
        seen = {"contype": 0, "conaffinity": 0}
        for pos, size in zip(*(each.tolist() for each in solids(self._boxes)), strict=True):
            _add_box(spec, pos, size, **seen)
        self._add_field(spec, seen)

    def _add_field(self, spec: mujoco.MjSpec, common: dict[str, Any]) -> None:
        if self._field is None:
            return
        rows, columns = self._field.shape
        low, high = float(self._field.min()), float(self._field.max())
        size = ((columns - 1) * FIELD_STEP / 2, (rows - 1) * FIELD_STEP / 2, max(high - low, 1e-3), DEPTH)
        spec.add_hfield(name=FIELD, size=size, nrow=rows, ncol=columns, userdata=self._field.ravel())
        spec.worldbody.add_geom(
            name=FIELD, type=mujoco.mjtGeom.mjGEOM_HFIELD, hfieldname=FIELD, pos=(0, 0, low), **common
        )


def _add_box(spec: mujoco.MjSpec, pos: list[float], size: list[float], **common: Any) -> None:
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, pos=pos, size=size, **common)


def _deal(shares: list[float], columns: int) -> list[int]:
    """Which type each column has: as many columns as its share gives it, at least one."""
    counts = np.maximum(1, np.floor(np.array(shares) / sum(shares) * columns).astype(int))
    while counts.sum() != columns:
        lacking = np.array(shares) / sum(shares) * columns - counts
        if counts.sum() < columns:
            counts[lacking.argmax()] += 1
        else:
            counts[np.where(counts > 1, lacking, np.inf).argmin()] -= 1
    return np.repeat(np.arange(len(shares)), counts).tolist()
