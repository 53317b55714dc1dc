"""`koboshi compare estimators`: a task under actors that guess what no sensor shows, with equal budgets and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from koboshi import config, runs
from koboshi.bench.estimation import estimation
from koboshi.errors import KoboshiError, unknown
from koboshi.nets.actors import MlpCfg
from koboshi.policies.storage import load_single
from koboshi.runs import RunFolder
from koboshi.stages import healthy
from koboshi.stages.evaluate import healthy_alone, loading_env
from koboshi.stages.folders import Start, task_of
from koboshi.stages.ground_benchmark import cross, ground_of
from koboshi.stages.training import levels_by_type, training_seconds
from koboshi.tasks import TaskCfg
from koboshi.view.estimator_plots import estimator_curves

TEACHER = 0.7
"""Share of the steps that RMA's teacher takes; its student has the rest."""
SETTLED = 0.1
"""Share of a run, its last, over which its level is averaged."""
_ACTORS: dict[str, tuple[str, ...]] = {
    "plain": (
        "env.observations.policy.history_length=1",
        "env.observations.policy.newest_first=false",
        "agent.network.actor.type=MlpCfg",
    ),
    "frames": ("agent.network.actor.type=MlpCfg",),
    "est": ("agent.network.actor.type=EstCfg",),
    "him": ("agent.network.actor.type=HimCfg",),
    "dreamwaq": ("agent.network.actor.type=DreamWaqCfg",),
    "rma": ("agent.network.actor.type=RmaCfg", "agent.network.actor.acts_on=history"),
}
VARIANTS = tuple(_ACTORS)
LABELS = {
    "plain": "one step", "frames": "all steps", "est": "EST", "him": "HIM", "dreamwaq": "DreamWaQ", "rma": "RMA",
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Which runs are made, `root/<task>/<name>/<variant>-<seed>`, and what of them is measured."""

    task: TaskCfg
    root: Path
    name: str = "estimators"
    seeds: tuple[int, ...] = (1, 2)
    variants: tuple[str, ...] = VARIANTS
    robots: int = 4
    """In each type at each level, in the test of crossing."""
    speed: float = 0.6
    """m/s at which they cross."""
    seconds: float = 20.0
    """Of a test."""

    def check(self) -> None:
        """KoboshiError where there is nothing to compare."""
        for variant in self.variants:
            if variant not in _ACTORS:
                raise unknown("estimator", variant, VARIANTS)
        if ground_of(self.task).levels == 1:
            raise KoboshiError(f"estimators are compared by levels, and the ground of task '{self.task.name}' has one")
        policy = self.task.env.observations.get("policy")
        if policy is None or policy.history_length < 2:
            raise KoboshiError(
                f"estimators look at a history, and the group 'policy' of task '{self.task.name}' has none; "
                "give env.observations.policy.history_length=6"
            )

    @property
    def folder(self) -> Path:
        return self.root / self.task.name / self.name


def settings(task: TaskCfg, variant: str) -> list[str]:
    """The overrides that make a task's actor this variant, as wide as the task's own."""
    hidden = getattr(task.agent.network.actor, "hidden", MlpCfg.hidden)
    return [*_ACTORS[variant], f"agent.network.actor.hidden={list(hidden)}"]


def compare(plan: Comparison) -> dict[str, Any]:
    """Trains what is not trained yet and measures what is not measured; writes and gives `estimators.json`."""
    plan.check()
    found: dict[str, dict[str, Any]] = {}
    figures: dict[str, Any] = {}
    for seed in plan.seeds:
        for variant in plan.variants:
            found.setdefault(variant, {})[str(seed)] = _one(plan, variant, seed)
            figures = _write(plan, found)
    return figures


def _one(plan: Comparison, variant: str, seed: int) -> dict[str, Any]:
    """The figures of one run; those that are on disk are taken where run and test are the same."""
    parts = _train(plan, variant, seed)
    return parts[-1].measured_once([plan.robots, plan.speed, plan.seconds], lambda: _measure(plan, parts, seed))


def _measure(plan: Comparison, parts: Sequence[RunFolder], seed: int) -> dict[str, Any]:
    task = task_of(parts[-1].final)
    env = loading_env(task)
    policy = load_single(parts[-1].final, env)[0]
    walker = healthy_alone(policy.single(), len(env.robot.joint_names))
    return (
        _curve(task, parts)
        | estimation(task.env, policy, plan.seconds, seed)
        | {"crossing": cross(task, walker, plan.robots, plan.speed, plan.seconds)}
    )


def _train(plan: Comparison, variant: str, seed: int) -> list[RunFolder]:
    """The runs of a variant, one after the other: RMA has two."""
    trainer = plan.task.agent.trainer
    every = settings(plan.task, variant) + [f"agent.trainer.seed={seed}"]
    name = f"{plan.name}/{variant}-{seed}"
    if variant != "rma":
        return [_run(plan, name, every)]
    first = round(TEACHER * trainer.timesteps)
    taught = [*every, "agent.network.actor.acts_on=truth", f"agent.trainer.timesteps={first}"]
    teacher = _run(plan, f"{name}-teacher", taught)
    rest = f"agent.trainer.timesteps={trainer.timesteps - first}"
    # Weights alone are loaded: its robots begin about as high as the teacher's had come, at random levels.
    ground, rows = ground_of(plan.task), runs.read_jsonl(teacher.metrics)
    begin = f"env.scene.ground.first_level={min(ground.levels - 1, round(2 * rows[-1]['terrain/level']))}"
    return [teacher, _run(plan, name, [*every, rest, begin, *full_grown(plan.task, rows)], Start(load=teacher.final))]


def full_grown(task: TaskCfg, rows: Sequence[dict[str, float]]) -> list[str]:
    """Settings without what a curriculum let grow to the whole, as the `rows` of a log say; the rest grows anew."""
    names = (name for name in task.env.curriculum if any(row.get(f"curriculum/{name}", 0.0) >= 1 for row in rows))
    return [f"env.curriculum.{name}=null" for name in names]


def _run(plan: Comparison, name: str, overrides: list[str], start: Start = Start()) -> RunFolder:  # noqa: B008 (frozen)
    return healthy.train(config.override(plan.task, overrides), plan.root, name, overrides, start)


def _curve(task: TaskCfg, parts: Sequence[RunFolder]) -> dict[str, Any]:
    """Levels over environment steps, the level at the end, and what training cost."""
    an_iteration = task.agent.trainer.rollout * task.env.num_envs
    rows = [row for part in parts for row in runs.read_jsonl(part.metrics)]
    levels = [row["terrain/level"] for row in rows]
    last = runs.settled(rows, SETTLED)
    seconds = sum(training_seconds(part) for part in parts)
    return {
        "steps": [(i + 1) * an_iteration for i in range(len(rows))],
        "level": levels,
        "level_at_end": mean(row["terrain/level"] for row in last),
        "level_by_type": levels_by_type(last),
        "seconds": seconds,
        "steps_per_s": len(rows) * an_iteration / seconds,
    }


def _write(plan: Comparison, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    figures = {
        "task": plan.task.name, "commit": runs.git_commit(), "seeds": list(plan.seeds),
        "timesteps": plan.task.agent.trainer.timesteps, "num_envs": plan.task.env.num_envs, "variants": found,
    }  # fmt: skip
    runs.write_json(plan.folder / "estimators.json", figures)
    curves = {LABELS[v]: [(r["steps"], r["level"]) for r in by_seed.values()] for v, by_seed in found.items()}
    estimator_curves(curves, plan.folder / "estimators.png")
    return figures


def variant_row(by_seed: Mapping[str, Any]) -> dict[str, tuple[float, float, float] | None]:
    """Figure -> mean, least and greatest over the seeds of one variant; None where it has none."""
    takes: dict[str, Any] = {
        "level": lambda r: r["level_at_end"],
        "levels passed": lambda r: r["crossing"]["passed"],
        "crossed": lambda r: r["crossing"]["crossed"],
        "v_x RMSE": lambda r: r["vx_rmse"],
        "velocity estimate": lambda r: r["estimate"].get("base_lin_vel"),
        "command as estimate": lambda r: r["command_as_estimate"],
        "steps/s": lambda r: r["steps_per_s"],
    }
    row: dict[str, tuple[float, float, float] | None] = {}
    for name, take in takes.items():
        values = [take(figures) for figures in by_seed.values()]
        row[name] = None if None in values else (mean(values), min(values), max(values))
    return row
