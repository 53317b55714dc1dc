"""All settings of a task: what `koboshi train …` and the rest of the pipeline read and override."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from koboshi.algos.distillation import DistillationCfg
from koboshi.algos.ppo import PPOCfg
from koboshi.detect import AnyDetectorCfg, DetectorCfg
from koboshi.detect.alarms import AlarmCfg
from koboshi.detect.train import DetectorTrainCfg
from koboshi.envs import EnvCfg
from koboshi.errors import KoboshiError, at_least
from koboshi.faults import CommandRanges, FaultsCfg
from koboshi.specialists.training import SpecialistsCfg

AgentCfg = PPOCfg | DistillationCfg
"""What learns; `agent.type=DistillationCfg` chooses another."""
Range = tuple[float, float]
Part = TypeVar("Part")


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise KoboshiError(f"{name} must be above 0, not {value}")


def _onsets(name: str, value: Range) -> None:
    if not 0 <= value[0] <= value[1]:
        raise KoboshiError(f"{name} must ascend from at least 0 s, not {value}")


@dataclass(frozen=True)
class GateCfg:
    """What the healthy policy must reach on held-out seeds before the pipeline goes on; None: no limit."""

    episodes: int = 256
    seconds: float = 20.0
    seed: int = 20_001
    commands: CommandRanges = CommandRanges()
    survival: float = 0.99
    vx_rmse: float | None = 0.10
    """m/s."""
    vy_rmse: float | None = None
    """m/s."""
    yaw_rmse: float | None = None
    """rad/s."""
    duty_difference: float | None = 0.05

    def validate(self) -> None:
        _positive("gate.episodes", self.episodes)
        _positive("gate.seconds", self.seconds)


@dataclass(frozen=True)
class CollectCfg:
    """How the detector's data are collected; what breaks, and how, is `faults`."""

    num_envs: int = 1024
    steps: int = 800
    """Control steps of every environment."""
    shard_steps: int = 100
    seed: int = 30_001
    calibrate_fraction: float = 0.15
    """Share of the episodes that only set the alarms."""
    test_fraction: float = 0.15
    """Share of the episodes that only judge the detector."""
    groups: tuple[str, ...] = ("detector",)
    """Observation groups to record; the detector learns from "detector", other learners may want "policy"."""
    probability: float = 0.85
    """Share of episodes in which something breaks."""
    episode_length_s: float | None = None
    """Of an episode, s, instead of `env.episode_length_s`: shorter ones have more onsets in as many rows."""
    onset_s: Range = (0.5, 8.0)
    """Time in the episode at which it does, s."""
    standing_fraction: float | None = None
    """Share of the commands that is to stand, instead of `env.command.standing_fraction`, here and where the switch
    counts false alarms."""

    def validate(self) -> None:
        for name in ("num_envs", "steps", "shard_steps"):
            _positive(f"collect.{name}", getattr(self, name))
        held_out = (self.calibrate_fraction, self.test_fraction)
        if not (min(held_out) > 0 and sum(held_out) < 1):
            raise KoboshiError(
                f"collect.calibrate_fraction and collect.test_fraction are above 0 and leave episodes to train on, "
                f"not {held_out[0]} and {held_out[1]}"
            )
        if self.episode_length_s is not None:
            _positive("collect.episode_length_s", self.episode_length_s)
        if self.standing_fraction is not None and not 0 <= self.standing_fraction <= 1:
            raise KoboshiError(f"collect.standing_fraction is from 0 to 1 (or null), not {self.standing_fraction}")
        if not 0 <= self.probability <= 1:
            raise KoboshiError(f"collect.probability is from 0 to 1, not {self.probability}")
        _onsets("collect.onset_s", self.onset_s)


@dataclass(frozen=True)
class DetectorStageCfg:
    """The detector's network, its training, and what its alarms are calibrated to."""

    network: AnyDetectorCfg = DetectorCfg(embed=64, hidden=64)
    training: DetectorTrainCfg = DetectorTrainCfg()
    alarm: AlarmCfg = AlarmCfg()
    """What calibration starts from; it sets threshold and persistence."""
    false_alarms_per_hour: float = 0.3
    mirrored: bool = True
    """Whether half of what it learns from is seen in the mirror, where the robot has one."""


@dataclass(frozen=True)
class SwitchStageCfg:
    """How the settings of alarms and switch are chosen, in the worlds of training, on robots that break as there."""

    healthy_hours: float = 5.0
    """Robot-hours without a fault to count false alarms in, by which threshold and persistence are chosen; 0: they
    stay as the detector was calibrated on its recordings."""
    release_steps: tuple[int, ...] = (25, 50, 100)
    """Of `detector.alarm`."""
    dwell_steps: tuple[int, ...] = (0, 10, 25)
    """Control steps for which whoever took charge keeps it."""
    blend_steps: tuple[int, ...] = (0, 3, 6)
    """Control steps in which the action's jump at a switch fades out."""
    num_envs: int = 256
    """Robots, of one episode each."""
    seconds: float = 12.0
    onset_s: Range = (0.8, 2.5)
    seed: int = 35_001

    def validate(self) -> None:
        at_least("switch.num_envs", self.num_envs, 2)
        if not self.healthy_hours >= 0:
            raise KoboshiError(f"switch.healthy_hours is at least 0, not {self.healthy_hours}")
        _positive("switch.seconds", self.seconds)
        _onsets("switch.onset_s", self.onset_s)
        for name, least in (("release_steps", 1), ("dwell_steps", 0), ("blend_steps", 0)):
            at_least(f"switch.{name}", min(getattr(self, name), default=least), least)


@dataclass(frozen=True)
class EvaluateCfg:
    """The frozen scenarios a controller is judged on."""

    episodes_a_joint: int = 30
    seconds: float = 20.0
    """Time after the onset, s."""
    seed: int = 40_001
    onset_s: Range = (2.0, 4.0)
    """Time in the episode at which the joint breaks (or, without faults, at which counting starts), s."""
    commands: CommandRanges = CommandRanges()
    single: bool = False
    """Whether one joint breaks in an episode and stays broken, whatever `faults` says of counts and durations."""
    oracle_delays_s: tuple[float, ...] = (0.06, 0.2, 0.5)
    healthy_hours: float = 10.5
    """Robot-hours without a fault, to count false alarms in."""

    def validate(self) -> None:
        for name in ("episodes_a_joint", "seconds", "healthy_hours"):
            _positive(f"evaluate.{name}", getattr(self, name))
        _onsets("evaluate.onset_s", self.onset_s)
        if min(self.oracle_delays_s, default=0.0) < 0:
            raise KoboshiError(f"evaluate.oracle_delays_s are at least 0 s, not {self.oracle_delays_s}")


@dataclass(frozen=True)
class TaskCfg:
    """A task, whole. One without faults trains, plays and evaluates; it has no `faults` and what follows from them."""

    name: str
    env: EnvCfg
    agent: AgentCfg
    faults: FaultsCfg | None = None
    """What may break, and how: the same for the detector's data, the specialists and the evaluation."""
    collect: CollectCfg | None = None
    detector: DetectorStageCfg | None = None
    specialists: SpecialistsCfg | None = None
    switch: SwitchStageCfg | None = None
    """How the switch's settings are chosen; None: it switches at once, and alarms end as `detector.alarm` says."""
    gate: GateCfg | None = GateCfg()
    evaluate: EvaluateCfg = EvaluateCfg()
    goes_on_from: str | None = None
    """The task that its policy has learnt before: a training begins with weights of a run of it (`--load`)."""
    rounds: int = 2
    """How often the detector is trained: first on the healthy policy's faults, then under the switched controller."""

    def validate(self) -> None:
        at_least("rounds", self.rounds, 1)
        useless = [name for name in FAULT_PARTS if getattr(self, name) is not None]
        if self.faults is None and useless:
            lost = ", ".join(useless)
            raise KoboshiError(f"task '{self.name}' has no faults, and so no use for {lost}; set them to null too")


FAULT_PARTS = ("collect", "detector", "specialists", "switch")
"""Settings that only a task with faults has a use for."""


def required(task: TaskCfg, name: str, part: Part | None) -> Part:
    """`part`, which is `task.<name>`; KoboshiError where the task lacks it."""
    if part is None:
        lacking = "faults" if task.faults is None else f"settings for '{name}'"
        raise KoboshiError(f"task '{task.name}' has no {lacking}, which this needs")
    return part
