"""The configuration of an environment: dictionaries of terms, in Isaac Lab's words.

A term's name in its dictionary is its key in the log and in an override (`env.rewards.air_time.weight=2`,
`env.events.change_joint_torque=null`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from koboshi.errors import KoboshiError, unknown
from koboshi.robots import ROBOTS


@dataclass(frozen=True)
class SimCfg:
    """Physics: where it runs and MuJoCo's solver settings."""

    backend: Literal["cpu", "warp"] = "cpu"
    device: str = "cpu"
    timestep: float = 0.005
    """s."""
    iterations: int = 10
    ls_iterations: int = 20

    def validate(self) -> None:
        if self.timestep <= 0:
            raise KoboshiError(f"env.sim.timestep must be positive, not {self.timestep} s")


@dataclass(frozen=True)
class ActionCfg:
    """Joint position targets: default pose + `scale` · action, rad; actions are clipped to ±`clip`."""

    scale: float = 0.5
    clip: float = 10.0


@dataclass(frozen=True)
class ObsTerm:
    """`func(env, **params) -> (N, d)`, then noise, delay, scale, clip and history, in this order."""

    func: Callable[..., Any]
    params: dict[str, Any] = field(default_factory=dict)
    noise: float = 0.0
    """Half-width of uniform noise, in the term's unit."""
    delay: tuple[int, int] = (0, 0)
    """Least and greatest delay in control steps, drawn for each environment at its reset."""
    scale: float = 1.0
    clip: float | None = None
    history: int = 1
    """How many past values are given, oldest first."""


@dataclass(frozen=True)
class ObsGroup:
    """Terms side by side. `base`: a group whose very values (noise and all) come first."""

    terms: dict[str, ObsTerm | None]
    base: str | None = None
    noise: bool = True
    """Whether the terms' noise is added."""


@dataclass(frozen=True)
class RewardTerm:
    """`func(env, **params) -> (N,) or (N, d)`; per second it earns `weight` · clip(shape(value)).

    Shapes of a value x: `raw` Σx, `l1` Σ|x|, `l2` Σx², `exp` exp(−Σx²/scale²), `log` log(1 + Σx²/scale²),
    `tanh` tanh(Σ|x|/scale).
    """

    func: Callable[..., Any]
    weight: float
    params: dict[str, Any] = field(default_factory=dict)
    shape: Literal["raw", "l1", "l2", "exp", "log", "tanh"] = "raw"
    scale: float = 1.0
    clip: tuple[float, float] | None = None


@dataclass(frozen=True)
class TerminationTerm:
    """`func(env, **params) -> (N,) bool`. `time_out` terms truncate, the others terminate."""

    func: Callable[..., Any]
    params: dict[str, Any] = field(default_factory=dict)
    time_out: bool = False


@dataclass(frozen=True)
class EventTerm:
    """`func(env, ids, **params)`: at a reset (`ids` start an episode) or every `interval_s` seconds."""

    func: Callable[..., Any]
    mode: Literal["reset", "interval"] = "reset"
    params: dict[str, Any] = field(default_factory=dict)
    interval_s: tuple[float, float] = (5.0, 15.0)


@dataclass(frozen=True)
class CurriculumTerm:
    """`func(env, ids, **params) -> float`: changes the task as learning goes on; the value is logged."""

    func: Callable[..., Any]
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class VelocityCommandCfg:
    """Uniform velocity commands in the base's yaw frame, m/s and rad/s."""

    lin_vel_x: tuple[float, float] = (0.0, 1.0)
    lin_vel_y: tuple[float, float] = (0.0, 0.0)
    ang_vel_z: tuple[float, float] = (-1.0, 1.0)
    resampling_time_s: tuple[float, float] = (10.0, 10.0)
    standing_fraction: float = 0.02
    """Share of commands that ask to stand still."""

    def validate(self) -> None:
        for name in ("lin_vel_x", "lin_vel_y", "ang_vel_z", "resampling_time_s"):
            low, high = getattr(self, name)
            if low > high:
                raise KoboshiError(f"env.command.{name}: the lower bound {low} is above the upper bound {high}")


@dataclass(frozen=True)
class EnvCfg:
    """All of an environment. One control step is `decimation` physics steps."""

    robot: str
    observations: dict[str, ObsGroup]
    rewards: dict[str, RewardTerm | None]
    terminations: dict[str, TerminationTerm | None]
    events: dict[str, EventTerm | None] = field(default_factory=dict)
    curriculum: dict[str, CurriculumTerm | None] = field(default_factory=dict)
    command: VelocityCommandCfg = VelocityCommandCfg()
    action: ActionCfg = ActionCfg()
    sim: SimCfg = SimCfg()
    num_envs: int = 1024
    decimation: int = 4
    episode_length_s: float = 20.0
    max_nan_rate: float = 1e-3
    """Share of environment steps that may end in a NaN from physics before the run stops."""

    @property
    def step_dt(self) -> float:
        """The control period, s."""
        return self.sim.timestep * self.decimation

    @property
    def max_episode_length(self) -> int:
        """Control steps in an episode."""
        return round(self.episode_length_s / self.step_dt)

    def validate(self) -> None:
        if self.robot not in ROBOTS:
            raise unknown("robot", self.robot, ROBOTS)
        for name, least in (("num_envs", 1), ("decimation", 1)):
            if getattr(self, name) < least:
                raise KoboshiError(f"env.{name} must be at least {least}, not {getattr(self, name)}")
        if self.episode_length_s <= 0:
            raise KoboshiError(f"env.episode_length_s must be positive, not {self.episode_length_s} s")
