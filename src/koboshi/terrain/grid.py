"""A grid of sub-terrains: levels of difficulty along x, types along y."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koboshi.errors import KoboshiError, at_least
from koboshi.robots.model import BODY, GROUND
from koboshi.terrain.cell import DEPTH, FIELD_STEP, RASTER_STEP, Array, Box, Cell, Site, square
from koboshi.terrain.ground import Windows
from koboshi.terrain.heights import NO_BOX, HeightMap
from koboshi.terrain.shapes import AnySubTerrain, SubTerrain, between

FIELD, BOX = "ground_field", "ground_box_{}"
AWAY = -100.0
"""Where geoms are that an environment has no use for, m."""
_NOTHING = 0.01
"""Half the sides of a box that is away, m."""


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
    """Width of the level edge of a cell, m; more than a robot reaches beyond its base."""
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
        for name, least in (("size", 4 * FIELD_STEP), ("border", 0.5)):
            value = getattr(self, name)
            if not value >= least or abs(value / FIELD_STEP - round(value / FIELD_STEP)) > 1e-6:
                raise KoboshiError(f"env.scene.ground.{name} is a multiple of {FIELD_STEP} m from {least}, not {value}")
        if not self.size > 2 * self.border:
            raise KoboshiError(f"a cell of {self.size} m is all edge where its border is {self.border} m")
        if not all(0 <= d <= 1 for d in self.difficulty):
            raise KoboshiError(f"env.scene.ground.difficulty goes from 0 to 1, not {self.difficulty}")
        if self.first_level is not None and not 0 <= self.first_level < self.levels:
            raise KoboshiError(f"env.scene.ground.first_level is one of {self.levels} levels, not {self.first_level}")
        if not self.friction >= 0:
            raise KoboshiError(f"env.scene.ground.friction is at least 0, not {self.friction}")

    def build(self) -> Grid:
        return Grid(self)


class Grid:
    """A `Ground` of which each simulation holds the one cell that its robot is in, with level ground around it.

    Thousands of boxes in every simulation would cost more than the robot. As all cells end in level ground, a robot
    that leaves one does not notice when another takes its place.
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

    def cell_of(self, points: Tensor) -> Tensor:
        """(…, ≥ 2) world x, y -> (…) int64, level · columns + column, or the number of cells outside."""
        counts = self.cfg.levels, self.cfg.columns
        level, column = ((points[..., i] / self.cfg.size + counts[i] / 2).floor() for i in range(2))
        within = (level >= 0) & (level < counts[0]) & (column >= 0) & (column < counts[1])
        return torch.where(within, level * counts[1] + column, counts[0] * counts[1]).long()

    def height(self, x: Tensor, y: Tensor) -> Tensor:
        if x.device not in self._maps:
            self._maps[x.device] = self._map.to(x.device)
        return self._maps[x.device](x, y)

    @cached_property
    def _map(self) -> HeightMap:
        field = self._field
        return HeightMap(torch.from_numpy(self._tops()), None if field is None else torch.from_numpy(field).float())

    def _tops(self) -> Array:
        """(rows, columns) of `HeightMap`."""
        n = round(self.cfg.size / RASTER_STEP)
        tops = np.full((self.cfg.columns * n, self.cfg.levels * n), NO_BOX, dtype=np.float32)
        for level, row in enumerate(self.cells):
            for column, cell in enumerate(row):
                part = tops[column * n : (column + 1) * n, level * n : (level + 1) * n]
                for box in cell.boxes:
                    x0, y0, x1, y1 = (round((at + self.cfg.size / 2) / RASTER_STEP) for at in (*box.low, *box.high))
                    part[y0:y1, x0:x1] = np.maximum(part[y0:y1, x0:x1], box.top)
        return tops

    @cached_property
    def _field(self) -> Array | None:
        """(R, C) heights of the vertices of all cells and of an edge around them, 0 where boxes are; None where no cell
        has any."""
        n = round(self.cfg.size / FIELD_STEP)
        heights, found = np.zeros((self.cfg.columns * n + 1, self.cfg.levels * n + 1)), False
        for level, row in enumerate(self.cells):
            for column, cell in enumerate(row):
                if cell.heights is not None:
                    found = True
                    heights[column * n : (column + 1) * n + 1, level * n : (level + 1) * n + 1] = cell.heights
        return np.pad(heights, self._rim) if found else None

    @property
    def _rim(self) -> int:
        """Vertices of the field beyond the grid: a robot in the last cell may step there."""
        return round(self.cfg.border / FIELD_STEP)

    @property
    def _boxes(self) -> int:
        """Boxes that the fullest cell has."""
        return max(1, *(len(cell.boxes) for row in self.cells for cell in row))

    @cached_property
    def windows(self) -> Windows:
        flat = [cell for row in self.cells for cell in row]
        centres = [self.centre(i, k) for i in range(self.cfg.levels) for k in range(self.cfg.columns)]
        # Outside there is one box, larger than all of the grid.
        extent = max(self.cfg.levels, self.cfg.columns) * self.cfg.size
        outside = Cell([square(100 * extent, 0.0)])
        pos = np.full((len(flat) + 1, self._boxes, 3), (0.0, 0.0, AWAY))
        size = np.full_like(pos, _NOTHING)
        for i, (cell, centre) in enumerate(zip([*flat, outside], [*centres, (0.0, 0.0)], strict=True)):
            for k, box in enumerate(cell.boxes):
                pos[i, k], size[i, k] = _solid(box, centre, self.cfg.border, self.cfg.size / 2)
        names = [BOX.format(k) for k in range(self._boxes)]
        field = None
        if self._field is not None:
            field = torch.tensor([0.0 if cell.heights is not None else AWAY for cell in [*flat, outside]])
        return Windows(names, torch.from_numpy(pos).float(), torch.from_numpy(size).float(), FIELD, field)

    def add_to(self, spec: mujoco.MjSpec) -> None:
        common = {"friction": (self.cfg.friction, 0.005, 0.0001), "contype": GROUND, "conaffinity": BODY}
        for name in self.windows.boxes:
            spec.worldbody.add_geom(
                name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=(_NOTHING,) * 3, pos=(0, 0, AWAY), **common
            )
        # MuJoCo bounds the world once for all; a plane, far below, has it look at every geom.
        spec.worldbody.add_geom(
            name="ground_abyss", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1), pos=(0, 0, AWAY / 2), **common
        )
        if self._field is not None:
            self._add_field(spec, self._field, common)

    def draw_on(self, spec: mujoco.MjSpec) -> None:
        seen = {"contype": 0, "conaffinity": 0}
        for level, row in enumerate(self.cells):
            for column, cell in enumerate(row):
                for box in cell.boxes:
                    pos, size = _solid(box, self.centre(level, column))
                    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=size, pos=pos, **seen)
        for box in self._surroundings:
            pos, size = _solid(box, (0.0, 0.0))
            spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=size, pos=pos, **seen)
        if self._field is not None:
            # Out of sight where boxes are, whose edges hide the slope down to it.
            inside = np.array([[cell.heights is None for cell in row] for row in self.cells]).T
            self._add_field(spec, np.where(self._within(inside), AWAY, self._field), seen)

    @property
    def _surroundings(self) -> list[Box]:
        """Level ground about the grid, as wide as a cell."""
        x, y, wide = self.cfg.levels * self.cfg.size / 2, self.cfg.columns * self.cfg.size / 2, self.cfg.size
        sides = [Box((-x - wide, s * y), (x + wide, s * (y + wide)), 0.0) for s in (1, -1)]
        return sides + [Box((s * x, -y), (s * (x + wide), y), 0.0) for s in (1, -1)]

    def _within(self, cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(columns, levels) of cells -> (R, C) vertices that lie within these, their edges not."""
        n = round(self.cfg.size / FIELD_STEP)
        inner = np.zeros((n, n), dtype=bool)
        inner[1:, 1:] = True
        return np.pad(np.kron(cells, inner), (self._rim, self._rim + 1))

    def _add_field(self, spec: mujoco.MjSpec, heights: Array, common: dict[str, Any]) -> None:
        rows, columns = heights.shape
        low, high = float(heights.min()), float(heights.max())
        size = ((columns - 1) * FIELD_STEP / 2, (rows - 1) * FIELD_STEP / 2, max(high - low, 1e-3), DEPTH)
        spec.add_hfield(name=FIELD, size=size, nrow=rows, ncol=columns, userdata=heights.ravel())
        spec.worldbody.add_geom(
            name=FIELD, type=mujoco.mjtGeom.mjGEOM_HFIELD, hfieldname=FIELD, pos=(0, 0, low), **common
        )


def _solid(box: Box, centre: tuple[float, float], apron: float = 0.0, edge: float = np.inf) -> tuple[Array, Array]:
    """(3,) place and (3,) half sides of a box in the world; sides at `edge` from the centre lie `apron` further out."""
    low, high = (
        np.array([at + np.sign(at) * apron * (abs(at) > edge - 1e-6) for at in c]) for c in (box.low, box.high)
    )
    return np.array([*(centre + (low + high) / 2), box.top - DEPTH / 2]), np.array([*(abs(high - low) / 2), DEPTH / 2])


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
