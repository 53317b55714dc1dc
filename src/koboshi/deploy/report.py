"""What a deployed loop did, in words and tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from koboshi.deploy.program import HEALTHY, Program
from koboshi.deploy.simulation import Drive, World, drive, physics_steps
from koboshi.errors import KoboshiError

RATES = (0.5, 1.0, 2.0)
"""Of the program's own."""
DELAYS_MS = (10.0, 20.0, 40.0)


def parse_break(text: str) -> tuple[str, float]:
    """`joint@seconds`."""
    joint, at, when = text.partition("@")
    try:
        return joint, float(when)
    except ValueError:
        raise KoboshiError(f"'{text}' is not joint@seconds, as left_knee@3.0") from None


def driven(
    program: Program,
    world: World,
    command: Sequence[float],
    seconds: float,
    rate: float | None,
    anyway: bool,
    delay_s: float,
    breaks: Sequence[tuple[str, float]],
) -> str:
    """Runs in real time; several lines."""
    found = drive(
        program, world, command, seconds, rate=rate, anyway=anyway, delay_s=delay_s, breaks=breaks, real_time=True
    )
    late, decided = (np.array(values) * 1e3 for values in (found.late, found.decided))
    members = program.contract["faults"]
    lines = [
        _fate(found),
        f"steps began late by {np.median(late):.3f} ms in the median, {np.percentile(late, 99):.3f} ms at p99, "
        f"{late.max():.3f} ms at most",
        f"a decision took {np.median(decided):.3f} ms in the median, {np.percentile(decided, 99):.3f} ms at p99",
    ]
    for when, member in found.switches:
        lines.append(f"{when:6.2f} s  {'the healthy policy' if member == HEALTHY else members[member]['name']} acts")
    return "\n".join(lines)


def _fate(found: Drive) -> str:
    fate = f"walked for {found.seconds:.1f} s" if found.fell_at is None else f"fell at {found.fell_at:.1f} s"
    return f"{fate}; v_x RMSE {found.vx_rmse:.3f} m/s"


def compared(program: Program, world: World, command: Sequence[float], seconds: float) -> str:
    """A table: the loop at other rates, and with targets that come late, as fast as it goes."""
    own = 1 / program.contract["control_dt"]
    low, high = (1e3 * d for d in program.contract["delay_s"])
    rows = [("rate, Hz", "delay, ms", "")]
    for factor in RATES:
        if physics_steps(1 / (own * factor), world.physics_dt) is None:
            rows.append((f"{own * factor:g}", "0", "no multiple of physics steps"))
            continue
        found = drive(program, world, command, seconds, rate=own * factor, anyway=True, real_time=False)
        rows.append((f"{own * factor:g}", "0", _fate(found)))
    for delay in DELAYS_MS:
        found = drive(program, world, command, seconds, delay_s=delay / 1e3, real_time=False)
        rows.append((f"{own:g}", f"{delay:g}", _fate(found)))
    lines = [f"{rate:>8}  {delay:>9}  {fate}".rstrip() for rate, delay, fate in rows]
    return "\n".join([f"trained at {own:g} Hz, with delays from {low:g} to {high:g} ms", *lines])
