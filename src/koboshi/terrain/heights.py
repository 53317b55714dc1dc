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
        column = (x / RASTER_STEP + columns / 2).clamp_(0, columns - 1).int()
        row = (y / RASTER_STEP + rows / 2).clamp_(0, rows - 1).int()
        top = _at(self._tops, row.mul_(columns).add_(column))
        if self._field is None:
            return top
        # Sums and products are vectorised on a CPU, `where` is not and takes as long as a look-up.
        box = (top > NO_BOX).float()
        return self._of_field(x, y).mul_(1 - box).add_(top.mul_(box))

    def _of_field(self, x: Tensor, y: Tensor) -> Tensor:
        assert self._field is not None
        rows, columns = self._field.shape
        x = (x / FIELD_STEP + (columns - 1) / 2).clamp_(0, columns - 1.001)
        y = (y / FIELD_STEP + (rows - 1) / 2).clamp_(0, rows - 1.001)
        column, row = x.floor(), y.floor()
        x -= column
        y -= row
        corner = row.int().mul_(columns).add_(column.int())
        beside = (x < y).int().mul_(columns - 1).add_(corner).add_(1)
        h00, h11, between = (_at(self._field, each) for each in (corner, corner + columns + 1, beside))
        return h00 + torch.maximum(x, y) * (between - h00) + torch.minimum(x, y) * (h11 - between)


def _at(table: Tensor, index: Tensor) -> Tensor:
    """The numbers at `index` of all of a table's; twice as fast as `table.view(-1)[index]`."""
    return table.view(-1).index_select(0, index.reshape(-1)).view(index.shape)
