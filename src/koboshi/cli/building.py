"""Verbs that make something: policies, data, detectors, specialists, all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from koboshi.cli.app import app, detector_app
from koboshi.cli.options import (
    RUNS,
    Load,
    Name,
    Overrides,
    PathsAndOverrides,
    Resume,
    Root,
    Task,
    say,
    split,
    start_of,
    task_named,
)
from koboshi.errors import KoboshiError


@app.command()
def train(
    task: Task,
    overrides: Overrides = None,
    name: Name = None,
    load: Load = None,
    resume: Resume = False,
    root: Root = RUNS,
) -> None:
    """Train the healthy policy."""
    from koboshi.stages import healthy

    cfg, start = task_named(task, overrides), start_of(load, resume, root)
    say(healthy.train(cfg, root, name, overrides or [], start).path)


@app.command()
def collect(
    task: Task,
    policy: Annotated[str, typer.Option(help="Run, checkpoint or controller that acts.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    root: Root = RUNS,
) -> None:
    """Collect the detector's data: robots that break at random moments, with the truth beside."""
    from koboshi.stages import collect as stage
    from koboshi.stages import folders
    from koboshi.stages import play as playing

    cfg = task_named(task, overrides)
    stage.collection(cfg)
    checkpoint = folders.find(policy, root)
    controller, _ = playing.load_any(checkpoint, cfg)
    print(stage.collect(cfg, controller, checkpoint, out or root / task / "data" / folders.label(checkpoint), 1))


@app.command()
def data(
    paths: Annotated[list[Path], typer.Argument(help="Data sets.")],
    split: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Shares of the episodes to calibrate alarms on and to test on, drawn anew: 0.15 0.15."),
    ] = None,
    seed: int = 0,
) -> None:
    """Show what is in data sets and refuse what must not be learnt from."""
    from koboshi.stages import detector, tables

    tables.show_statistics(detector.inspect(paths, split, seed))
    print(f"{paths[0]}/statistics.json  {paths[0]}/statistics.png")


@detector_app.command("train")
def detector_train(
    paths: PathsAndOverrides,
    task: Annotated[str, typer.Option(help="Task whose settings are used.")] = "h1-walk",
    load: Annotated[Path | None, typer.Option(help="A detector whose weights it begins with.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the detector.")] = None,
    root: Root = RUNS,
) -> None:
    """Train a detector on data sets."""
    from koboshi.stages import detector, ranks, tables

    data_sets, overrides = split(paths)
    cfg = task_named(task, overrides)
    folder = out or root / task / "detector" / data_sets[-1].name
    found = detector.train(cfg, data_sets, folder, load)
    if ranks.is_first():
        tables.show_detector(found, folder)


@detector_app.command("eval")
def detector_eval(
    paths: Annotated[list[Path], typer.Argument(help="Data sets.")],
    detector: Annotated[Path, typer.Option(help="Detector file or its folder.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the figures.")] = None,
) -> None:
    """Delay, misses, false alarms and confusion of a detector."""
    from koboshi.stages import detector as stage
    from koboshi.stages import tables

    path = detector / stage.FILE if detector.is_dir() else detector
    folder = out or path.parent / "eval"
    tables.show_detector(stage.evaluate(path, paths, folder), folder)


@app.command()
def specialists(
    task: Task,
    healthy: Annotated[str, typer.Option(help="Run or checkpoint of the healthy policy.")],
    overrides: Overrides = None,
    detector: Annotated[
        Path | None, typer.Option(help="Detector that switches in specialists.detector_share of the environments.")
    ] = None,
    oracle: Annotated[
        bool, typer.Option("--oracle", help="The truth switches everywhere, specialists.switch_delay_s late.")
    ] = False,
    name: Name = None,
    load: Load = None,
    resume: Resume = False,
    root: Root = RUNS,
) -> None:
    """Train all specialists in one masked batch."""
    from koboshi.stages import specialists as stage
    from koboshi.stages.detector import FILE
    from koboshi.stages.folders import find

    if (detector is None) != oracle:
        raise KoboshiError("who switches in training? give either --detector FILE or --oracle")
    cfg, start = task_named(task, overrides), start_of(load, resume, root)
    path = detector / FILE if detector is not None and detector.is_dir() else detector
    run = stage.train(cfg, find(healthy, root), path, root, name, overrides or [], start)
    say(run.path)


@app.command()
def switch(
    controller: Annotated[str, typer.Argument(help="Controller: a file or a pipeline.")],
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Controller's file to write.")] = Path("runs/switch/controller.safetensors"),
    root: Root = RUNS,
) -> None:
    """Choose when and how a controller switches, on robots that break as in training."""
    from koboshi import config
    from koboshi.stages import switch as stage
    from koboshi.stages import tables
    from koboshi.stages.folders import find, task_of

    path = find(controller, root)
    task = config.override(task_of(path), overrides or [])
    tables.show_switch(stage.switch(task, path, out))
    say(out)


@app.command()
def pipeline(
    task: Task,
    overrides: Overrides = None,
    name: Annotated[str, typer.Option(help="The pipeline's name; one of that name is resumed.")] = "pipeline",
    seed: Annotated[int, typer.Option(min=1, help="Draws all numbers of all stages anew.")] = 1,
    load: Load = None,
    root: Root = RUNS,
) -> None:
    """Everything: train, gate, collect, detect, specialists, again, switch, evaluate. Killed, it goes on."""
    from koboshi.stages import play as playing
    from koboshi.stages.pipeline import Pipeline, seeds
    from koboshi.stages.progress import console

    settings = [*(seeds(task_named(task, None), seed) if seed > 1 else ()), *(overrides or [])]
    metrics = Pipeline(task_named(task, settings), root, name, settings, start_of(load, False, root).load).run()
    console.print(playing.controllers_table(metrics))


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Run, checkpoint or controller.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    root: Root = RUNS,
) -> None:
    """Write a controller as ONNX with its contract, and check that it does what it did (extra export)."""
    from koboshi.stages import exporting
    from koboshi.stages.folders import find, label, task_of

    path = find(run, root)
    folder = out or root / "export" / f"{task_of(path).name}-{label(path)}"
    found = exporting.export(path, folder, overrides or [])
    print(f"against torch: actions differ by {found['action_error']:.1e} at most")
    print(f"against training: poses differ by {found['pose_error']:.1e} m or rad after a second in plain MuJoCo")
    print(folder)
