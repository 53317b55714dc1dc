"""What verbs show in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from koboshi import robots, tasks
from koboshi.bench.worlds import WORLDS
from koboshi.faults.kinds import FAULT_KINDS
from koboshi.runs import RunFolder
from koboshi.stages.check import Finding
from koboshi.stages.folders import CONTROLLER, names
from koboshi.stages.progress import console


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
        table.add_row(
            *(("yes" if value else "") if isinstance(value, bool) else f"{value:.4g}" for value in row.values())
        )
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
