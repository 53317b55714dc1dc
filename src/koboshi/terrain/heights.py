"""The height of a grid's ground under any point: a look-up, exact on boxes and on fields."""

from __future__ import annotations

import torch
from torch import Tensor

from koboshi.terrain.cell import FIELD_STEP, RASTER_STEP

NO_BOX = -1e9
"""In a raster, where a height field is the ground."""


class HeightMap:
    """Heights of a rectangle about the world's origin, and 0 around it.

    tops: (rows, columns) highest top of a box in each square of `RASTER_STEP`, or `NO_BOX`; the outermost squares stand
    for all around. field: (R, C) heights of vertices, `FIELD_STEP` apart; None where boxes cover all. Between four
    vertices lie two triangles, parted by the diagonal from the lesser row and column to the greater, as in MuJoCo. Rows
    run along y, columns along x.
    """

    def __init__(self, tops: Tensor, field: Tensor | None) -> None:
        self._tops, self._field = tops, field

    def to(self, device: torch.device) -> HeightMap:
        return HeightMap(self._tops.to(device), None if self._field is None else self._field.to(device))

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(…) world x and y -> (…) m."""
        rows, columns = self._tops.shape
        # Truncation is the floor, for nothing is below 0 by then.
        column = (x / RASTER_STEP + columns / 2).clamp_(0, columns - 1).long()
        row = (y / RASTER_STEP + rows / 2).clamp_(0, rows - 1).long()
        height = self._tops.view(-1)[row.mul_(columns).add_(column)]
        return height if self._field is None else torch.where(height > NO_BOX, height, self._of_field(x, y))

    def _of_field(self, x: Tensor, y: Tensor) -> Tensor:
        assert self._field is not None
        rows, columns = self._field.shape
        x = (x / FIELD_STEP + (columns - 1) / 2).clamp_(0, columns - 1.001)
        y = (y / FIELD_STEP + (rows - 1) / 2).clamp_(0, rows - 1.001)
        column, row = x.floor(), y.floor()
        x -= column
        y -= row
        flat, corner = self._field.view(-1), row.long().mul_(columns).add_(column.long())
        beside = torch.where(x >= y, corner + 1, corner + columns)
        h00, h11, between = flat[corner], flat[corner + columns + 1], flat[beside]
        return h00 + torch.maximum(x, y) * (between - h00) + torch.minimum(x, y) * (h11 - between)
