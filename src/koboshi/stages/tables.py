"""What verbs show in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.table import Table

from koboshi import robots, tasks
from koboshi.bench.worlds import WORLDS
from koboshi.faults.kinds import FAULT_KINDS
from koboshi.robots import Robot
from koboshi.runs import RunFolder
from koboshi.specialists.assignment import COVER_RULES, SHARINGS, Assignment
from koboshi.specialists.charge import served_joints
from koboshi.stages.ablation import ranking
from koboshi.stages.check import Finding
from koboshi.stages.estimators import LABELS, variant_row
from koboshi.stages.folders import CONTROLLER, names
from koboshi.stages.progress import console
from koboshi.stages.specialists import bank_assignment
from koboshi.stages.suggest import Worth
from koboshi.tasks import TaskCfg
from koboshi.tasks.task import required

TOGETHER = (1, 2, 3)
"""Joints that break together, in the table of banks."""


def show_statistics(statistics: dict[str, Any]) -> None:
    """A data set's figures: a joint a row."""
    table = Table(title=f"{statistics['robot']}: {statistics['rows']:,} rows, {statistics['hours']:.1f} robot-hours")
    for name in ("joint", "episodes", "rows"):
        table.add_column(name, justify="left" if name == "joint" else "right")
    for joint, rows in statistics["rows_by_joint"].items():
        if rows:
            table.add_row(joint, str(statistics["episodes_by_joint"][joint]), f"{rows:,}")
    console.print(table)
    onset, length = statistics["onset_s"]["quantiles"], statistics["episode_s"]["quantiles"]
    about = [f"{statistics['episodes']} episodes, median {length['0.5']:.1f} s"]
    about += [] if statistics["faults"] is None else [f"{statistics['faults']} faults"]
    if onset:
        about += [f"healthy rows {statistics['healthy_fraction']:.0%}", f"onset median {onset['0.5']:.2f} s"]
        about += [f"joints at once {statistics['simultaneous']}"]
    rows = statistics["split"]
    about += ["no split" if rows is None else "rows to " + ", ".join(f"{part} {n:,}" for part, n in rows.items())]
    console.print("; ".join(about), highlight=False, soft_wrap=True)


def show_detector(figures: dict[str, Any], folder: Path) -> None:
    """A detector's figures."""
    table = Table(title=f"detector, {figures['episodes']} episodes")
    keys = ("delay_ms_median", "delay_ms_p95", "missed", "false_alarms_per_hour", "macro_f1", "threshold")
    for key in keys:
        table.add_column(key.replace("_", " "), justify="right")
    table.add_row(*(_cell(key, figures[key]) for key in keys))
    console.print(table)
    console.print(f"{folder}/detector.json  {folder}/detector.png", highlight=False, soft_wrap=True)


def _cell(key: str, value: float | None) -> str:
    """A delay that is None is a miss; any other figure has nothing to be measured on."""
    return f"{value:.4g}" if value is not None else "∞" if key.startswith("delay") else "–"


def show_switch(rows: list[dict[str, Any]]) -> None:
    """What each of the switch's settings reached, and which were taken, in their order."""
    table = Table(title="the switch: control steps, reward a second, share that fell")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        cells = (("yes" if x else "") if isinstance(x, bool) else _cell(name, x) for name, x in row.items())
        table.add_row(*cells)
    console.print(table)


def show_findings(robot: str, findings: list[Finding]) -> None:
    """What `koboshi check` found."""
    if not findings:
        console.print(f"{robot}: nothing missing, nothing wrong")
    for found in findings:
        console.print(f"{found.kind}  {found.part}: {found.text}", highlight=False, soft_wrap=True)


def _two_columns(title: str, rows: Mapping[str, str]) -> None:
    table = Table(title=title, show_header=False)
    for row in rows.items():
        table.add_row(*row)
    console.print(table)


def show_worlds() -> None:
    """The worlds that `koboshi evaluate --world` knows."""
    _two_columns("worlds", {name: world.about for name, world in WORLDS.items()})


def show_faults(picture: Path) -> None:
    """The kinds of fault and what their severity means."""
    title = "kinds of fault, severity s above 0 and at most 1"
    _two_columns(title, {name: kind.severity for name, kind in FAULT_KINDS.items()})
    console.print(str(picture), highlight=False, soft_wrap=True)


def show_banks(task: TaskCfg) -> None:
    """Who serves which joints in the task's bank, and how many sets of joints each way of sharing serves whole."""
    settings, robot = required(task, "specialists", task.specialists), robots.find(task.env.robot)
    mine = bank_assignment(task)
    table = Table(title=f"{task.name}: specialists.sharing={settings.sharing}")
    for name in ("member", "joints", "through the mirror", "kinds"):
        table.add_column(name, overflow="fold")
    for member in mine.members:
        straight = [joint for joint in member.joints if joint not in member.mirrored]
        kinds = ", ".join(member.kinds) if member.kinds else "all"
        table.add_row(member.name, ", ".join(straight), ", ".join(member.mirrored), kinds)
    console.print(table)
    banks = Table(title="sets of joints that one member serves whole")
    for name in ("specialists.sharing", "members", *(f"of {k}" for k in TOGETHER)):
        banks.add_column(name, justify="left" if "sharing" in name else "right")
    for sharing in SHARINGS:
        bank = bank_assignment(replace(task, specialists=replace(settings, sharing=sharing)))
        shares = (f"{served_whole(bank, robot, k):.0%}" for k in TOGETHER)
        banks.add_row(f"{sharing} *" if bank == mine else sharing, str(len(bank.members)), *shares)
    console.print(banks)
    console.print(f"The rest, specialists.cover={settings.cover}: {COVER_RULES[settings.cover]}", soft_wrap=True)


def served_whole(bank: Assignment, robot: Robot, k: int) -> float:
    """Share of all sets of k joints of the bank that one seat serves."""
    seats = list(served_joints(bank, robot).values())
    sets = [set(joints) for joints in combinations(sorted(set().union(*seats)), k)]
    return sum(any(joints <= seat for seat in seats) for joints in sets) / len(sets)


def show_everything(root: Path) -> None:
    """Tasks, robots and runs."""
    console.print(f"tasks: {', '.join(tasks.known())}", highlight=False, soft_wrap=True)
    for robot in robots.known().values():
        groups = "; ".join(f"{group}: {', '.join(joints)}" for group, joints in robot.groups.items())
        console.print(f"robot {robot.name}: {groups}", highlight=False, soft_wrap=True)
    for name in names(root):
        if (root / name / CONTROLLER).is_file():
            console.print(f"pipeline {name}: {CONTROLLER}", highlight=False, soft_wrap=True)
        else:
            newest = RunFolder(root / name).latest()
            console.print(
                f"run {name}: {newest.name if newest else 'no checkpoint yet'}", highlight=False, soft_wrap=True
            )


def show_crossing(figures: Mapping[str, Any]) -> None:
    """Shares of robots that crossed: a level a row, of which there may be many, a type of ground a column."""
    types = figures["types"]
    table = Table(title=f"{figures['task']}: robots that crossed, %, by level")
    for name in ("level", *(name.replace("_", " ") for name in types)):
        table.add_column(name, justify="right")
    for level, shares in enumerate(zip(*(each["crossed"] for each in types.values()), strict=True)):
        table.add_row(str(level), *(f"{100 * share:.0f}" for share in shares))
    table.add_section()
    table.add_row("passed", *(str(each["passed"]) for each in types.values()))
    console.print(table)
    speed = "–" if figures["speed"] is None else f"{figures['speed']:.0%}"
    words = f"crossed {figures['crossed']:.0%}, fell {figures['fell']:.0%}, speed kept by those that crossed {speed}"
    console.print(words, highlight=False, soft_wrap=True)


def show_estimators(figures: Mapping[str, Any]) -> None:
    """An actor a row, each figure's mean over seeds and, of several, its range."""
    one = len(figures["seeds"]) == 1
    rows = {LABELS[name]: variant_row(by_seed) for name, by_seed in figures["variants"].items()}
    steps = figures["timesteps"] * figures["num_envs"] / 1e6
    table = Table(title=f"{figures['task']}: {steps:.1f} M steps each, seeds {figures['seeds']}")
    table.add_column("actor")
    for name in next(iter(rows.values())):
        table.add_column(name, justify="right")
    for name, row in rows.items():
        table.add_row(name, *("–" if v is None else _of_seeds(*v, alone=one) for v in row.values()))
    console.print(table)


def _of_seeds(mean: float, least: float, most: float, alone: bool) -> str:
    said = "{:,.0f}" if mean >= 1000 else "{:.3g}"
    return said.format(mean) if alone else f"{said} ({said}–{said})".format(mean, least, most)


def show_ablation(figures: Mapping[str, Any]) -> None:
    """The changes from the costliest on; what they cost over the seeds, as mean and range."""
    about = f"{figures['steps'] / 1e6:.1f} M steps each, seeds {', '.join(figures['seeds'])}"
    table = Table(title=f"{figures['task']} ablated ({about}): survival lost against the unchanged, points")
    for name in ("change", "mean of worlds", "most", "in", "v_x RMSE gained, m/s"):
        table.add_column(name, justify="left" if name in ("change", "in") else "right")
    for loss in ranking(figures):
        lost = "{:+.1f} ({:+.1f} – {:+.1f})".format(*(100 * share for share in loss.survival))
        gained = "–" if loss.vx_rmse is None else f"{loss.vx_rmse:+.3f}"
        table.add_row(loss.name, lost, f"{100 * loss.by_world[loss.worst]:+.1f}", loss.worst, gained)
    console.print(table)


def show_worths(worths: Sequence[Worth]) -> None:
    """Reward terms from the weightiest on, and overrides to copy."""
    table = Table(title="reward terms over the last fifth of the run")
    for name in ("term", "1/s", "share", "value", "clip"):
        table.add_column(name, justify="left" if name in ("term", "clip") else "right", no_wrap=True)
    for each in sorted(worths, key=lambda worth: -worth.share):
        numbers = (f"{each.earned:.2g}", f"{each.share:.0%}", f"{each.mean:.3g} ± {each.std:.3g}")
        table.add_row(each.name, *numbers, each.why if each.clip is None else "[{:g}, {:g}]".format(*each.clip))
    console.print(table)
    found = [f"env.rewards.{each.name}.clip=[{each.clip[0]:g},{each.clip[1]:g}]" for each in worths if each.clip]
    console.print(" ".join(found) or "nothing to clip", highlight=False, soft_wrap=True, markup=False)
