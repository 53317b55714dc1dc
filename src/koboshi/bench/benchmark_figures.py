"""From the benchmark's parts to its figures, JSON data that the report shows. Formulas: docs/method/benchmark.md.

A figure is null where no part tells about it, so that a report of some of the parts is a report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from koboshi.bench import fault_metrics as metrics
from koboshi.bench.episode_columns import Columns
from koboshi.bench.fault_metrics import STRATA, Episodes, FaultRows
from koboshi.bench.statistics import (
    Statistic,
    Values,
    as_json,
    bootstrap,
    greatest,
    least,
    macro_f1,
    paired,
    quantile,
    rate,
    ratio,
    root_ratio,
)  # fmt: skip
from koboshi.bench.suite import SEVERITIES, Suite
from koboshi.bench.worlds import NOMINAL
from koboshi.faults import KINDS
from koboshi.robots import Robot

Part = dict[str, Any]
COUNTED = ("k=1", "k=2", "k=3", "k=4")
WAYS = ("walking", "standing")
"""How robots spend the hours in which nothing breaks."""
Json = dict[str, Any]


class Results:
    """The parts of a benchmark: rows by controller, world and seed."""

    def __init__(self, parts: Mapping[tuple[int, str, str], Part], suite: Suite, robot: Robot) -> None:
        """`parts`: (seed, controller, world) -> part."""
        self.parts, self.robot = parts, robot
        every = suite.scenarios.episodes
        self._episodes = {here: Episodes(every[: suite.count(world)], robot) for here, world in _extents()}
        self.controllers = list(dict.fromkeys(controller for _, controller, _ in parts))
        self.worlds = list(dict.fromkeys(world for _, _, world in parts))

    def episodes(self, world: str) -> Episodes:
        return self._episodes[world == NOMINAL]

    def of(self, controller: str, world: str = NOMINAL) -> dict[int, Columns]:
        """Seed -> rows."""
        return {s: p["columns"] for (s, c, w), p in sorted(self.parts.items()) if (c, w) == (controller, world)}

    def about(self, controller: str, world: str = NOMINAL) -> Part | None:
        """Any of its parts."""
        return next((p for (_, c, w), p in sorted(self.parts.items()) if (c, w) == (controller, world)), None)

    def values(
        self, controller: str, value: Callable[[Columns], Values], stratum: str, world: str = NOMINAL
    ) -> dict[int, Values]:
        """Seed -> (E,) of each episode; NaN for those of other strata."""
        chosen = STRATA[stratum](self.episodes(world))
        return {seed: np.where(chosen, value(rows), np.nan) for seed, rows in self.of(controller, world).items()}

    def faults(self, controller: str, world: str, chosen: Callable[[Episodes], Values]) -> dict[int, FaultRows]:
        """Seed -> the faults felt, of a controller that detects."""
        episodes = self.episodes(world)
        found = self.of(controller, world).items()
        return {seed: metrics.felt_faults(rows, episodes, chosen(episodes)) for seed, rows in found}

    @property
    def detecting(self) -> dict[str, list[str]]:
        """Controller that detects -> the worlds that it walked in."""
        found: dict[str, list[str]] = {}
        for (_, controller, world), part in self.parts.items():
            if part["about"]["detects"] and world not in found.setdefault(controller, []):
                found[controller].append(world)
        return found


def _extents() -> Iterator[tuple[bool, str]]:
    """Whether a world is the nominal one, and one that stands for it."""
    yield from ((True, NOMINAL), (False, "other"))


def figures(results: Results, main: str, healthy: str, oracle: str) -> Json:
    """All figures. `main`: the controller that targets are set for; `healthy`, `oracle`: what it is held against."""
    names = results.controllers
    worlds = {name: [w for w in results.worlds if results.of(name, w)] for name in names}
    return {
        "main": main,
        "seeds": sorted({seed for seed, _, _ in results.parts}),
        "worlds": results.worlds,
        "controllers": {name: _about(results, name) for name in names},
        "survival": {n: {w: survival(results, n, w) for w in worlds[n]} for n in names},
        "by_seed": {name: by_seed(results, name) for name in names if results.of(name)},
        "course": {n: {w: course(results, n, w) for w in worlds[n]} for n in names},
        "tracking": {w: tracking(results, w) for w in results.worlds},
        "detection": {n: {w: detection(results, n, w) for w in heard} for n, heard in results.detecting.items()},
        "severity": {n: {w: severity(results, n, w) for w in worlds[n]} for n in names},
        "heat": {name: heat(results, name) for name in names if results.of(name)},
        "recall": {n: {w: recall(results, n, w) for w in heard} for n, heard in results.detecting.items()},
        "delays": {name: delays(results, name) for name in results.detecting if results.of(name)},
        "differences": {n: difference(results, main, n) for n in names if n != main and results.of(n)},
        "regret": {w: difference(results, oracle, main, w) for w in results.worlds},
        "tax": {w: tax(results, main, healthy, w) for w in results.worlds},
        "held_out_kinds": {n: {w: held_out_kinds(results, n, w) for w in worlds[n]} for n in names},
        "same_states": same_states(results),
        "hours_a_seed": hours_a_seed(results),
    }


def _about(results: Results, name: str) -> Json:
    part = results.about(name) or next(p for (_, c, _), p in results.parts.items() if c == name)
    return part["about"] | {"step_us": part["step_us"], "cost_us": part["cost_us"]}


def survival(results: Results, name: str, world: str) -> Json:
    """Each stratum's survival, and that of the worst joint: the least mean of the episodes in which it breaks."""
    found: Json = {}
    for stratum in STRATA:
        found[stratum] = as_json(bootstrap(list(results.values(name, metrics.survived, stratum, world).values())))
        if stratum in COUNTED:
            found[f"{stratum}, worst joint"] = as_json(_worst(results, name, metrics.survived, stratum, world, least))
    return found


def _worst(
    results: Results,
    name: str,
    value: Callable[[Columns], Values],
    stratum: str,
    world: str,
    statistic: Statistic,
) -> Any:
    rows = results.values(name, value, stratum, world).values()
    return bootstrap([metrics.by_joint(each, results.episodes(world)) for each in rows], statistic)


def course(results: Results, name: str, world: str) -> Json:
    """How an episode with one fault goes on."""

    def figure(value: Callable[[Columns], Values]) -> Any:
        return as_json(bootstrap(list(results.values(name, value, "k=1", world).values())))

    def turned(rows: Columns) -> Values:
        return metrics.of_survivors(rows, "heading_error")

    return {
        "recovery": figure(lambda rows: metrics.of_all(rows, "recovered")),
        "heading_error": figure(turned),
        "heading_error_worst": as_json(_worst(results, name, turned, "k=1", world, greatest)),
        "path_error": figure(lambda rows: metrics.of_all(rows, "path_error")),
        "path_progress": figure(lambda rows: metrics.of_all(rows, "path_progress")),
        "peak": figure(lambda rows: metrics.of_survivors(rows, "peak")),
    }


TRACKED = ("vx_rmse", "vy_rmse", "yaw_rmse")


def tracking(results: Results, world: str) -> Json:
    """Controller -> RMSEs at k=1 on the episodes that all controllers of a seed survive in a world."""
    rows = {name: results.of(name, world) for name in results.controllers if results.of(name, world)}
    one = STRATA["k=1"](results.episodes(world))
    common = {
        seed: one & metrics.common_survivors([each[seed] for each in rows.values() if seed in each])
        for seed in {seed for each in rows.values() for seed in each}
    }
    return {
        name: {
            key: as_json(bootstrap([np.where(common[s], metrics.of_all(x, key), np.nan) for s, x in each.items()]))
            for key in TRACKED
        }
        for name, each in rows.items()
    }


def detection(results: Results, name: str, world: str) -> Json:
    """Delays, sets and false alarms in a world."""

    def one(episodes: Episodes) -> Values:
        return episodes.broken == 1

    faults = results.faults(name, world, one)
    dead = results.faults(name, world, lambda e: one(e) & e.dead)
    half = {seed: f.delay[(f.severity == 0.5) & (f.kind == KINDS.index("torque_loss"))] for seed, f in faults.items()}
    episodes = results.episodes(world)
    exact = {
        f"exact k={k}": as_json(
            bootstrap(
                [
                    np.where(episodes.broken == k, metrics.exact_set(rows, episodes), np.nan)
                    for rows in results.of(name, world).values()
                ]
            )
        )
        for k in range(5)
    }
    asked = [~np.isnan(f.believed) for f in faults.values()]
    kinds = [np.stack((f.kind, f.believed), axis=1)[a] for f, a in zip(faults.values(), asked, strict=True)]
    return exact | {
        "delay dead, median": as_json(bootstrap([f.delay for f in dead.values()], quantile(0.5))),
        "delay dead, p95": as_json(bootstrap([f.delay for f in dead.values()], quantile(0.95))),
        "delay half-dead, median": as_json(bootstrap(list(half.values()), quantile(0.5))),
        "delay from load, median": as_json(bootstrap([metrics.from_load(f) for f in faults.values()], quantile(0.5))),
        "timely": as_json(bootstrap([metrics.timely(f) for f in faults.values()])),
        "recall": as_json(bootstrap([metrics.recalled(f) for f in faults.values()])),
        "kind macro-F1": as_json(bootstrap(kinds, macro_f1)),
        "false alarms": {way: _false(results, name, world, (way,)) for way in WAYS}
        | {"both": _false(results, name, world, WAYS)},
        "wrong alarms": as_json(
            bootstrap(
                [
                    np.stack((metrics.numbers(rows["false"]), metrics.numbers(rows["alive_s"]) / 3600), axis=1)
                    for rows in results.of(name, world).values()
                ],
                ratio,
            )
        ),
    }


def _false(results: Results, name: str, world: str, ways: Sequence[str]) -> Any:
    """False alarms an hour over all seeds, the hours, and the falls in them."""
    count, hours = _count(results, name, world, ways, "false_alarms")
    found = as_json(rate(count, hours))
    falls, _ = _count(results, name, world, ways, "healthy_falls")
    return None if found is None else found | {"hours": hours, "falls": falls}


def _count(results: Results, name: str, world: str, ways: Sequence[str], event: str) -> tuple[int, float]:
    """How often something happened to robots that were well, and in how many hours."""
    parts = [p for (_, c, w), p in results.parts.items() if (c, w) == (name, world) and "alarms" in p]
    counted = [part["alarms"][way] for part in parts for way in ways]
    return sum(int(each[event]) for each in counted), sum(each["healthy_hours"] for each in counted)


def severity(results: Results, name: str, world: str) -> Json:
    """Severity -> survival at k=1."""
    sizes = results.episodes(world).severity
    rows = results.values(name, metrics.survived, "k=1", world).values()
    return {f"{s:g}": as_json(bootstrap([np.where(sizes == s, x, np.nan) for x in rows])) for s in SEVERITIES}


def heat(results: Results, name: str) -> Json:
    """Joint -> kind -> mean survival at k=1 over seeds and severities."""
    episodes = results.episodes(NOMINAL)
    rows = list(results.values(name, metrics.survived, "k=1").values())
    found: Json = {}
    for joint in results.robot.fault_candidates:
        breaks = episodes.joints[:, results.robot.joint_id(joint)]
        for k, kind in enumerate(KINDS):
            here = breaks & (episodes.kind == k)
            known = np.concatenate([each[here & ~np.isnan(each)] for each in rows])
            found.setdefault(joint, {})[kind] = float(known.mean()) if len(known) else None
    return found


def recall(results: Results, name: str, world: str) -> Json:
    """Kind -> severity -> recall at k=1, and `smallest`: see `fault_metrics.smallest_severity`."""
    faults = list(results.faults(name, world, lambda e: e.broken == 1).values())
    found: Json = {}
    for k, kind in enumerate(KINDS):
        shares = {}
        for each in SEVERITIES:
            hits = np.concatenate([metrics.recalled(f)[(f.kind == k) & (f.severity == each)] for f in faults])
            shares[f"{each:g}"] = float(hits.mean()) if len(hits) else None
        found[kind] = shares | {"smallest": metrics.smallest_severity(faults, kind)}
    return found


def delays(results: Results, name: str) -> dict[str, list[float | None]]:
    """What to plot: delays of dead and of half-dead joints at k=1, ms, in order; null for a miss."""
    faults = results.faults(name, NOMINAL, lambda e: e.broken == 1).values()
    found = {}
    for words, size in (("dead", 1.0), ("half-dead", 0.5)):
        chosen = (f.delay[(f.kind == KINDS.index("torque_loss")) & (f.severity == size)] for f in faults)
        found[words] = [x if np.isfinite(x) else None for x in np.sort(np.concatenate([*chosen])).tolist()]
    return found


def difference(results: Results, a: str, b: str, world: str = NOMINAL) -> Json:
    """Stratum -> survival of a less that of b, on the same episodes; `of`: of each alone, in the seeds of both."""
    found: Json = {}
    for stratum in COUNTED:
        ours, theirs = (results.values(name, metrics.survived, stratum, world) for name in (a, b))
        gap = as_json(paired(ours, theirs))
        shared = [seed for seed in ours if seed in theirs]
        each = [as_json(bootstrap([values[seed] for seed in shared])) for values in (ours, theirs)]
        found[stratum] = None if gap is None else gap | {"of": each}
    return found


def by_seed(results: Results, name: str) -> Json:
    """Seed -> stratum -> survival in the nominal world."""
    found: dict[str, Json] = {}
    for stratum in COUNTED:
        for seed, values in results.values(name, metrics.survived, stratum).items():
            known = values[~np.isnan(values)]
            found.setdefault(str(seed), {})[stratum] = float(known.mean()) if len(known) else None
    return found


def tax(results: Results, main: str, healthy: str, world: str) -> Json:
    """What watching costs a robot that is well."""
    ours, alone = results.of(main, world), results.of(healthy, world)
    chosen = STRATA["k=0, walking"](results.episodes(world))
    both = [metrics.healthy_tax(ours[seed], alone[seed], chosen) for seed in ours if seed in alone]
    return {
        "tracking": as_json(bootstrap([squares for squares, _ in both], root_ratio)),
        "survival": as_json(bootstrap([lost for _, lost in both])),
        "falls": {
            name: as_json(rate(*_count(results, name, world, WAYS, "healthy_falls"))) for name in (main, healthy)
        },
    }


def held_out_kinds(results: Results, name: str, world: str) -> Json | None:
    """Survival at k=1 with kinds of fault that the controller never met in training; null where it met all."""
    part = results.about(name, world)
    unknown = [kind for kind in KINDS if part is not None and kind not in part["about"]["kinds"]]
    if not unknown:
        return None
    chosen = results.episodes(world).with_kinds(unknown)
    rows = results.values(name, metrics.survived, "k=1", world).values()
    return {"kinds": unknown, "survival": as_json(bootstrap([np.where(chosen, each, np.nan) for each in rows]))}


def same_states(results: Results) -> bool:
    """Whether all controllers of each seed took over the very same robots in each world."""
    found: dict[tuple[int, str], set[tuple[str, ...]]] = {}
    for (seed, _, world), part in results.parts.items():
        found.setdefault((seed, world), set()).add(tuple(part["handover"]))
    return all(len(states) == 1 for states in found.values())


def hours_a_seed(results: Results) -> float:
    """Hours that the parts of the longest seed took."""
    spent: dict[int, float] = {}
    for (seed, _, _), part in results.parts.items():
        spent[seed] = spent.get(seed, 0.0) + part["made"]["seconds"] / 3600
    return max(spent.values())
