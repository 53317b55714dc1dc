"""`koboshi ablate`: which of a run's randomisations a policy needs, by training it again without each of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from koboshi import config, robots, runs
from koboshi.bench.metrics import controller_metrics
from koboshi.bench.worlds import WALKED
from koboshi.envs import Env
from koboshi.envs.cfg import ObsTerm
from koboshi.envs.events import is_change
from koboshi.errors import KoboshiError, at_least, unknown
from koboshi.faults import sweep
from koboshi.stages import healthy
from koboshi.stages.evaluate import policy_alone
from koboshi.stages.folders import Start
from koboshi.stages.progress import watched_rollout
from koboshi.tasks import TaskCfg
from koboshi.view.ablation_plots import losses_map

GROUPS = ("events", "delays", "noise")
MODES = ("remove", "shrink")
UNCHANGED = "unchanged"
SEED = 11
_FIGURES = ("survival_mean", "vx_rmse")


class Change(NamedTuple):
    """A randomisation, and the settings that take it away or make it smaller.

    `shrink` halves ranges about their middle, magnitudes, and what a delay has above its least; when something strikes
    stays. Empty where nothing of it can.
    """

    name: str
    remove: str
    shrink: tuple[str, ...]


@dataclass(frozen=True)
class Ablation:
    """Which trainings are made, `root/<task>/<name>/…`, and how they are judged."""

    run: Path
    """Its checkpoint."""
    task: TaskCfg
    """As the run had it, but for settings of one's own."""
    root: Path
    load: Path | None = None
    """The weights that the run began with, if any."""
    name: str = "ablation"
    group: str = "events"
    terms: tuple[str, ...] = ()
    """Those that are changed; none: all of the group that are in force."""
    modes: tuple[str, ...] = ("remove",)
    seeds: tuple[int, ...] = ()
    """None: the run's own."""
    episodes: int = 128
    """In each world."""
    seconds: float = 20.0

    def check(self) -> None:
        """KoboshiError where there is nothing to ablate, a name is none, or a training would not be the run's."""
        at_least("--episodes", self.episodes, 1)
        for mode in self.modes:
            if mode not in MODES:
                raise unknown("way of ablating", mode, MODES)
        found = {change.name: change for change in changes(self.task, self.group)}
        if not found:
            raise KoboshiError(f"task '{self.task.name}' as it was trained has no {self.group} in force to ablate")
        for name in self.terms:
            if name not in found:
                raise unknown(f"randomisation among its {self.group}", name, sorted(found), "randomisations")
        fixed = [name for name in self.terms or found if not found[name].shrink]
        if "shrink" in self.modes and (self.terms or len(fixed) == len(found)) and fixed:
            raise KoboshiError(f"nothing of {', '.join(fixed)} can be made smaller, only removed")
        for name, settings in self.variants().items():
            _try_out(name, config.override(self.task, settings))
        began = _began_with(self.run)
        if began != (None if self.load is None else runs.digest(self.load)):
            what = "with nothing learnt" if began is None else f"with weights of a file with sha256 {began[:12]}…"
            raise KoboshiError(f"{self.run} began {what}: --load must say the same, so that trainings are alike")
        healthy.check_start(self.task, Start(self.load))

    @property
    def folder(self) -> Path:
        return self.root / self.task.name / self.name

    @property
    def all_seeds(self) -> tuple[int, ...]:
        return self.seeds or (self.task.agent.trainer.seed,)

    def variants(self) -> dict[str, tuple[str, ...]]:
        """What is changed -> its settings."""
        chosen = [c for c in changes(self.task, self.group) if not self.terms or c.name in self.terms]
        found: dict[str, tuple[str, ...]] = {}
        if "remove" in self.modes:
            found |= {f"without {change.name}": (change.remove,) for change in chosen}
        if "shrink" in self.modes:
            found |= {f"half {change.name}": change.shrink for change in chosen if change.shrink}
        return found


def _try_out(name: str, task: TaskCfg) -> None:
    """KoboshiError where a task can't begin: better now than after hours of other trainings."""
    try:
        Env(replace(task.env, num_envs=2)).reset(0)
    except KoboshiError as error:
        raise KoboshiError(f"'{name}' cannot be trained: {error}") from error


def _began_with(checkpoint: Path) -> str | None:
    """The digest of the weights that a run of this checkpoint started from."""
    about = checkpoint.parent.parent / "made_from.json"
    found: str | None = runs.read_json(about).get("load") if about.is_file() else None
    return found


def changes(task: TaskCfg, group: str) -> list[Change]:
    """The randomisations of a group that are in force, of observations those that the policy learns from."""
    if group not in GROUPS:
        raise unknown("group of randomisations", group, GROUPS)
    return list({"events": _events, "delays": _delays, "noise": _noise}[group](task))


def _events(task: TaskCfg) -> Iterator[Change]:
    for name, term in task.env.events.items():
        if term is not None and term.active and is_change(term):
            key = f"env.events.{name}"
            narrower = {p: _narrowed(value) for p, value in term.params.items()}
            shrink = (
                f"{key}.params.{p}={json.dumps(v)}" for p, v in narrower.items() if v not in (None, term.params[p])
            )
            yield Change(name, f"{key}.active=false", tuple(shrink))


def _narrowed(value: Any) -> Any:
    """A range of half the width about the same middle, or half of a magnitude; None for what is neither."""
    if isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(v, int | float) for v in value):
        quarter = (value[1] - value[0]) / 4
        return (value[0] + quarter, value[1] - quarter)
    return value / 2 if isinstance(value, int | float) and not isinstance(value, bool) else None


def _seen(task: TaskCfg) -> Iterator[tuple[str, str, ObsTerm]]:
    """Name, path and settings of each term that the actor or the critic sees."""
    network, groups = task.agent.network, task.env.observations
    read = [g for g in (*network.actor.groups, *network.actor.loss_groups, *network.critic_groups) if g in groups]
    for group in dict.fromkeys(g for name in read for g in (groups[name].base, name) if g is not None):
        for name, term in groups[group].terms.items():
            if term is not None:
                yield f"{group}.{name}", f"env.observations.{group}.terms.{name}", term


def _delays(task: TaskCfg) -> Iterator[Change]:
    found = {"actions": ("env.actions.delay", task.env.actions.delay)}
    found |= {name: (f"{path}.delay", term.delay) for name, path, term in _seen(task)}
    for name, (key, (low, high)) in found.items():
        if high:
            shorter = (low, (low + high) // 2)
            shrink = (f"{key}={json.dumps(shorter)}",) if shorter != (low, high) and shorter[1] else ()
            yield Change(name, f"{key}=[0, 0]", shrink)


def _noise(task: TaskCfg) -> Iterator[Change]:
    for name, path, term in _seen(task):
        if term.noise and task.env.observations[name.partition(".")[0]].noise:
            less = [x / 2 for x in term.noise] if isinstance(term.noise, tuple) else term.noise / 2
            yield Change(name, f"{path}.noise=0.0", (f"{path}.noise={json.dumps(less)}",))


def ablate(plan: Ablation) -> dict[str, Any]:
    """Trains what is not trained yet, judges it in worlds that differ; writes and gives `ablation.json`."""
    plan.check()
    variants: dict[str, tuple[str, ...]] = {UNCHANGED: ()} | plan.variants()
    found: dict[str, dict[str, Any]] = {}
    figures: dict[str, Any] = {}
    for seed in plan.all_seeds:
        for name, settings in variants.items():
            found.setdefault(name, {})[str(seed)] = _one(plan, name, settings, seed)
        figures = _write(plan, found)
    return figures


def _one(plan: Ablation, name: str, settings: Sequence[str], seed: int) -> dict[str, Any]:
    """World -> figures of the policy that was trained under these settings."""
    overrides = [*settings, f"agent.trainer.seed={seed}"]
    part = name if name == UNCHANGED else f"{plan.group}/{name.replace(' ', '-')}"
    folder, task = f"{plan.name}/{part}-{seed}", config.override(plan.task, overrides)
    run = healthy.train(task, plan.root, folder, overrides, Start(plan.load))
    return run.measured_once([plan.episodes, plan.seconds, *WALKED], lambda: _judge(plan, run.final))


def _judge(plan: Ablation, path: Path) -> dict[str, Any]:
    """In the named worlds of the task as it was, whatever this policy was trained without."""
    robot, commands = robots.find(plan.task.env.robot), plan.task.evaluate.commands
    scenarios = sweep(robot, (None,), plan.episodes, SEED, commands=commands, onset_s=(0.0, 0.0))
    controller = policy_alone(path, plan.task)
    worlds = {}
    for world in WALKED:
        recording = watched_rollout(f"in {world}", plan.task, controller, scenarios, plan.seconds, world=world)
        metrics = controller_metrics(recording, plan.seconds)
        worlds[world] = {name: metrics[name] for name in _FIGURES}
    return {"worlds": worlds}


def _write(plan: Ablation, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    figures = {
        "task": plan.task.name, "commit": runs.git_commit(), "group": plan.group, "seeds": [*found[UNCHANGED]],
        "steps": plan.task.agent.trainer.timesteps * plan.task.env.num_envs, "episodes": plan.episodes,
        "seconds": plan.seconds, "variants": found,
    }  # fmt: skip
    runs.write_json(plan.folder / plan.group / "ablation.json", figures)
    lost = {loss.name: loss.by_world for loss in ranking(figures)}
    losses_map(lost, plan.folder / plan.group / "ablation.png")
    return figures


class Loss(NamedTuple):
    """What a change cost against the unchanged training of the same seed."""

    name: str
    survival: tuple[float, float, float]
    """Mean over all worlds, lost: over the seeds its mean, least and greatest."""
    worst: str
    """The world that lost most."""
    by_world: dict[str, float]
    """Survival lost in each world, mean over seeds."""
    vx_rmse: float | None
    """m/s gained in the mean over worlds and seeds; None where everybody fell."""


def ranking(figures: Mapping[str, Any]) -> list[Loss]:
    """The changes, from the one that costs most survival on; where that is alike, most precision."""
    runs_of: Mapping[str, Any] = figures["variants"]
    losses = [_loss(name, by_seed, runs_of[UNCHANGED]) for name, by_seed in runs_of.items() if name != UNCHANGED]
    return sorted(losses, key=lambda loss: (-loss.survival[0], -(loss.vx_rmse or 0.0)))


def _loss(name: str, by_seed: Mapping[str, Any], unchanged: Mapping[str, Any]) -> Loss:
    def differences(figure: str) -> dict[str, dict[str, float]]:
        """Seed -> world -> how much more the changed one has, where both have any."""
        return {
            seed: {
                world: here[figure] - there[figure]
                for world, here in run["worlds"].items()
                if None not in (here[figure], (there := unchanged[seed]["worlds"][world])[figure])
            }
            for seed, run in by_seed.items()
        }

    survival = differences("survival_mean")
    each = [-mean(worlds.values()) for worlds in survival.values()]
    by_world = {world: -mean(worlds[world] for worlds in survival.values()) for world in next(iter(survival.values()))}
    precision = [gain for worlds in differences("vx_rmse").values() for gain in worlds.values()]
    return Loss(
        name,
        (mean(each), min(each), max(each)),
        max(by_world, key=lambda world: by_world[world]),
        by_world,
        mean(precision) if precision else None,
    )
