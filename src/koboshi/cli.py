"""The command line: verbs that parse, call one function and print."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from koboshi.errors import KoboshiError

if TYPE_CHECKING:
    from koboshi.stages.folders import Start
    from koboshi.tasks import TaskCfg

app = typer.Typer(
    help="Legged robots that keep moving when their joints fail.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
detector_app = typer.Typer(help="Train or judge a fault detector.", no_args_is_help=True)
bench_app = typer.Typer(help="Benchmarks.", no_args_is_help=True)
app.add_typer(detector_app, name="detector")
app.add_typer(bench_app, name="bench")

Task = Annotated[str, typer.Argument(help="Task, for instance h1-walk.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings: env.num_envs=2048 agent.gamma=0.98 …")
]
PathsAndOverrides = Annotated[
    list[str],
    typer.Argument(metavar="DATA... [KEY=VALUE]...", help="Data sets, and settings: detector.training.epochs=4"),
]
Root = Annotated[Path, typer.Option(help="Folder of all runs.")]
Name = Annotated[
    str | None,
    typer.Option(
        help="The run's name. A run of that name and the same settings is resumed. Without a name: the unfinished "
        "run with the same settings, or else a new one named after the time."
    ),
]
Load = Annotated[
    str | None, typer.Option(help="Run or checkpoint whose weights a new run starts from; settings may differ.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Fail unless there is a run to resume.")]
RUNS = Path("runs")
WALK = (0.7, 0.0, 0.0)
_OVERRIDE = re.compile(r"\w+(\.[\w-]+)*=")


@app.callback()
def outside(
    module: Annotated[
        list[str] | None,
        typer.Option(
            help="File or module with TASKS, ROBOTS, ACTORS or AGENTS of your own; may be given several times."
        ),
    ] = None,
) -> None:
    """Legged robots that keep moving when their joints fail."""
    from koboshi import plugins

    plugins.load(module or [])


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

    cfg, start = _task(task, overrides), _start(load, resume, root)
    _say(healthy.train(cfg, root, name, overrides or [], start).path)


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

    cfg = _task(task, overrides)
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
    out: Annotated[Path | None, typer.Option(help="Folder of the detector.")] = None,
    root: Root = RUNS,
) -> None:
    """Train a recurrent detector on data sets."""
    from koboshi.stages import detector, ranks, tables

    data_sets, overrides = _split(paths)
    cfg = _task(task, overrides)
    folder = out or root / task / "detector" / data_sets[-1].name
    found = detector.train(cfg, data_sets, folder)
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
    detector: Annotated[Path | None, typer.Option(help="Detector that switches in training.")] = None,
    oracle: Annotated[bool, typer.Option("--oracle", help="The truth switches, up to 0.2 s late.")] = False,
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
    cfg, start = _task(task, overrides), _start(load, resume, root)
    path = detector / FILE if detector is not None and detector.is_dir() else detector
    run = stage.train(cfg, find(healthy, root), path, root, name, overrides or [], start)
    _say(run.path)


@app.command()
def pipeline(
    task: Task,
    overrides: Overrides = None,
    name: Annotated[str, typer.Option(help="The pipeline's name; one of that name is resumed.")] = "pipeline",
    root: Root = RUNS,
) -> None:
    """Everything: train, gate, collect, detect, specialists, again, evaluate. Killed, it is resumed where it was."""
    from koboshi.stages import play as playing
    from koboshi.stages.pipeline import Pipeline
    from koboshi.stages.progress import console

    metrics = Pipeline(_task(task, overrides), root, name, overrides or []).run()
    console.print(playing.controllers_table(metrics))


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
    video: Path = Path("play.mp4"),
    root: Root = RUNS,
) -> None:
    """Film a checkpoint, perhaps with faults."""
    from koboshi.stages import play as playing
    from koboshi.stages.folders import find

    path = find(run, root)
    for key, value in playing.play(path, fault or [], command, seconds, camera, video, overrides or []).items():
        print(f"{key}: {value}")


@app.command("list")
def list_(
    what: Annotated[
        Literal["everything", "faults", "worlds"],
        typer.Argument(help="faults: their kinds, and a picture of what each does; worlds: to judge controllers in."),
    ] = "everything",
    task: Annotated[str, typer.Option(help="faults: the task whose shipped robot is shown.")] = "h1-walk",
    joint: Annotated[str | None, typer.Option(help="faults: the joint that fails; a knee by default.")] = None,
    out: Annotated[Path, typer.Option(help="faults: folder of the picture.")] = Path("runs/faults"),
    root: Root = RUNS,
) -> None:
    """Tasks, robots with their joints, and runs; or the kinds of fault; or the worlds."""
    from koboshi.stages import fault_traces, tables

    if what == "worlds":
        tables.show_worlds()
    elif what == "faults":
        tables.show_faults(fault_traces.picture(_task(task, None), joint, out))
    else:
        tables.show_everything(root)


@app.command()
def check(
    robot: Annotated[str, typer.Argument(help="Robot, for instance unitree_go2.")],
    out: Annotated[Path, typer.Option(help="Folder of the joints' step responses.")] = Path("runs/check"),
) -> None:
    """Say what is missing or wrong in a robot, before anything is trained on it; exit code 1 where anything is.

    What it says of gains is advice.
    """
    from koboshi import robots
    from koboshi.stages import check as stage
    from koboshi.stages import tables

    findings = stage.check(robots.find(robot), out / robot)
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


@bench_app.command("speed")
def bench_speed(
    overrides: Overrides = None,
    task: str = "h1-walk",
    warp: Annotated[bool, typer.Option(help="Compare with MuJoCo Warp (extra gpu).")] = True,
    out: Path = Path("runs/bench"),
) -> None:
    """Measure the speed rows of the README."""
    from koboshi.stages import speed

    speed.bench(_task(task, overrides), out, warp)
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


def _task(name: str, overrides: list[str] | None) -> TaskCfg:
    from koboshi import config
    from koboshi.tasks import make_task

    return config.override(make_task(name), overrides or [])


def _split(words: list[str]) -> tuple[list[Path], list[str]]:
    """Paths, and the key=value among them; a path that looks like one is written ./a=b."""
    paths = [Path(word) for word in words if not _OVERRIDE.match(word)]
    if not paths:
        raise KoboshiError("no data set was given, only settings")
    return paths, [word for word in words if _OVERRIDE.match(word)]


def _start(load: str | None, resume: bool, root: Path) -> Start:
    from koboshi.stages.folders import Start, find

    if load is not None and resume:
        raise KoboshiError("--load starts a new run and --resume goes back to an old one; give one of them")
    return Start(find(load, root) if load is not None else None, resume)


def _say(path: Path) -> None:
    """Prints a run's folder; of the processes of one torchrun the first does."""
    from koboshi.stages import ranks

    if ranks.is_first():
        print(path)


def _module_first(words: list[str]) -> list[str]:
    """The command line with every --module before the verb, where typer looks for it."""
    modules: list[str] = []
    rest: list[str] = []
    queue = iter(words)
    for word in queue:
        if word == "--":
            rest += [word, *queue]
        elif word == "--module":
            modules += [word, *([value] if (value := next(queue, None)) is not None else [])]
        elif word.startswith("--module="):
            modules.append(word)
        else:
            rest.append(word)
    return modules + rest


def _wait_politely() -> None:
    """Torch's threads spin only shortly while they wait for one another; read when torch is loaded, by the verbs.

    As they come they spin on, and where another process wants a core too, each waits for one that does not run:
    beside one busy process training took 2.6 times as long, so 1.8 times, and alone the same.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def main() -> None:
    """Runs a verb; what the user can mend is one line on stderr and exit code 2."""
    _wait_politely()
    try:
        app(_module_first(sys.argv[1:]))
    except KoboshiError as error:
        # What other libraries say inside it may be several lines.
        print("koboshi:", *str(error).split(), file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"koboshi: no space left to write {error.filename or 'a file'}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
