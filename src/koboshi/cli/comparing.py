"""Verbs that compare: controllers on frozen scenarios, and ways to learn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from koboshi.cli.app import app
from koboshi.cli.options import RUNS, Overrides, Root, Task, task_named
from koboshi.errors import KoboshiError

benchmark_app = typer.Typer(help="Compare controllers on frozen scenarios.", no_args_is_help=True)
app.add_typer(benchmark_app, name="benchmark")
compare_app = typer.Typer(help="Compare ways to learn, with equal budgets.", no_args_is_help=True)
app.add_typer(compare_app, name="compare")


@benchmark_app.callback()
def benchmark() -> None:
    """Compare controllers on frozen scenarios."""


@benchmark_app.command("faults")
def faults(
    overrides: Overrides = None,
    task: Annotated[str, typer.Option(help="h1-walk, go2-flat, g1-walk, or one from outside.")] = "h1-walk",
    pipeline: Annotated[
        str, typer.Option(help="A seed's pipeline: run, folder or controller; {task} and {seed} are filled in.")
    ] = "{task}/seed-{seed}",
    seed: Annotated[list[int] | None, typer.Option(help="Training seeds; may be given several times. 1, 2, 3.")] = None,
    controller: Annotated[list[str] | None, typer.Option(help="B0 … B5one; several times. Without it: all.")] = None,
    world: Annotated[
        list[str] | None, typer.Option(help="Several times. Without it: all worlds but other_backend.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of parts and report.")] = None,
    join: Annotated[
        list[Path] | None, typer.Option(help="Make nothing but the report, of these folders' parts; several times.")
    ] = None,
    train: Annotated[bool, typer.Option("--train", help="First train the rivals that are not there yet.")] = False,
    episodes: Annotated[int | None, typer.Option(help="At most so many a part, to try something out.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Count so long after the onset; without it 20 s.")] = None,
    hours: Annotated[float, typer.Option(help="Robot-hours of a seed to count false alarms in.")] = 10.0,
    root: Root = RUNS,
) -> None:
    """Every controller on the same frozen scenarios of faults: parts, and one report of them.

    The parts, files OUT/seed<k>/<controller>/<world>.json, can be made on several machines; killed, it goes on.
    """
    from koboshi.stages import benchmark as stage

    plan = stage.Benchmark(
        task=task_named(task, overrides),
        pipeline=pipeline,
        out=out or root / "benchmark" / task,
        root=root,
        seeds=tuple(dict.fromkeys(seed or (1, 2, 3))),
        controllers=tuple(controller or ()),
        worlds=tuple(world or ()),
        episodes=episodes,
        seconds=seconds,
        hours=hours,
    )
    if join and (train or seed or controller or world):
        raise KoboshiError("--join makes no part: --train, --seed, --controller and --world have no use beside it")
    if not join:
        plan.check()
    if train:
        stage.train(plan)
    if not join:
        stage.make(plan)
    for path in stage.report(plan, join or [plan.out]):
        print(path)


@benchmark_app.command("ground")
def ground(
    controller: Annotated[str, typer.Argument(help="Controller or policy: a file, a pipeline or a run.")],
    overrides: Overrides = None,
    robots: Annotated[int, typer.Option(help="Robots in each type of ground at each level.")] = 8,
    speed: Annotated[float, typer.Option(help="Speed that they are told to walk at, m/s.")] = 0.6,
    seconds: Annotated[float, typer.Option(help="How long they walk.")] = 20.0,
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = Path("runs/ground"),
    root: Root = RUNS,
) -> None:
    """How much of its task's rough ground a controller crosses, by type and level."""
    from koboshi import config
    from koboshi.stages import ground_benchmark as stage
    from koboshi.stages import tables
    from koboshi.stages.folders import find, task_of

    path = find(controller, root)
    task = config.override(task_of(path), overrides or [])
    tables.show_crossing(stage.benchmark(task, path, out, robots, speed, seconds))
    print(f"{out}/ground.json  {out}/ground.png")


@app.command("ablate")
def ablate(
    run: Annotated[str, typer.Argument(help="Run whose training is repeated: TASK/NAME, a folder or a checkpoint.")],
    overrides: Overrides = None,
    group: Annotated[str, typer.Option(help="events, delays or noise.")] = "events",
    term: Annotated[
        list[str] | None, typer.Option(help="Change these alone; several times. Without it: all of the group.")
    ] = None,
    by: Annotated[list[str] | None, typer.Option(help="remove or shrink; both may be given. remove.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Training seeds; several times. The run's own.")] = None,
    load: Annotated[str | None, typer.Option(help="The run or checkpoint that the run itself began with.")] = None,
    episodes: Annotated[int, typer.Option(help="Robots that walk in each world.")] = 128,
    name: Annotated[str, typer.Option(help="Folder of its runs under the task's.")] = "ablation",
    root: Root = RUNS,
) -> None:
    """Train a run again without each of its randomisations, and rank them by what worlds that differ then cost.

    The budget is the run's own, or agent.trainer.timesteps=…. Killed, it goes on.
    """
    from koboshi import config
    from koboshi.stages import ablation as stage
    from koboshi.stages import tables
    from koboshi.stages.folders import find, task_of

    checkpoint = find(run, root)
    plan = stage.Ablation(
        run=checkpoint,
        task=config.override(task_of(checkpoint), overrides or []),
        root=root,
        load=None if load is None else find(load, root),
        name=name,
        group=group,
        terms=tuple(dict.fromkeys(term or ())),
        modes=tuple(dict.fromkeys(by or ("remove",))),
        seeds=tuple(dict.fromkeys(seed or ())),
        episodes=episodes,
    )
    tables.show_ablation(stage.ablate(plan))
    print(f"{plan.folder}/{group}/ablation.json  {plan.folder}/{group}/ablation.png")


@compare_app.callback()
def compare() -> None:
    """Compare ways to learn, with equal budgets."""


@compare_app.command("estimators")
def estimators(
    task: Task,
    overrides: Overrides = None,
    name: Annotated[str, typer.Option(help="Folder of its runs under the task's.")] = "estimators",
    seed: Annotated[list[int] | None, typer.Option(help="Training seeds; several times. 1, 2.")] = None,
    actor: Annotated[
        list[str] | None, typer.Option(help="plain, frames, est, him, dreamwaq, rma; several times. All.")
    ] = None,
    root: Root = RUNS,
) -> None:
    """Train a task's policy under actors that guess what no sensor shows, and measure them. Killed, it goes on."""
    from koboshi.stages import estimators as stage
    from koboshi.stages import tables

    plan = stage.Comparison(
        task_named(task, overrides),
        root,
        name,
        tuple(dict.fromkeys(seed or (1, 2))),
        tuple(dict.fromkeys(actor or stage.VARIANTS)),
    )
    tables.show_estimators(stage.compare(plan))
    print(f"{plan.folder}/estimators.json  {plan.folder}/estimators.png")
