"""How far learners with different actors came on rough ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from koboshi.view.plots import COLOURS, Path_, _figure, _png

Curve = tuple[Sequence[float], Sequence[float]]
SMOOTHED = 0.02
"""Share of a curve that each of its points is the mean of."""


def estimator_curves(curves: Mapping[str, Sequence[Curve]], path: Path_ = None) -> bytes:
    """curves: name -> of each seed, environment steps and the mean level of the ground. Thick: the mean over seeds."""
    with _figure(1, 1, (8, 4.2)) as (drawing, axes):
        for (name, seeds), colour in zip(curves.items(), COLOURS, strict=False):
            length = min(len(steps) for steps, _ in seeds)
            levels = np.array([_smooth(level[:length]) for _, level in seeds])
            steps = np.array(seeds[0][0][:length]) / 1e6
            axes.plot(steps, levels.mean(0), color=colour, linewidth=2, label=name)
            if len(seeds) > 1:
                axes.fill_between(steps, levels.min(0), levels.max(0), color=colour, alpha=0.15, linewidth=0)
        axes.set_xlabel("environment steps, millions")
        axes.set_ylabel("mean level of the ground")
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left", ncols=2)
        return _png(drawing, path)


def _smooth(values: Sequence[float]) -> np.ndarray:
    width = max(1, round(SMOOTHED * len(values)))
    padded = np.pad(np.asarray(values, dtype=float), (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")
