"""How every joint answers a small step of its target: small multiples, to be looked at before training."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

from koboshi.robots.step_response import StepResponse
from koboshi.view.plots import COLOURS, _figure, _png

_COLUMNS = 4


def plot_step_responses(title: str, responses: Sequence[StepResponse], suspect: Collection[str], path: Path) -> bytes:
    """A PNG, one panel a joint, those of `suspect` (joint names) in the colour of a fault."""
    rows = max(1, math.ceil(len(responses) / _COLUMNS))
    with _figure(rows, _COLUMNS, (11, 0.9 + 1.35 * rows), sharex=True, sharey=True, squeeze=False) as (figure, grid):
        panels = list(grid.flat)
        for axes, response in zip(panels, responses, strict=False):
            bad = response.joint in suspect
            axes.axhline(1.0, color=COLOURS[5], linewidth=0.8, linestyle="--")
            axes.plot(response.time, response.value, color="#d55e00" if bad else COLOURS[0], linewidth=1.4)
            axes.set_title(response.joint, fontsize=8)
            axes.text(0.98, 0.06, _words(response), transform=axes.transAxes, ha="right", fontsize=7)
            axes.tick_params(labelsize=7)
        for axes in panels[len(responses) :]:
            axes.set_visible(False)
        figure.suptitle(f"{title}: one step of each joint's target, base held", fontsize=11, fontweight="bold")
        figure.supxlabel("s", fontsize=9)
        figure.supylabel("share of the step", fontsize=9)
        return _png(figure, path)


def _words(response: StepResponse) -> str:
    frequency = response.frequency_hz
    over = f"+{100 * response.overshoot:.0f} %" + (f" at {frequency:.1f} Hz" if frequency is not None else "")
    settled = f"{response.settling_s:.2f} s" if math.isfinite(response.settling_s) else "never settles"
    return f"{over}, {settled}"
