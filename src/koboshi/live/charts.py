"""The page's charts as HTML, pure functions of moments: who acts, what the detector believes, what happened when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from typing import NamedTuple

from koboshi.faults import KINDS, Fault
from koboshi.live.moment import HEALTHY, NOBODY, Moment, Note

INK, MUTED, LINE = "#1a222e", "#687280", "#e3e8ee"
RED, BLUE, GREEN, AMBER = "#d5380a", "#0065a4", "#008a64", "#e69f00"
_WIDTH, _LEFT, _ROW = 330, 118, 14
"""Pixels of a strip: whole, before its time axis, a row."""


class Health(NamedTuple):
    """How the clock goes. pace, speed: simulated seconds in a second, measured and asked for."""

    pace: float | None
    speed: float
    paused: bool
    too_slow: bool
    viewers: int


def status(moment: Moment, health: Health) -> str:
    """Who acts, in large letters, and how the clock goes."""
    colour = {HEALTHY: BLUE, NOBODY: MUTED}.get(moment.actor, GREEN)
    actor = moment.actor
    if moment.fell:
        colour, actor = INK, "fell; stands up anew"
    broken = "".join(_chip(_fault_text(fault), RED) for fault in moment.faults.values())
    return (
        f'<div style="font-size:13px;color:{INK};padding:2px 4px">'
        f'<div style="color:{MUTED};font-size:11px">acting</div>'
        f'<div data-role="actor" style="font-size:19px;font-weight:700;color:{colour}">{escape(actor)}</div>'
        f'<div style="color:{MUTED};font-size:11px;margin-top:2px">{_clock(moment, health)}</div>'
        f'<div style="min-height:26px;margin-top:4px">{broken or _chip("all joints well", MUTED)}</div></div>'
    )


def _clock(moment: Moment, health: Health) -> str:
    viewers = f"{health.viewers} viewer{'' if health.viewers == 1 else 's'}"
    if health.paused:
        pace = "paused"
    elif health.pace is None:
        pace = "…"
    else:
        pace = f"{health.pace:.2f}× real time"
    if health.too_slow:
        late = f"this machine is too slow: {health.pace:.2f}× of the {health.speed:.2f}× asked for"
        pace = f'<b data-role="slow" style="color:{RED}">{late}</b>'
    return f"{moment.time:.1f} s · {pace} · {viewers}"


def _fault_text(fault: Fault) -> str:
    severity = "" if fault.severity == 1 else f" {fault.severity:.2f}"
    return f"{fault.joint}: {fault.kind.replace('_', ' ')}{severity}"


def _chip(text: str, colour: str) -> str:
    return (
        f'<span style="display:inline-block;background:{colour};color:white;border-radius:9px;padding:1px 8px;'
        f'margin:1px 3px 1px 0;font-size:11px">{escape(text)}</span>'
    )


def belief_bars(names: Sequence[str], moment: Moment) -> str:
    """One bar a joint: how sure the detector is that it is broken, and what it takes the fault for; red where it truly
    is broken, bold where it alarms."""
    if not moment.listens:
        return f'<div style="font-size:12px;color:{MUTED};padding:4px">nobody listens to a detector now</div>'
    # Of a robot that lies, or has just been stood up, nothing is believed yet.
    nothing = [0.0] * len(names)
    believed = nothing if moment.probability is None else moment.probability
    alarms = nothing if moment.alarm is None else moment.alarm
    rows = (
        _bar(name, float(p), bool(alarm), name in moment.faults, _said(moment, j))
        for j, (name, p, alarm) in enumerate(zip(names, believed, alarms, strict=True))
    )
    return f'<div style="padding:2px 4px">{"".join(rows)}</div>'


def _said(moment: Moment, joint: int) -> str:
    """The likeliest kind and the severity that are believed of an alarmed joint, or nothing."""
    if moment.levels is None or not moment.levels[:, joint].any():
        return ""
    level = moment.levels[:, joint]
    return f"{KINDS[int(level.argmax())].replace('_', ' ')} {level.sum():.1f}"


def _bar(name: str, probability: float, alarm: bool, broken: bool, said: str) -> str:
    weight, colour = ("700", AMBER) if alarm else ("400", BLUE)
    ink = RED if broken else INK
    return (
        f'<div style="display:flex;align-items:center;height:{_ROW}px;font-size:11px" data-joint="{escape(name)}" '
        f'data-alarm="{int(alarm)}">'
        f'<span style="width:{_LEFT}px;color:{ink};font-weight:{weight};overflow:hidden;white-space:nowrap">'
        f"{escape(name)}</span>"
        f'<span style="flex:1;height:11px;background:{LINE};border-radius:3px;overflow:hidden;position:relative">'
        f'<span style="display:block;height:11px;width:{100 * probability:.1f}%;background:{colour}"></span>'
        f'<span style="position:absolute;left:5px;top:-2px;font-size:10px;color:{INK}">{escape(said)}</span></span>'
        f'<span style="width:34px;text-align:right;color:{MUTED}">{probability:.2f}</span></div>'
    )


def timeline(names: Sequence[str], moments: Sequence[Moment], seconds: float) -> str:
    """The last `seconds` as strips: what was broken, what alarmed, who acted. moments: oldest first."""
    if not moments:
        return ""
    end = moments[-1].time
    rows: list[tuple[str, str, list[tuple[float, float]]]] = []
    for joint in sorted({name for moment in moments for name in moment.faults}, key=list(names).index):
        rows.append((f"broken: {joint}", RED, _spans(moments, lambda m, joint=joint: joint in m.faults)))  # type: ignore[misc]
    for j, joint in enumerate(names):
        spans = _spans(moments, lambda m, j=j: m.alarm is not None and bool(m.alarm[j]))  # type: ignore[misc]
        if spans:
            rows.append((f"alarm: {joint}", AMBER, spans))
    for actor in dict.fromkeys(moment.actor for moment in moments if moment.actor != NOBODY):
        colour = BLUE if actor == HEALTHY else GREEN
        rows.append((actor, colour, _spans(moments, lambda m, actor=actor: m.actor == actor)))  # type: ignore[misc]
    return _strips(rows, end, seconds)


def _spans(moments: Iterable[Moment], holds: Callable[[Moment], bool]) -> list[tuple[float, float]]:
    """(first, last) times of each stretch of moments of which it holds."""
    found: list[tuple[float, float]] = []
    open_ = False
    for moment in moments:
        if holds(moment):
            found = [*found[:-1], (found[-1][0], moment.time)] if open_ else [*found, (moment.time, moment.time)]
            open_ = True
        else:
            open_ = False
    return found


def _strips(rows: Sequence[tuple[str, str, list[tuple[float, float]]]], end: float, seconds: float) -> str:
    height = _ROW * len(rows) + 18
    parts = list(_axis(height, end, seconds))
    for i, (name, colour, spans) in enumerate(rows):
        y = _ROW * i
        short = name if len(name) < 22 else name[:20] + "…"
        parts.append(f'<text x="0" y="{y + 11}" font-size="10.5" fill="{INK}">{escape(short)}</text>')
        for first, last in spans:
            x, until = _x(first, end, seconds), _x(last, end, seconds)
            width = max(until - x, 2.0)
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 5}" rx="2" fill="{colour}"/>'
            )
    return f'<svg viewBox="0 0 {_WIDTH} {height}" style="width:100%;padding:2px 4px">{"".join(parts)}</svg>'


def _axis(height: int, end: float, seconds: float) -> Iterator[str]:
    for back in range(0, int(seconds) + 1, 2):
        x = _x(end - back, end, seconds)
        label = "now" if back == 0 else f"−{back} s"
        anchor = "end" if back == 0 else "middle"
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - 16}" stroke="{LINE}"/>'
        yield (
            f'<text x="{x:.1f}" y="{height - 4}" font-size="9.5" fill="{MUTED}" text-anchor="{anchor}">{label}</text>'
        )


def _x(time: float, end: float, seconds: float) -> float:
    share = 1 - (end - time) / seconds
    return _LEFT + (_WIDTH - _LEFT) * min(max(share, 0.0), 1.0)


def notes(found: Sequence[Note], count: int = 5) -> str:
    """What happened, the newest first."""
    colours = {"fault": RED, "fall": RED, "alarm": AMBER, "switch": GREEN}
    lines = (
        f'<div><span style="color:{MUTED};display:inline-block;width:52px">{note.time:.2f} s</span>'
        f'<span style="color:{colours.get(note.kind, INK)}">{escape(note.text)}</span></div>'
        for note in list(found)[: -count - 1 : -1]
    )
    return f'<div style="font-size:11.5px;padding:2px 4px;min-height:{17 * count}px">{"".join(lines)}</div>'
