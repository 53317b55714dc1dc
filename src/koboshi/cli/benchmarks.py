"""Verbs that measure speed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from koboshi.cli.app import bench_app
from koboshi.cli.options import Overrides, task_named


@bench_app.command("speed")
def bench_speed(
    overrides: Overrides = None,
    task: str = "h1-walk",
    warp: Annotated[bool, typer.Option(help="Compare with MuJoCo Warp (extra gpu).")] = True,
    out: Path = Path("runs/bench"),
) -> None:
    """Measure the speed rows of the README."""
    from koboshi.stages import speed

    speed.bench(task_named(task, overrides), out, warp)
    print(f"{out}/speed.json")


@bench_app.command("gpu")
def bench_gpu(
    overrides: Overrides = None,
    task: str = "h1-walk",
    out: Path = Path("runs/bench"),
) -> None:
    """On a CUDA machine: the backend's contract, speeds by size, and the whole pipeline in large batches."""
    from koboshi.stages import speed

    speed.gpu(task, out, overrides or [])
    print(f"{out}/gpu.json")
