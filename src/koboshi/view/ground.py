"""A map of a grid of sub-terrains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from koboshi.view.plots import HEAT, Path_, _figure, _png, _write_cells
from koboshi.view.trajectory import Array


def ground_map(
    heights: Array, sides: tuple[float, float], levels: int, types: Sequence[str], path: Path_ = None
) -> bytes:
    """heights: (rows along y, columns along x) m of a rectangle with these `sides`, m; types: of each column of cells.

    Levels run upwards, types to the right; light falls from the upper left.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LightSource, Normalize

    across, along = sides[1], sides[0]
    with _figure(1, 1, (min(14.0, 3 + 0.55 * len(types)), 2 + 0.55 * levels)) as (drawing, axes):
        reach = max(0.05, float(np.abs(heights).max()))
        colours = colormaps["BrBG_r"]
        step = along / heights.shape[1]
        shaded = LightSource(315, 40).shade(
            heights.T, colours, Normalize(-reach, reach), vert_exag=3.0, dx=step, dy=step, blend_mode="soft"
        )
        square = (along / levels) / (across / len(types))
        axes.imshow(shaded, origin="lower", extent=(0, len(types), 0, levels), aspect=square)
        _label_types(axes, types)
        axes.set_yticks(np.arange(levels) + 0.5, [str(level) for level in range(levels)])
        axes.set_ylabel("level")
        axes.grid(False)
        axes.tick_params(length=0)
        scale = ScalarMappable(Normalize(-reach, reach), colours)
        drawing.colorbar(scale, ax=axes, label="height, m", shrink=0.8, pad=0.01)
        return _png(drawing, path)


def crossing_map(crossed: Mapping[str, Sequence[float]], path: Path_ = None) -> bytes:
    """crossed: type -> share of robots that crossed its cells, 0 to 1, by level from the easiest up."""
    from matplotlib.colors import LinearSegmentedColormap

    shares = np.array(list(crossed.values())).T
    levels, types = shares.shape
    heat = LinearSegmentedColormap.from_list("crossed", [tuple(c / 255 for c in colour) for colour in HEAT])
    with _figure(1, 1, (2 + 0.95 * types, 1.4 + 0.36 * levels)) as (drawing, axes):
        axes.imshow(shares, origin="lower", cmap=heat, vmin=0, vmax=1, aspect="auto")
        _write_cells(axes, shares, "{:.0%}", np.abs(shares - 0.5) > 0.4)
        axes.set_xticks(range(types), [name.replace("_", "\n") for name in crossed])
        axes.set_yticks(range(levels))
        axes.set_ylabel("level")
        axes.set_title("robots that crossed")
        return _png(drawing, path)


def _label_types(axes: Any, types: Sequence[str]) -> None:
    """Each type once, under the middle of its columns, with a line between two types."""
    begins = [i for i, name in enumerate(types) if i == 0 or types[i - 1] != name]
    middles = [(a + b) / 2 for a, b in zip(begins, [*begins[1:], len(types)], strict=True)]
    names = [types[i].replace("_", "\n") for i in begins]
    axes.set_xticks(middles, names)
    for begin in begins[1:]:
        axes.axvline(begin, color="white", linewidth=1.5)
