"""The configuration of an environment: dictionaries of terms, in Isaac Lab's words.

A term's name in its dictionary is its key in the log and in an override (`env.rewards.air_time.weight=2`,
`env.events.change_joint_torque=null`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from koboshi.errors import KoboshiError, unknown
from koboshi.robots import ROBOTS

RewardShape = Literal["raw", "l1", "l2", "exp", "log", "tanh"]
REWARD_SHAPES: tuple[str, ...] = get_args(RewardShape)


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise KoboshiError(f"{name} must be at least {least}, not {value}")


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
        _at_least("env.sim.iterations", self.iterations, 1)
        _at_least("env.sim.ls_iterations", self.ls_iterations, 1)
        if not self.timestep > 0:
            raise KoboshiError(f"env.sim.timestep must be positive, not {self.timestep} s")
        if self.backend == "cpu" and self.device != "cpu":
            raise KoboshiError(f"env.sim.device '{self.device}' needs env.sim.backend=warp; cpu physics is on 'cpu'")


@dataclass(frozen=True)
class ActionCfg:
    """Joint position targets: default pose + `scale` · action, rad; actions are clipped to ±`clip`."""

    scale: float = 0.5
    clip: float = 10.0

    def validate(self) -> None:
        if not self.clip > 0:
            raise KoboshiError(f"env.action.clip must be positive, not {self.clip}")


@dataclass(frozen=True)
class ObsTerm:
    """`func(env, **params) -> (N, d)`, then noise, delay, scale, clip and history, in this order."""

    func: Callable[..., Any]
    params: dict[str, Any] = field(default_factory=dict)
    noise: float | tuple[float, ...] = 0.0
    """Half-width of uniform noise, in the term's unit: one for all its numbers, or one for each."""
    delay: tuple[int, int] = (0, 0)
    """Least and greatest delay in control steps, drawn for each environment at its reset."""
    scale: float = 1.0
    clip: float | None = None
    history: int = 1
    """How many past values are given, oldest first."""

    def validate(self) -> None:
        _at_least("an observation's history", self.history, 1)
        widths = self.noise if isinstance(self.noise, tuple) else (self.noise,)
        _at_least("an observation's noise", min(widths, default=0.0), 0)
        if not 0 <= self.delay[0] <= self.delay[1]:
            raise KoboshiError(f"an observation's delays are ≥ 0 steps, ascending, not {self.delay}")
        if self.clip is not None and not self.clip > 0:
            raise KoboshiError(f"an observation's clip must be positive, not {self.clip}")


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
    shape: RewardShape = "raw"
    scale: float = 1.0
    clip: tuple[float, float] | None = None

    def validate(self) -> None:
        if self.shape not in REWARD_SHAPES:
            raise unknown("reward shape", self.shape, REWARD_SHAPES)
        if not self.scale > 0:
            raise KoboshiError(f"a reward's scale must be positive, not {self.scale}")
        if self.clip is not None and not self.clip[0] <= self.clip[1]:
            raise KoboshiError(f"a reward's clip is (lower, upper), not {self.clip}")


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

    def validate(self) -> None:
        if self.mode not in ("reset", "interval"):
            raise unknown("event mode", self.mode, ("reset", "interval"))
        if not 0 <= self.interval_s[0] <= self.interval_s[1]:
            raise KoboshiError(f"an event's interval is ≥ 0 s, ascending, not {self.interval_s}")


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
            if not low <= high:
                raise KoboshiError(f"env.command.{name}: the lower bound {low} is above the upper bound {high}")
        if not 0 <= self.standing_fraction <= 1:
            raise KoboshiError(f"env.command.standing_fraction is from 0 to 1, not {self.standing_fraction}")


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
        _at_least("env.num_envs", self.num_envs, 1)
        _at_least("env.decimation", self.decimation, 1)
        if not self.episode_length_s >= self.step_dt:
            raise KoboshiError(
                f"env.episode_length_s must be at least a control step ({self.step_dt} s), not {self.episode_length_s}"
            )
