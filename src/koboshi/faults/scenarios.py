"""Frozen scenarios: the same faults, moments and commands for every controller that is compared."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from koboshi import runs
from koboshi.errors import KoboshiError, unknown
from koboshi.faults.schedule import KINDS
from koboshi.faults.state import NEVER
from koboshi.robots import ROBOTS, Robot


@dataclass(frozen=True)
class Scenario:
    """One episode: which joint breaks (None: none), how, how badly (0..1), when (s), under which command."""

    joint: str | None
    kind: str
    severity: float
    onset_s: float
    command: tuple[float, float, float]
    """v_x, v_y (m/s), yaw rate (rad/s)."""


@dataclass(frozen=True)
class Scenarios:
    """A frozen list of episodes and the seed that the environments start from."""

    robot: str
    seed: int
    episodes: tuple[Scenario, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Fault kinds that occur."""
        return tuple(sorted({e.kind for e in self.episodes if e.joint is not None}))

    @property
    def hash(self) -> str:
        """sha256 of the content, its first 12 digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    @cached_property
    def _commands(self) -> Tensor:
        return torch.tensor([e.command for e in self.episodes])

    def commands(self) -> Tensor:
        """(N, 3); not to be written to."""
        return self._commands

    def onset(self, step_dt: float) -> Tensor:
        """(N,) control step at which the episode's fault (or, without one, its clock) starts."""
        return torch.tensor([round(e.onset_s / step_dt) for e in self.episodes])

    def steps(self, step_dt: float, seconds: float) -> int:
        """Control steps until `seconds` after the latest onset."""
        return int(self.onset(step_dt).max()) + round(seconds / step_dt)

    @cached_property
    def _plans(self) -> dict[float, tuple[Tensor, Tensor, Tensor]]:
        return {}

    def plan(self, step_dt: float) -> tuple[Tensor, Tensor, Tensor]:
        """kind, severity, onset as `FaultState.set_plan` takes them, each (N, J); not to be written to."""
        if step_dt not in self._plans:  # asked for at every reset
            self._plans[step_dt] = self._plan(step_dt)
        return self._plans[step_dt]

    def _plan(self, step_dt: float) -> tuple[Tensor, Tensor, Tensor]:
        robot = ROBOTS[self.robot]
        shape = (len(self.episodes), len(robot.joint_names))
        kind, severity = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
        onset = torch.full(shape, NEVER, dtype=torch.int64)
        for i, (episode, start) in enumerate(zip(self.episodes, self.onset(step_dt).tolist(), strict=True)):
            if episode.joint is not None:
                j = robot.joint_id(episode.joint)
                kind[i, j], severity[i, j], onset[i, j] = KINDS.index(episode.kind), episode.severity, start
        return kind, severity, onset

    def save(self, path: Path) -> None:
        """Writes JSON, whole or not at all."""
        runs.write_json(path, asdict(self))

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
        if self.robot not in ROBOTS:
            raise unknown("robot", self.robot, ROBOTS)
        if not self.episodes:
            raise KoboshiError("scenarios: there are no episodes")
        for i, episode in enumerate(self.episodes):
            if episode.kind not in KINDS:
                raise unknown("fault kind", episode.kind, KINDS)
            if episode.joint is not None:
                ROBOTS[self.robot].joint_id(episode.joint)
            if not 0 <= episode.severity <= 1 or not 0 <= episode.onset_s < math.inf:
                raise KoboshiError(
                    f"scenario {i}: severity is from 0 to 1 and onset ≥ 0 s, not {episode.severity}, {episode.onset_s}"
                )
            if not all(map(math.isfinite, episode.command)):
                raise KoboshiError(f"scenario {i}: a command is three finite numbers, not {episode.command}")


def joint_sweep(robot: Robot, joints: tuple[str | None, ...], episodes_a_joint: int, seed: int) -> Scenarios:
    """Each joint dead in `episodes_a_joint` episodes: onset in 2..4 s, v_x in 0.2..1 m/s, yaw rate in ±0.5 rad/s."""
    generator = torch.Generator().manual_seed(seed)
    episodes = []
    for joint in joints:
        for onset, speed, turn in torch.rand(episodes_a_joint, 3, generator=generator).tolist():
            command = (round(0.2 + 0.8 * speed, 3), 0.0, round(turn - 0.5, 3))
            episodes.append(Scenario(joint, "torque_loss", float(joint is not None), round(2 + 2 * onset, 2), command))
    return Scenarios(robot.name, seed, tuple(episodes))
