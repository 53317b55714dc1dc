"""All settings of a task: what `koboshi train …` and the rest of the pipeline read and override."""

from __future__ import annotations

from dataclasses import dataclass

from koboshi.algos.ppo import PPOCfg
from koboshi.detect.alarms import AlarmCfg
from koboshi.detect.model import DetectorCfg
from koboshi.detect.train import DetectorTrainCfg
from koboshi.envs import EnvCfg
from koboshi.errors import KoboshiError
from koboshi.faults import FaultSchedule
from koboshi.specialists.training import SpecialistsCfg


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise KoboshiError(f"{name} must be above 0, not {value}")


@dataclass(frozen=True)
class GateCfg:
    """What the healthy policy must reach on held-out seeds before the pipeline goes on."""

    episodes: int = 256
    seconds: float = 20.0
    seed: int = 20_001
    survival: float = 0.99
    vx_rmse: float = 0.10
    """m/s."""
    duty_difference: float = 0.05

    def validate(self) -> None:
        _positive("gate.episodes", self.episodes)
        _positive("gate.seconds", self.seconds)


@dataclass(frozen=True)
class CollectCfg:
    """How the detector's data are collected."""

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
    schedule: FaultSchedule = FaultSchedule(probability=0.85, onset_s=(0.5, 8.0))

    def validate(self) -> None:
        for name in ("num_envs", "steps", "shard_steps"):
            _positive(f"collect.{name}", getattr(self, name))
        held_out = (self.calibrate_fraction, self.test_fraction)
        if not (min(held_out) > 0 and sum(held_out) < 1):
            raise KoboshiError(
                f"collect.calibrate_fraction and collect.test_fraction are above 0 and leave episodes to train on, "
                f"not {held_out[0]} and {held_out[1]}"
            )


@dataclass(frozen=True)
class DetectorStageCfg:
    """The detector's network, its training, and what its alarms are calibrated to."""

    network: DetectorCfg = DetectorCfg(embed=64, hidden=64)
    training: DetectorTrainCfg = DetectorTrainCfg()
    alarm: AlarmCfg = AlarmCfg()
    """What calibration starts from; it sets threshold and persistence."""
    false_alarms_per_hour: float = 0.3


@dataclass(frozen=True)
class EvaluateCfg:
    """The frozen scenarios a controller is judged on."""

    episodes_a_joint: int = 30
    seconds: float = 20.0
    """Time after the onset, s."""
    seed: int = 40_001
    oracle_delays_s: tuple[float, ...] = (0.06, 0.2, 0.5)
    healthy_hours: float = 10.5
    """Robot-hours without a fault, to count false alarms in."""

    def validate(self) -> None:
        for name in ("episodes_a_joint", "seconds", "healthy_hours"):
            _positive(f"evaluate.{name}", getattr(self, name))
        if min(self.oracle_delays_s, default=0.0) < 0:
            raise KoboshiError(f"evaluate.oracle_delays_s are at least 0 s, not {self.oracle_delays_s}")


@dataclass(frozen=True)
class TaskCfg:
    """A task, whole."""

    name: str
    env: EnvCfg
    agent: PPOCfg
    specialists: SpecialistsCfg
    gate: GateCfg = GateCfg()
    collect: CollectCfg = CollectCfg()
    detector: DetectorStageCfg = DetectorStageCfg()
    evaluate: EvaluateCfg = EvaluateCfg()
    rounds: int = 2
    """How often the detector is trained: first on the healthy policy's faults, then under the switched controller."""

    def validate(self) -> None:
        if self.rounds < 1:
            raise KoboshiError(f"rounds must be at least 1, not {self.rounds}")
