"""The verb that runs exported controllers; nothing that it uses imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from koboshi.cli.app import app
from koboshi.errors import KoboshiError


@app.command()
def deploy(
    folder: Annotated[Path, typer.Argument(help="What `koboshi export` wrote.")],
    sim: Annotated[bool, typer.Option("--sim", help="On the robot in plain MuJoCo.")] = False,
    command: Annotated[tuple[float, float, float], typer.Option(help="v_x v_y (m/s) yaw rate (rad/s).")] = (0.5, 0, 0),
    seconds: Annotated[float, typer.Option(help="How long.")] = 10.0,
    rate: Annotated[float | None, typer.Option(help="Steps a second; another rate than trained at is refused.")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="At another rate all the same.")] = False,
    delay: Annotated[float, typer.Option(help="ms by which targets reach the drives late.")] = 0.0,
    dies: Annotated[list[str] | None, typer.Option(help="joint@seconds; several times.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="A table of other rates and delays.")] = False,
) -> None:
    """Run an exported controller alone, without torch, in real time, and say how evenly it ran (extra export)."""
    from koboshi.deploy import report
    from koboshi.deploy.program import Program
    from koboshi.deploy.simulation import World

    if not sim:
        raise KoboshiError("koboshi drives no hardware; give --sim, or call koboshi.deploy.program.Program on a robot")
    program = Program(folder)
    world = World(folder, program)
    if compare:
        if rate is not None or anyway or delay or dies:
            raise KoboshiError("--compare chooses rates and delays; --rate, --anyway, --delay and --dies have no use")
        print(report.compared(program, world, command, seconds))
        return
    breaks = [report.parse_break(text) for text in dies or []]
    print(report.driven(program, world, command, seconds, rate, anyway, delay / 1000, breaks))
