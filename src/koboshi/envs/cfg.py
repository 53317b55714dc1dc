"""The configuration of an environment: dictionaries of terms, in Isaac Lab's words.

A term's name in its dictionary is its key in the log and in an override (`env.rewards.air_time.weight=2`,
`env.events.push=null`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from koboshi import robots
from koboshi.errors import KoboshiError, at_least, unknown
from koboshi.faults import FaultSchedule, FaultsOnDemand, Scenarios
from koboshi.robots.robot import Collisions
from koboshi.terrain import AnyGroundCfg, PlaneCfg

RewardShape = Literal["raw", "l1", "l2", "exp", "log", "tanh"]
REWARD_SHAPES: tuple[str, ...] = get_args(RewardShape)
EVENT_MODES = ("startup", "reset", "interval")


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
        at_least("env.sim.iterations", self.iterations, 1)
        at_least("env.sim.ls_iterations", self.ls_iterations, 1)
        if not self.timestep > 0:
            raise KoboshiError(f"env.sim.timestep must be positive, not {self.timestep} s")
        if self.backend == "cpu" and self.device != "cpu":
            raise KoboshiError(f"env.sim.device '{self.device}' needs env.sim.backend=warp; cpu physics is on 'cpu'")


@dataclass(frozen=True)
class BodyCfg:
    """A body of the scene beside the robot: a step to climb, a target to reach."""

    shape: Literal["box", "sphere", "cylinder", "capsule"]
    size: tuple[float, ...]
    """MuJoCo's half-sizes, m."""
    pos: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Relative to the first environment's origin, m."""
    motion: Literal["static", "mocap", "free"] = "static"
    mass: float = 1.0
    """kg, where it is free."""
    collides: bool = True
    rgba: tuple[float, float, float, float] = (0.8, 0.5, 0.2, 1.0)


@dataclass(frozen=True)
class SceneCfg:
    """What is there beside the robot."""

    ground: AnyGroundCfg = PlaneCfg()
    bodies: dict[str, BodyCfg | None] = field(default_factory=dict)
    contacts: Collisions | None = None
    """What of the robot collides: its `feet`, `legs`, whole `body`, or `all`, with itself too; None: as it says."""


@dataclass(frozen=True)
class ActionTerm:
    """`func(env, term, joints) -> JointTargets` says what a number of the policy asks of which joint.

    target = offset + `scale` · action, in the unit of the joints' actuators (rad, rad/s or N·m).
    """

    func: Callable[..., Any]
    joints: tuple[str, ...] = (".*",)
    """Patterns of the joints that it drives."""
    scale: float | dict[str, float] = 0.5
    """One for all, or joint pattern -> scale; the first that matches wins."""
    clip: tuple[float, float] = (-10.0, 10.0)
    """Bounds of the policy's numbers."""

    def validate(self) -> None:
        if not self.clip[0] < self.clip[1]:
            raise KoboshiError(f"an action's clip is (lower, upper), not {self.clip}")


@dataclass(frozen=True)
class ActionsCfg:
    """All actions of an environment, side by side, and how late they reach the actuators."""

    terms: dict[str, ActionTerm | None]
    delay: tuple[int, int] = (0, 0)
    """Least and greatest delay in physics steps, drawn for each episode."""

    def validate(self) -> None:
        if not 0 <= self.delay[0] <= self.delay[1]:
            raise KoboshiError(f"env.actions.delay is ≥ 0 physics steps, ascending, not {self.delay}")


@dataclass(frozen=True)
class ObsTerm:
    """`func(env, **params) -> (N, d)`, then noise, delay, scale, clip and history, in this order.

    A term of more dimensions or of bytes (an image, (N, 3, H, W) uint8) is given as it is, in a group that is not
    concatenated.
    """

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
        at_least("an observation's history", self.history, 1)
        widths = self.noise if isinstance(self.noise, tuple) else (self.noise,)
        at_least("an observation's noise", min(widths, default=0.0), 0)
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
    concatenate: bool = True
    """If not, each term is an observation of its own, `group.term`."""
    history_length: int = 1
    """How many of its vectors, of this step and of those before, are given one after the other. (A term's own
    `history` puts that term's values together.)"""
    newest_first: bool = False
    """Whether that of this step comes first in a history, or last."""

    def validate(self) -> None:
        at_least("an observation group's history_length", self.history_length, 1)
        if self.history_length > 1 and (self.base is not None or not self.concatenate):
            raise KoboshiError("an observation group with a history has no base and is concatenated")
        if self.newest_first and self.history_length == 1:
            raise KoboshiError("an observation group's newest_first has no effect without a history_length above 1")
        if self.base is not None and not self.concatenate:
            raise KoboshiError("an observation group that is not concatenated has no base")


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
    """`func(env, mask, **params)`: once for all (`startup`), for those that start an episode (`reset`), or every
    `interval_s` seconds of an episode. mask (N,) bool."""

    func: Callable[..., Any]
    mode: Literal["startup", "reset", "interval"] = "reset"
    params: dict[str, Any] = field(default_factory=dict)
    interval_s: tuple[float, float] = (5.0, 15.0)
    active: bool = True
    """If not, it waits for `env.events.<name>.active=true`."""

    def validate(self) -> None:
        if self.mode not in EVENT_MODES:
            raise unknown("event mode", self.mode, EVENT_MODES)
        if not 0 <= self.interval_s[0] <= self.interval_s[1]:
            raise KoboshiError(f"an event's interval is ≥ 0 s, ascending, not {self.interval_s}")


@dataclass(frozen=True)
class CurriculumTerm:
    """`func(env, mask, **params) -> float | None`: changes the task as learning goes on; a value is logged.

    Called before the environments in `mask` (N,) reset.
    """

    func: Callable[..., Any]
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HeadingCfg:
    """Commands that hold a heading: yaw rate = `stiffness` × heading error, within the yaw rates' range."""

    range: tuple[float, float] = (-math.pi, math.pi)
    """Of the heading in the world, rad."""
    stiffness: float = 0.5
    """1/s."""
    fraction: float = 1.0
    """Share of commands that hold a heading; the others hold a yaw rate."""

    def validate(self) -> None:
        if not self.range[0] <= self.range[1] or not self.stiffness > 0 or not 0 <= self.fraction <= 1:
            raise KoboshiError(
                f"env.command.heading: range ascends, stiffness is above 0, fraction from 0 to 1, not {self}"
            )


@dataclass(frozen=True)
class VelocityCommandCfg:
    """Uniform velocity commands in the base's yaw frame, m/s and rad/s."""

    lin_vel_x: tuple[float, float] = (0.0, 1.0)
    lin_vel_y: tuple[float, float] = (0.0, 0.0)
    ang_vel_z: tuple[float, float] = (-1.0, 1.0)
    resampling_time_s: tuple[float, float] = (10.0, 10.0)
    standing_fraction: float = 0.02
    """Share of commands that ask to stand still."""
    heading: HeadingCfg | None = None

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
    actions: ActionsCfg
    observations: dict[str, ObsGroup]
    rewards: dict[str, RewardTerm | None]
    terminations: dict[str, TerminationTerm | None]
    events: dict[str, EventTerm | None] = field(default_factory=dict)
    curriculum: dict[str, CurriculumTerm | None] = field(default_factory=dict)
    command: VelocityCommandCfg = VelocityCommandCfg()
    scene: SceneCfg = SceneCfg()
    faults: FaultSchedule | Scenarios | FaultsOnDemand | None = None
    """What breaks: drawn by chance, episode by episode as written, commands included, or when asked; None: nothing."""
    sim: SimCfg = SimCfg()
    num_envs: int = 1024
    decimation: int = 4
    episode_length_s: float = 20.0
    random_initial_length: bool = False
    """Whether the first episodes begin at random ages, so that time-outs do not come all at once."""
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
        robots.find(self.robot)
        at_least("env.num_envs", self.num_envs, 1)
        at_least("env.decimation", self.decimation, 1)
        if not self.episode_length_s >= self.step_dt:
            raise KoboshiError(
                f"env.episode_length_s must be at least a control step ({self.step_dt} s), not {self.episode_length_s}"
            )
