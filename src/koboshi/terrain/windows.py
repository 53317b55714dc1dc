"""The ground within reach of a robot, tile by tile: what a simulation has to hold of a world of thousands of boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koboshi.terrain.cell import DEPTH, Array

AWAY = -100.0
"""Where geoms are that an environment has no use for, m."""
NOTHING = 0.01
"""Half the sides of a box that is away, m."""
FIELD, BOX = "ground_field", "ground_box_{}"


class Windows(NamedTuple):
    """What each of T tiles asks an environment's physics to hold; one more is for all that lies outside of them."""

    boxes: list[str]
    """Names of the M geoms that are boxes."""
    pos: Tensor
    """(T + 1, M, 3) their places in the world, m."""
    size: Tensor
    """(T + 1, M, 3) half their sides, m."""
    field: str
    """Name of the height field."""
    field_lift: Tensor | None
    """(T + 1,) how far it is moved up, m; None where there is none."""


@dataclass(frozen=True)
class Tiles:
    """Squares about the world's origin; a robot in one reaches `reach` m beyond it."""

    counts: tuple[int, int]
    """Along x and y."""
    reach: float
    side: float = 1.0

    @property
    def outside(self) -> int:
        return self.counts[0] * self.counts[1]

    def of(self, points: Tensor) -> Tensor:
        """(…, ≥ 2) world points -> (…) int64, the tile they are in, or `outside`."""
        ix, iy = ((points[..., i] / self.side + self.counts[i] / 2).floor() for i in range(2))
        within = (ix >= 0) & (ix < self.counts[0]) & (iy >= 0) & (iy < self.counts[1])
        return torch.where(within, ix * self.counts[1] + iy, self.outside).long()

    def _bounds(self) -> tuple[Array, Array]:
        """(T, 2) least and (T, 2) greatest corner of what is within reach, m."""
        ix, iy = np.divmod(np.arange(self.outside), self.counts[1])
        low = (np.stack((ix, iy), 1) - np.array(self.counts) / 2) * self.side
        return low - self.reach, low + self.side + self.reach

    def _near(self, rectangles: Array) -> list[list[int]]:
        """(B, ≥ 4) x, y of two corners -> of each tile the rectangles within its reach."""
        found: list[list[int]] = [[] for _ in range(self.outside)]
        half = np.array(self.counts) / 2
        low = np.floor((rectangles[:, :2] - self.reach + 1e-6) / self.side + half).clip(0).astype(int)
        high = np.ceil((rectangles[:, 2:4] + self.reach - 1e-6) / self.side + half).clip(max=self.counts).astype(int)
        for i, ((x0, y0), (x1, y1)) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
            for ix in range(x0, x1):
                for tile in range(ix * self.counts[1] + y0, ix * self.counts[1] + y1):
                    found[tile].append(i)
        return found

    def windows(self, boxes: Array, fields: Array) -> Windows:
        """boxes: (B, 5) x, y of two corners and height of the top, m; fields: (F, 4) where a height field is the
        ground."""
        low, high = self._bounds()
        held = [_seen(boxes[near], low[tile], high[tile]) for tile, near in enumerate(self._near(boxes))]
        # Outside all is level.
        extent = 1e3 * max(self.counts)
        held.append(np.array([[-extent, -extent, extent, extent, 0.0]]))
        most = max(1, *map(len, held))
        pos = np.full((len(held), most, 3), (0.0, 0.0, AWAY))
        size = np.full_like(pos, NOTHING)
        for tile, each in enumerate(held):
            pos[tile, : len(each)], size[tile, : len(each)] = solids(each)
        lift = None
        if len(fields):
            lift = torch.tensor([0.0 if near else AWAY for near in [*self._near(fields), []]])
        return Windows(
            [BOX.format(k) for k in range(most)],
            torch.from_numpy(pos).float(), torch.from_numpy(size).float(), FIELD, lift,
        )  # fmt: skip


def solids(boxes: Array) -> tuple[Array, Array]:
    """(B, 5) as in `Tiles.windows` -> (B, 3) places and (B, 3) half sides."""
    low, high, top = boxes[:, :2], boxes[:, 2:4], boxes[:, 4:]
    return (
        np.concatenate(((low + high) / 2, top - DEPTH / 2), 1),
        np.concatenate(((high - low) / 2, np.full_like(top, DEPTH / 2)), 1),
    )


def _seen(boxes: Array, low: Array, high: Array) -> Array:
    """(B, 5) boxes cut to the rectangle between two corners; those that others cover are left out."""
    cut = np.column_stack((np.maximum(boxes[:, :2], low), np.minimum(boxes[:, 2:4], high), boxes[:, 4]))
    cut = cut[(cut[:, 2:4] - cut[:, :2] > 1e-6).all(1)]
    return cut[~_covered(cut)]


def _covered(boxes: Array) -> NDArray[np.bool_]:
    """(B, 5) -> (B,) which lie within another that is as high; of two alike the first stays."""
    a, b = boxes[:, None], boxes[None]
    within = (a[..., :2] >= b[..., :2] - 1e-9).all(-1) & (a[..., 2:4] <= b[..., 2:4] + 1e-9).all(-1)
    within &= (a[..., 4] < b[..., 4]) | (
        (a[..., 4] == b[..., 4]) & (np.arange(len(boxes)) < np.arange(len(boxes))[:, None])
    )
    covered: NDArray[np.bool_] = within.any(1)
    return covered
