"""Frozen scenarios: the same faults, moments and commands for every controller that is compared."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from koboshi import robots, runs
from koboshi.errors import KoboshiError
from koboshi.faults.cfg import Fault, FaultsCfg
from koboshi.robots import Robot


@dataclass(frozen=True)
class Scenario:
    """One episode: its faults, under which constant command, and from when on it counts."""

    faults: tuple[Fault, ...]
    command: tuple[float, float, float]
    """v_x, v_y (m/s), yaw rate (rad/s)."""
    start_s: float
    """Figures count from here on, s: the first onset, or for a healthy episode any time."""
    heading: float | None = None
    """Held in place of the yaw rate, rad to the left of where the robot looks as the episode begins; None: none is."""


@dataclass(frozen=True)
class Scenarios:
    """A frozen list of episodes and the seed that the environments start from."""

    robot: str
    seed: int
    episodes: tuple[Scenario, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Fault kinds that occur."""
        return tuple(sorted({fault.kind for episode in self.episodes for fault in episode.faults}))

    @property
    def hash(self) -> str:
        """sha256 of the content, its first 12 digits."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()[:12]

    def _content(self) -> dict[str, Any]:
        """As plain data. What came later and is not there has no entry, so that older files keep their hash."""
        content = asdict(self)
        for episode in content["episodes"]:
            for part, name in ((episode, "heading"), *((fault, "period_s") for fault in episode["faults"])):
                if part[name] is None:
                    del part[name]
        return content

    @cached_property
    def _commands(self) -> Tensor:
        return torch.tensor([e.command for e in self.episodes])

    def commands(self) -> Tensor:
        """(N, 3); not to be written to."""
        return self._commands

    def headings(self) -> Tensor:
        """(N,) rad, relative to each episode's first; NaN where none is held."""
        return torch.tensor([math.nan if e.heading is None else e.heading for e in self.episodes])

    def onset(self, step_dt: float) -> Tensor:
        """(N,) control step from which on each episode counts."""
        return torch.tensor([round(e.start_s / step_dt) for e in self.episodes])

    def steps(self, step_dt: float, seconds: float) -> int:
        """Control steps until `seconds` after the latest start of counting."""
        return int(self.onset(step_dt).max()) + round(seconds / step_dt)

    def faulty(self) -> Tensor:
        """(N, J) bool: joints that fail at some time."""
        robot = robots.find(self.robot)
        found = torch.zeros(len(self.episodes), len(robot.joint_names), dtype=torch.bool)
        for i, episode in enumerate(self.episodes):
            for fault in episode.faults:
                found[i, robot.joint_id(fault.joint)] = True
        return found

    def save(self, path: Path) -> None:
        """Writes JSON, whole or not at all."""
        runs.write_json(path, self._content())

    @staticmethod
    def load(path: Path) -> Scenarios:
        """Reads and checks a scenario file."""
        try:
            scenarios = TypeAdapter(Scenarios).validate_python(runs.read_json(path))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise KoboshiError(f"scenario file {path}: {where}: {first['msg']}, not {first['input']!r}") from error
        scenarios.validate()
        return scenarios

    def validate(self) -> None:
        robot = robots.find(self.robot)
        if not self.episodes:
            raise KoboshiError("scenarios: there are no episodes")
        for i, episode in enumerate(self.episodes):
            for fault in episode.faults:
                try:
                    fault.check(robot)
                except KoboshiError as error:
                    raise KoboshiError(f"scenario {i}: {error}") from error
            if not 0 <= episode.start_s < math.inf:
                raise KoboshiError(f"scenario {i}: it counts from a time ≥ 0 s on, not {episode.start_s}")
            if not all(map(math.isfinite, episode.command)):
                raise KoboshiError(f"scenario {i}: a command is three finite numbers, not {episode.command}")
            if episode.heading is not None and not math.isfinite(episode.heading):
                raise KoboshiError(f"scenario {i}: a heading is finite, not {episode.heading}")


@dataclass(frozen=True)
class CommandRanges:
    """Commands that scenarios are drawn from, m/s and rad/s."""

    lin_vel_x: tuple[float, float] = (0.2, 1.0)
    lin_vel_y: tuple[float, float] = (0.0, 0.0)
    ang_vel_z: tuple[float, float] = (-0.5, 0.5)
    heading: tuple[float, float] | None = None
    """Held in place of a yaw rate, rad to the left of the first one."""

    def validate(self) -> None:
        for name, bounds in asdict(self).items():
            if bounds is not None and not bounds[0] <= bounds[1]:
                raise KoboshiError(f"{name}: the lower bound {bounds[0]} is above the upper bound {bounds[1]}")

    def draw(self, u: Sequence[float]) -> tuple[float, float, float]:
        """The command for three numbers in 0..1."""
        rows = zip((self.lin_vel_x, self.lin_vel_y, self.ang_vel_z), u, strict=True)
        x, y, yaw = (round(low + (high - low) * each, 3) for (low, high), each in rows)
        return x, y, yaw

    def draw_heading(self, generator: torch.Generator) -> float | None:
        """Draws nothing where none is held."""
        if self.heading is None:
            return None
        low, high = self.heading
        return round(low + (high - low) * float(torch.rand(1, generator=generator)), 3)


def sweep(
    robot: Robot,
    joints: Sequence[str | None],
    episodes_each: int,
    seed: int,
    *,
    faults: FaultsCfg = FaultsCfg(),  # noqa: B008 (frozen)
    commands: CommandRanges = CommandRanges(),  # noqa: B008 (frozen)
    onset_s: tuple[float, float] = (2.0, 4.0),
) -> Scenarios:
    """`episodes_each` episodes for each joint (None: nothing breaks), each with one of `faults`' kinds in turn.

    Where `faults.count` asks for several joints, others of `joints` break too, at moments of their own; for none, the
    joint breaks all the same.
    """
    generator = torch.Generator().manual_seed(seed)
    episodes = []
    for joint in joints:
        for i in range(episodes_each):
            start, *u = torch.rand(4, generator=generator).tolist()
            first = _between(onset_s, start)
            names = [] if joint is None else _companions(joint, joints, faults, generator)
            # The kinds take turns, over the episodes of a joint and within each.
            found = [
                _draw(name, faults, i + k, None if k else first, onset_s, generator) for k, name in enumerate(names)
            ]
            if faults.alike and len(found) > 1 and float(torch.rand(1, generator=generator)) < faults.alike:
                found = [replace(fault, kind=found[0].kind, severity=found[0].severity) for fault in found]
            if faults.dead and float(torch.rand(1, generator=generator)) < faults.dead:
                found = [replace(fault, kind="torque_loss", severity=1.0) for fault in found]
            begin = min((fault.onset_s for fault in found), default=first)
            episodes.append(Scenario(tuple(found), commands.draw(u), begin, commands.draw_heading(generator)))
    return Scenarios(robot.name, seed, tuple(episodes))


def _companions(joint: str, joints: Sequence[str | None], faults: FaultsCfg, generator: torch.Generator) -> list[str]:
    """The joint and, where several are to break, others drawn beside it."""
    low, high = faults.count
    if high == 1:
        return [joint]
    number = int(torch.randint(max(1, low), high + 1, (1,), generator=generator))
    others = [name for name in joints if name not in (None, joint)]
    order = torch.randperm(len(others), generator=generator).tolist()
    return [joint, *(others[k] for k in order[: number - 1])]


def _draw(
    joint: str,
    faults: FaultsCfg,
    index: int,
    onset: float | None,
    onset_s: tuple[float, float],
    generator: torch.Generator,
) -> Fault:
    u = torch.rand(3 if faults.pause_s is None else 4, generator=generator).tolist()
    kind = faults.kinds[index % len(faults.kinds)]
    severity = float(faults.levels(torch.tensor(u[0], dtype=torch.float64)))
    if onset is None:
        onset = _between(onset_s, u[1])
    duration = None if faults.duration_s is None else _between(faults.duration_s, u[2])
    period = None if faults.pause_s is None or duration is None else round(duration + _between(faults.pause_s, u[3]), 2)
    return Fault(joint, kind, round(severity, 3), onset, duration, period)


def _between(seconds: tuple[float, float], u: float) -> float:
    return round(seconds[0] + (seconds[1] - seconds[0]) * u, 2)
