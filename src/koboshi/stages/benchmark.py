"""`koboshi benchmark faults`: every controller on the frozen scenarios, in parts that are files.

A part is one controller of one seed in one world: `OUT/seed<k>/<controller>/<world>.json`, written whole or not at
all. It carries an identity: what it was made from and under what. A part that is there with the same identity is not
made again, so a killed benchmark is resumed by the same command, and several machines can each make some of the
parts. Parts that do not belong together are refused, and what differs is named.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from statistics import median
from typing import Any

import mujoco
import numpy as np
import torch

import koboshi
from koboshi import config, robots, runs
from koboshi.bench import benchmark_report
from koboshi.bench.benchmark_figures import Results, figures
from koboshi.bench.detection import false_alarms, healthy_steps
from koboshi.bench.episode_columns import Columns, columns, pooled
from koboshi.bench.handover import HandedOver, WalkDigest
from koboshi.bench.rollout import rollout
from koboshi.bench.strain import Strain
from koboshi.bench.suite import HANDOVER_S, Suite, described, make_suite
from koboshi.bench.targets import headline
from koboshi.bench.worlds import NOMINAL, WALKED, WORLDS, in_world
from koboshi.envs import Env, EnvCfg
from koboshi.errors import KoboshiError, at_least, unknown
from koboshi.specialists.controller import Controller, Decision
from koboshi.stages import entrants
from koboshi.stages.entrants import ENTRANTS, Seed
from koboshi.stages.parts import FORMAT, Wanted, find_parts, joined, load_part
from koboshi.stages.progress import Update, console, json_safe, progress
from koboshi.tasks import TaskCfg
from koboshi.vec_env import anyone

HOURS, HOURS_ELSEWHERE, STANDING = 10.0, 1.7, 0.2
"""Robot-hours without a fault that false alarms are counted in, for each seed: in the nominal world; in each other;
and the share of them that is spent standing still."""
ALARM_ROBOTS = 512
ALARM_SEED = 70_000
"""To which the training seed is added: hours of several seeds are so many different hours."""
TIMED_STEPS = 300
SOURCES = (
    *("robots", "sim", "faults", "terrain", "envs", "nets", "policies", "specialists"),
    *(f"detect/{name}.py" for name in ("alarms", "base", "build", "changes", "cusum", "files", "joints", "memories")),
    *(f"detect/{name}.py" for name in ("metrics", "model", "spec", "stream")),
    *(f"bench/{name}.py" for name in ("rollout", "worlds", "metrics", "detection", "strain", "handover")),
    "bench/episode_columns.py",
    *("stages/benchmark.py", "stages/entrants.py", "vec_env.py"),
)
"""Code that walks and measures: houses and files. What was trained is known by the digests of its files."""


@dataclass(frozen=True)
class Benchmark:
    """What is to be made; empty lists stand for all."""

    task: TaskCfg
    pipeline: str
    """What to take of a seed: `{task}` and `{seed}` are filled in."""
    out: Path
    root: Path
    seeds: tuple[int, ...] = (1, 2, 3)
    controllers: tuple[str, ...] = ()
    worlds: tuple[str, ...] = ()
    episodes: int | None = None
    """At most so many a part, to try something out."""
    seconds: float | None = None
    hours: float = HOURS

    def check(self) -> None:
        """KoboshiError where it cannot be made."""
        code_digest()  # what runs is what was there at the beginning, not what is there when hours have passed
        entrants.check_seeds(self.pipeline, self.seeds)
        at_least("--episodes", 1 if self.episodes is None else self.episodes, 1)
        for name, value in (("--seconds", self.seconds), ("--hours", self.hours)):
            if value is not None and not value > 0:
                raise KoboshiError(f"{name} is above 0, not {value}")

    @cached_property
    def suite(self) -> Suite:
        robot = robots.find(self.task.env.robot)
        whole = make_suite(self.task.name, robot, self.task.evaluate.commands)
        if self.episodes is None and self.seconds is None:
            return whole
        return whole.smaller(self.episodes, self.seconds)

    def wanted(self) -> Iterator[Wanted]:
        """The parts asked for, seed by seed."""
        names = worlds_named(self.worlds)
        for seed in self.seeds:
            for controller in entrants.chosen(self.controllers):
                for world in names:
                    if ENTRANTS[controller].everywhere or world == NOMINAL:
                        yield Wanted(seed, controller, world)

    def seed(self, number: int) -> Seed:
        return entrants.seed_of(self.task, self.pipeline, number, self.root)

    def identity(self, wanted: Wanted, seed: Seed) -> dict[str, Any]:
        """What a part is made from and under what: JSON data."""
        walker, files = runs.digest(seed.place.controller), entrants.digests(wanted.controller, seed.place)
        return {"part": wanted._asdict(), **self.shared, "walker": walker, "files": files}

    @cached_property
    def shared(self) -> dict[str, Any]:
        """Of that, what all parts share."""
        return {
            "suite": described(self.suite),
            "format": FORMAT,
            "code": code_digest(),
            "physics": physics_of(self.task),
            "settings": settings_of(self.task),
            "hours": self.hours,
        }


def worlds_named(names: Sequence[str]) -> list[str]:
    """Those named, in the table's order; without a name `WALKED`."""
    for name in names:
        if name not in WORLDS:
            raise unknown("world", name, WORLDS)
    return [name for name in WORLDS if name in (names or WALKED)]


def settings_of(task: TaskCfg) -> dict[str, Any]:
    """Of the environment, what an evaluation hangs on."""
    found: dict[str, Any] = config.to_dict(task.env)
    for name in ("rewards", "num_envs", "faults"):
        found.pop(name, None)
    return json.loads(json.dumps(found))


def physics_of(task: TaskCfg) -> dict[str, str]:
    """MuJoCo's version, and the robot's compiled model, which comes from outside: its sha256, the first 12 digits."""
    model = robots.find(task.env.robot).physics
    whole = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, whole)
    return {"mujoco": mujoco.__version__, "model": hashlib.sha256(whole.tobytes()).hexdigest()[:12]}


@cache
def code_digest() -> str:
    """sha256 of the code that figures hang on, its first 12 digits: a commit says nothing of what is not committed."""
    package, sha = Path(koboshi.__path__[0]), hashlib.sha256()
    for source in SOURCES:
        path = package / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            sha.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    return sha.hexdigest()[:12]


def train(benchmark: Benchmark) -> None:
    """Trains the rivals that are asked for and not there yet; a killed training is resumed."""
    # A pipeline that is missing is missed before hours are spent on another seed's rivals.
    for number, place in {number: benchmark.seed(number).place for number in benchmark.seeds}.items():
        for name in entrants.chosen(benchmark.controllers):
            how = ENTRANTS[name].train
            if how is not None and entrants.missing(name, place) and not entrants.same_as(name, place):
                console.print(f"[bold]train {name}, seed {number}[/]: {ENTRANTS[name].about}", highlight=False)
                how(place)


def make(benchmark: Benchmark) -> list[Path]:
    """Makes the parts asked for that are not there yet; gives the files of all of them.

    A controller whose files are missing is passed over with a line, unless it was asked for by its name.
    """
    wanted = list(benchmark.wanted())
    made = []
    seeds = {number: benchmark.seed(number) for number in benchmark.seeds}
    _check_fits(benchmark)
    for number, seed in seeds.items():
        lacking = _lacking(benchmark, seed)
        for part in wanted:
            if part.seed == number and part.controller not in lacking:
                made.append(_part(benchmark, part, seed))
    return made


def _check_fits(benchmark: Benchmark) -> None:
    """KoboshiError where a part that lies in the folder could not be joined with what would be made."""
    if not benchmark.out.is_dir():
        return
    for path in {wanted.seed: path for wanted, path in find_parts([benchmark.out]).items()}.values():
        try:
            theirs = load_part(path)["identity"]
        except KoboshiError:
            continue  # it is named, and made again, in its turn
        if differ := config.diff({name: theirs[name] for name in benchmark.shared}, benchmark.shared):
            raise KoboshiError(_otherwise(path, differ))


def _otherwise(path: Path, differ: Sequence[str]) -> str:
    return f"{path} was made otherwise ({'; '.join(differ[:4])}); give another --out, or delete it"


def _lacking(benchmark: Benchmark, seed: Seed) -> set[str]:
    found = set()
    for name in entrants.chosen(benchmark.controllers):
        if same := entrants.same_as(name, seed.place):
            console.print(f"left out: {name} of seed {seed.number} is its {same}", highlight=False)
            found.add(name)
            continue
        missing = entrants.missing(name, seed.place)
        if missing and benchmark.controllers:
            raise KoboshiError(f"{name} of seed {seed.number} needs {missing[0]}; --train makes it")
        if missing:
            console.print(
                f"left out: {name} of seed {seed.number} has no {missing[0]}; --train makes it", soft_wrap=True
            )
            found.add(name)
    return found


def _part(benchmark: Benchmark, wanted: Wanted, seed: Seed) -> Path:
    path, identity = wanted.path(benchmark.out), benchmark.identity(wanted, seed)
    if path.exists():
        try:
            found = load_part(path)["identity"]
        except KoboshiError as error:
            console.print(f"{error}; it is made again", highlight=False, soft_wrap=True)
        else:
            if differ := config.diff(found, identity):
                raise KoboshiError(_otherwise(path, differ))
            return path
    began = time.monotonic()
    part = _made(benchmark, wanted, seed) | {"identity": identity}
    part["made"] = {"commit": runs.git_commit(), "seconds": time.monotonic() - began}
    runs.write_atomic(path, json.dumps(json_safe(part), separators=(",", ":")).encode())
    return path


def _made(benchmark: Benchmark, wanted: Wanted, seed: Seed) -> dict[str, Any]:
    """All figures of a part."""
    entrant, suite, task = ENTRANTS[wanted.controller], benchmark.suite, benchmark.task
    controller = entrant.make(seed)
    rows, states, cost = _walked(str(wanted), task.env, controller, seed, suite, wanted.world, entrant.detects)
    part: dict[str, Any] = {
        "about": entrants.about(wanted.controller, seed.place) | {"detects": entrant.detects},
        "handover": states,
        "cost_us": cost,
        "step_us": step_us(task.env, controller) if wanted.world == NOMINAL else None,
        "columns": rows,
    }
    if entrant.counted:
        hours = benchmark.hours * (1.0 if wanted.world == NOMINAL else HOURS_ELSEWHERE / HOURS)
        world = in_world(task.env, wanted.world)
        part["alarms"] = _alarms(str(wanted), world, controller, hours, ALARM_SEED + wanted.seed)
    return part


def _walked(
    title: str, cfg: EnvCfg, controller: Controller, seed: Seed, suite: Suite, world: str, detects: bool
) -> tuple[Columns, list[str], float | None]:
    """The rows of all batches, a digest of each one's states at the handover, µs that a decision costs a robot."""
    dt, batches = cfg.step_dt, list(suite.batches(world))
    handover = round(HANDOVER_S / dt)
    judged = HandedOver(seed.walker, controller, handover)
    sizes = [(batch.steps(dt, suite.seconds), len(batch.episodes)) for batch in batches]
    parts, states, spent, done = [], [], 0.0, 0
    with progress(title, sum(steps * robots for steps, robots in sizes)) as update:
        for batch, (steps, robots) in zip(batches, sizes, strict=True):
            strain, walk = Strain(batch, dt, suite.seconds, controller.router.tells_kinds), WalkDigest(handover)

            def watch(env: Env, decision: Decision, strain: Strain = strain, walk: WalkDigest = walk) -> None:
                strain(env, decision)
                walk(env, decision)

            def report(t: int, before: int = done, robots: int = robots) -> None:
                update(before + t * robots)

            recording = rollout(
                cfg, judged, batch, suite.seconds, world=world, detail=detects, report=report, watch=watch
            )
            parts.append(columns(recording, strain, suite.seconds, detects))
            states.append(walk.value)
            spent += recording.decision_s or 0.0
            done += steps * robots
    return pooled(parts), states, spent / done * 1e6 if spent else None


def _alarms(title: str, cfg: EnvCfg, controller: Controller, hours: float, seed: int) -> dict[str, dict[str, float]]:
    """`walking`, `standing`: false alarms and hours of robots whose joints are all well, by `bench.detection`."""
    still = replace(cfg, command=replace(cfg.command, standing_fraction=1.0))
    found = {}
    for name, there, share in (("walking", cfg, 1 - STANDING), ("standing", still, STANDING)):
        most = healthy_steps(share * hours, cfg.step_dt, 1)
        count = max(1, min(ALARM_ROBOTS, most // round(cfg.episode_length_s / cfg.step_dt)))
        total = healthy_steps(share * hours, cfg.step_dt, count) * count
        with progress(f"{title} false alarms, {name}", total) as update:

            def report(t: int, update: Update = update, count: int = count) -> None:
                update(t * count)

            found[name] = false_alarms(there, controller, share * hours, count, seed, report)
    return found


def step_us(cfg: EnvCfg, controller: Controller) -> float:
    """µs that a decision costs one robot on one core, the median over a walk."""
    env = Env(replace(in_world(cfg, NOMINAL), num_envs=1, faults=None))
    obs, state = env.reset(0), controller.initial_state(1, env.device)
    reset = torch.ones(1, dtype=torch.bool, device=env.device)
    seconds, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(TIMED_STEPS):
            began = time.perf_counter()
            decision, state = controller.act(obs, reset, state)
            anyone(decision.action > 0)  # waits for a device
            seconds.append(time.perf_counter() - began)
            step = env.step(decision.action)
            obs, reset = step.obs, step.terminated | step.truncated
    finally:
        torch.set_num_threads(threads)
    return median(seconds) * 1e6


def report(benchmark: Benchmark, folders: Sequence[Path]) -> tuple[Path, Path]:
    """Writes `figures.json`, `scenarios.json` (what was walked), `report.html` and `table.md` of all parts in these
    folders; gives the last two."""
    parts = joined(folders)
    first = next(iter(parts.values()))["identity"]
    if differ := config.diff(first["suite"], described(benchmark.suite)):
        raise KoboshiError(
            f"these parts are of another suite: {'; '.join(differ)}; give the same --episodes and --seconds"
        )
    ordered = {(w.seed, w.controller, w.world): parts[w] for w in sorted(parts, key=_place)}
    results = Results(ordered, benchmark.suite, robots.find(benchmark.task.env.robot))
    found = figures(results, entrants.MAIN, entrants.HEALTHY, entrants.ORACLE) | {"suite": first["suite"]}
    lines = headline(found, entrants.MAIN, entrants.SINGLE, entrants.BANKS)
    found["targets"] = [line._asdict() for line in lines]
    runs.write_json(benchmark.out / "figures.json", json_safe(found))
    benchmark.suite.scenarios.save(benchmark.out / "scenarios.json")
    return benchmark_report.write(benchmark.out, f"{benchmark.task.name}: the benchmark of faults", found, lines)


def _place(wanted: Wanted) -> tuple[int, int, int]:
    """In the order of the tables."""
    return list(ENTRANTS).index(wanted.controller), list(WORLDS).index(wanted.world), wanted.seed
