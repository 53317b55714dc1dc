"""Verbs that look at what was made, and at robots."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from koboshi.cli.app import app
from koboshi.cli.options import RUNS, Overrides, Root, task_named

suggest_app = typer.Typer(help="Read a run and propose settings.", no_args_is_help=True)
app.add_typer(suggest_app, name="suggest")
WALK = (0.7, 0.0, 0.0)


@app.command()
def evaluate(
    controller: Annotated[str, typer.Argument(help="Controller or policy: a file, a pipeline or a run.")],
    overrides: Overrides = None,
    scenarios: Annotated[Path | None, typer.Option(help="Frozen scenario file.")] = None,
    world: Annotated[str | None, typer.Option(help="soft_gains, pushed, …; koboshi list worlds says which.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of metrics, report, videos.")] = Path("runs/evaluate"),
    root: Root = RUNS,
) -> None:
    """Judge a controller on frozen scenarios, beside the healthy policy alone and oracles."""
    from koboshi import config
    from koboshi.stages import evaluate as stage
    from koboshi.stages import play as playing
    from koboshi.stages.folders import find, task_of
    from koboshi.stages.progress import console

    path = find(controller, root)
    task = config.override(task_of(path), overrides or [])
    console.print(playing.controllers_table(stage.evaluate(task, path, out, scenarios, world)))


@app.command()
def play(
    run: Annotated[str, typer.Argument(help="Run, checkpoint or controller.")],
    overrides: Overrides = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="joint@seconds[:kind[:severity[:duration[:period]]]], left_knee@3.0; any number of them."),
    ] = None,
    command: Annotated[tuple[float, float, float], typer.Option(help="v_x v_y (m/s) yaw rate (rad/s).")] = WALK,
    seconds: float = 12.0,
    camera: str = "three_quarter",
    ground: Annotated[str | None, typer.Option(help="Type of rough ground to begin on, as stairs_up.")] = None,
    level: Annotated[int, typer.Option(help="Its level; with --ground.")] = 0,
    video: Annotated[Path, typer.Option(help="A .mp4, or a .gif of at most 3 MB.")] = Path("play.mp4"),
    root: Root = RUNS,
) -> None:
    """Film a checkpoint, perhaps with faults."""
    from koboshi.errors import KoboshiError
    from koboshi.stages import play as playing
    from koboshi.stages.folders import find

    if ground is None and level:
        raise KoboshiError("--level is one of a type of ground: give --ground too")
    path, cell = find(run, root), None if ground is None else (ground, level)
    for key, value in playing.play(path, fault or [], command, seconds, camera, video, overrides or [], cell).items():
        print(f"{key}: {value}")


@app.command("list")
def list_(
    what: Annotated[
        Literal["everything", "faults", "worlds", "banks", "ground"],
        typer.Argument(
            help="faults: their kinds, and a picture of what each does; worlds: to judge controllers in; "
            "banks: which specialist serves which joints; ground: a picture of a task's rough ground."
        ),
    ] = "everything",
    task: Annotated[
        str,
        typer.Option(help="faults: the task whose shipped robot is shown; banks: whose specialists; ground: whose."),
    ] = "h1-walk",
    joint: Annotated[str | None, typer.Option(help="faults: the joint that fails; a knee by default.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="faults, ground: folder of the picture; runs/faults or runs/ground by default.")
    ] = None,
    root: Root = RUNS,
) -> None:
    """Tasks, robots with their joints, and runs; or kinds of fault, worlds, who serves which joint, rough ground."""
    from koboshi.stages import fault_traces, ground_picture, tables

    if what == "worlds":
        tables.show_worlds()
    elif what == "banks":
        tables.show_banks(task_named(task, None))
    elif what == "faults":
        tables.show_faults(fault_traces.picture(task_named(task, None), joint, out or Path("runs/faults")))
    elif what == "ground":
        print(ground_picture.picture(task_named(task, None), out or Path("runs/ground")))
    else:
        tables.show_everything(root)


@app.command()
def check(
    robot: Annotated[str, typer.Argument(help="Robot, for instance unitree_go2.")],
    out: Annotated[Path, typer.Option(help="Folder of the joints' step responses.")] = Path("runs/check"),
    frequency: Annotated[float, typer.Option(help="Hz that a rotor is to answer at with the gains proposed.")] = 10.0,
    damping_ratio: Annotated[float, typer.Option(help="And its damping ratio.")] = 2.0,
) -> None:
    """Say what is missing or wrong in a robot, before anything is trained on it; exit code 1 where anything is.

    What it says of gains is advice.
    """
    from koboshi import robots
    from koboshi.robots.gains import Answer
    from koboshi.stages import check as stage
    from koboshi.stages import tables

    findings = stage.check(robots.find(robot), out / robot, Answer(frequency, damping_ratio))
    tables.show_findings(robot, findings)
    print(out / robot / stage.PICTURE)
    if any(found.kind != stage.ADVICE for found in findings):
        sys.exit(1)


@app.command()
def demo(
    overrides: Overrides = None,
    task: Annotated[str, typer.Option(help="Task whose shipped controller is shown.")] = "h1-walk",
    out: Path = Path("runs/demo"),
) -> None:
    """A shipped controller loses joints and walks on."""
    from koboshi.stages import play as playing

    playing.demo(out, task, overrides or [])
    written = [out / name for name in ("metrics.json", "video.mp4", "report.html")]
    print("  ".join(str(path) for path in written if path.exists()))


@suggest_app.callback()
def suggest() -> None:
    """Read a run and propose settings."""


@suggest_app.command("clips")
def clips(
    run: Annotated[str, typer.Argument(help="A run of koboshi train.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the picture; the run's own by default.")] = None,
    root: Root = RUNS,
) -> None:
    """What each reward term was worth over a run, and bounds for those with rare, large values."""
    from koboshi.errors import unknown
    from koboshi.runs import list_runs
    from koboshi.stages import suggest as stage
    from koboshi.stages import tables

    folder = next((path for path in (Path(run), root / run) if (path / "metrics.jsonl").is_file()), None)
    if folder is None:
        raise unknown("run", run, [path.relative_to(root).as_posix() for path in list_runs(root)])
    tables.show_worths(stage.clips(folder, out or folder))
    print(f"{out or folder}/rewards.png")
