"""Bars with a rate and an estimate; where nobody watches a terminal, a line now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from koboshi.bench.rollout import Recording, rollout
from koboshi.faults import Scenarios
from koboshi.specialists.controller import Controller
from koboshi.tasks import TaskCfg

console = Console()
LINE_EVERY_S = 15.0
"""Seconds between lines where the output is no terminal."""

Update = Callable[..., None]
"""update(done, total=…, **figures): how far it is, perhaps a better total, and figures to show."""


class _Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {task.fields['unit']}/s" if speed else "–", style="cyan")


@contextmanager
def progress(title: str, total: int, unit: str = "steps", start: int = 0) -> Iterator[Update]:
    """Shows how far a piece of work is; `start` of `total` were done before."""
    if console.is_terminal:
        with _bar(title, total, unit, start) as update:
            yield update
    else:
        yield _lines(title, total, unit, start)


@contextmanager
def _bar(title: str, total: int, unit: str, start: int) -> Iterator[Update]:
    note = TextColumn("{task.fields[note]}")
    with Progress(
        TextColumn("{task.description}"), BarColumn(), _Rate(), TimeRemainingColumn(), note, console=console
    ) as bars:
        task = bars.add_task(title, total=total, completed=start, unit=unit, note="")

        def update(done: int, total: int = total, **figures: float) -> None:
            bars.update(task, completed=done, total=total, note=_note(figures))

        yield update


def _lines(title: str, total: int, unit: str, start: int) -> Update:
    began = last = time.monotonic()

    def update(done: int, total: int = total, **figures: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < LINE_EVERY_S and done < total:
            return
        last = now
        rate = (done - start) / max(now - began, 1e-9)
        left = (total - done) / rate if rate else float("inf")
        line = f"{title} {done / total:4.0%}  {rate:,.0f} {unit}/s  {left:,.0f} s left  {_note(figures)}"
        console.print(line.rstrip(), soft_wrap=True)

    return update


def _note(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in figures.items())


def watched_rollout(
    title: str, task: TaskCfg, controller: Controller, scenarios: Scenarios, seconds: float, **options: Any
) -> Recording:
    """`bench.rollout` behind a bar that counts robot steps."""
    robots = len(scenarios.episodes)
    with progress(title, scenarios.steps(task.env.step_dt, seconds) * robots) as update:
        return rollout(task.env, controller, scenarios, seconds, report=lambda t: update(t * robots), **options)


def json_safe(value: Any) -> Any:
    """The same JSON data with None for every number that JSON cannot hold (NaN, infinity)."""
    if isinstance(value, dict):
        return {key: json_safe(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
