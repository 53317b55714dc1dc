"""What a run's reward was made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from koboshi.view.plots import Path_, _figure, _png

OTHERS = 0.01
"""Terms that never had this share of the magnitudes are drawn together."""


def reward_shares(steps: Sequence[float], earned: Mapping[str, Sequence[float]], path: Path_ = None) -> bytes:
    """earned: term -> what it gave at each of `steps` (iterations). Gains above, costs below, as shares of all
    magnitudes."""
    from matplotlib import colormaps

    values = {name: np.asarray(row, dtype=float) for name, row in earned.items()}
    whole = np.sum([np.abs(v) for v in values.values()], axis=0)
    shares = {name: v / np.where(whole > 0, whole, 1) for name, v in values.items()}
    named = {name: share for name, share in shares.items() if np.abs(share).max(initial=0) >= OTHERS}
    rest = [share for name, share in shares.items() if name not in named]
    if rest:
        named["others"] = np.sum(rest, axis=0)
    colours = colormaps["tab20"](np.linspace(0, 1, 20))
    with _figure(1, 1, (9, 4.6)) as (drawing, axes):
        above, below = np.zeros(len(steps)), np.zeros(len(steps))
        for i, (name, share) in enumerate(named.items()):
            gain, cost = share.clip(min=0), share.clip(max=0)
            colour = colours[i % 20]
            axes.fill_between(steps, above, above + gain, color=colour, linewidth=0, label=name.replace("_", " "))
            axes.fill_between(steps, below, below + cost, color=colour, linewidth=0)
            above, below = above + gain, below + cost
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_ylim(-1, 1)
        axes.set_xlabel("iteration")
        axes.set_ylabel("share of all terms' magnitudes")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
        return _png(drawing, path)
