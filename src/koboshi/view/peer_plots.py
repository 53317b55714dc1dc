"""How fast learners of several libraries came to walk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from koboshi.view.plots import COLOURS, Path_, _figure, _png


def race_curves(parts: Sequence[Mapping[str, Any]], path: Path_ = None) -> bytes:
    """parts: of each seed, name -> what `stages.peers.race` found; a line a seed, a dot where the policy walks."""
    with _figure(1, 1, (8, 4.2)) as (drawing, axes):
        for name, colour in zip(dict.fromkeys(name for part in parts for name in part), COLOURS, strict=False):
            for i, found in enumerate(part[name] for part in parts if name in part):
                known = [point for point in found["curve"] if point["vx_rmse"] is not None]
                seconds, errors = [p["seconds"] for p in known], [p["vx_rmse"] for p in known]
                axes.plot(seconds, errors, color=colour, linewidth=1.5, label=name if i == 0 else None)
                if found["walks_s"] is not None:
                    axes.plot(seconds[-1], errors[-1], "o", color=colour)
        axes.set_xlabel("seconds of learning")
        axes.set_ylabel("v_x RMSE, m/s")
        axes.set_ylim(bottom=0)
        axes.legend()
        return _png(drawing, path)
