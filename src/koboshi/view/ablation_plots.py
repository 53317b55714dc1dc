"""What each change of a training cost in each world."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from koboshi.view.plots import Path_, _figure, _png, _write_cells


def losses_map(lost: Mapping[str, Mapping[str, float]], path: Path_ = None) -> bytes:
    """lost: change -> world -> share of robots that fell more than without it; the first change is drawn on top."""
    worlds = list(next(iter(lost.values())))
    values = 100 * np.array([[by_world[world] for world in worlds] for by_world in lost.values()])
    reach = max(5.0, float(np.abs(values).max()))
    with _figure(1, 1, (3 + 0.85 * len(worlds), 1.6 + 0.4 * len(lost))) as (drawing, axes):
        axes.imshow(values, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto")
        _write_cells(axes, values, "{:+.1f}", np.abs(values) > 0.7 * reach)
        axes.set_xticks(range(len(worlds)), [world.replace("_", "\n") for world in worlds])
        axes.set_yticks(range(len(lost)), list(lost))
        axes.set_title("survival lost, points")
        return _png(drawing, path)
