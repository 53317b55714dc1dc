"""What one robot did, recorded at the control rate: all that a video or a timeline needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from koboshi.errors import KoboshiError, unknown

Array = NDArray[np.floating]


@dataclass(frozen=True)
class FaultMark:
    """One joint that broke: `kind` as in `koboshi.faults` ("torque_loss"), `severity` 0..1, from `time` to `end`, s."""

    joint: str
    kind: str
    severity: float
    time: float
    end: float = math.inf

    def acts(self, time: float) -> bool:
        """Whether the joint is broken at `time` s."""
        return self.time <= time < self.end

    @property
    def text(self) -> str:
        """What happened, in words: "left_knee dead at 3.00 s"."""
        if self.kind == "torque_loss":
            what = "dead" if self.severity >= 1 else f"at {100 * (1 - self.severity):.0f} % torque"
        else:
            what = self.kind.replace("_", " ") + ("" if self.severity >= 1 else f" {self.severity:.2f}")
        return f"{self.joint} {what} at {self.time:.2f} s"


class AlarmMark(NamedTuple):
    """A joint that the router called broken, and since when, s."""

    joint: str
    time: float


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One robot over T control steps; times are seconds from the first of them."""

    qpos: Array
    """(T, nq) of the model that is drawn: `envs.scene.visual_scene` of what it was recorded in."""
    control_dt: float
    """Seconds from one row to the next."""
    joint_names: Sequence[str]
    """J names, the order of `probability`'s columns."""
    title: str
    command: Array
    """(T, 3): v_x, v_y (m/s), yaw rate (rad/s), yaw frame."""
    velocity: Array
    """(T, 3): the same as measured."""
    fault: Sequence[FaultMark] = ()
    alarms: Sequence[AlarmMark] = ()
    """Each joint's alarms, in the order of time."""
    actor: Sequence[str] = ()
    """Who acts at each step: "healthy", "left_knee specialist"; empty or T long."""
    probability: Array | None = None
    """(T, J): the detector's output for each joint, 0..1."""
    fell_at: float | None = None

    def __post_init__(self) -> None:
        steps = len(self.qpos)
        if self.qpos.ndim != 2 or steps == 0 or self.control_dt <= 0:
            raise KoboshiError(
                f"trajectory '{self.title}': qpos {self.qpos.shape} must be (T > 0, nq) and "
                f"control_dt {self.control_dt} > 0"
            )
        self._check("command", self.command.shape, (steps, 3))
        self._check("velocity", self.velocity.shape, (steps, 3))
        if self.actor:
            self._check("actor", (len(self.actor),), (steps,))
        if self.probability is not None:
            self._check("probability", self.probability.shape, (steps, len(self.joint_names)))
        if not np.isfinite(self.qpos).all():
            raise KoboshiError(f"trajectory '{self.title}': qpos holds NaN or infinity")
        for joint in [*(mark.joint for mark in self.fault), *(alarm.joint for alarm in self.alarms)]:
            if joint not in self.joint_names:
                raise unknown("joint", joint, self.joint_names)

    def _check(self, name: str, shape: tuple[int, ...], want: tuple[int, ...]) -> None:
        if shape != want:
            raise KoboshiError(f"trajectory '{self.title}': {name} is {shape}, expected {want}")

    @property
    def duration(self) -> float:
        """Seconds from the first row to the last."""
        return (len(self.qpos) - 1) * self.control_dt

    def delay_ms(self, alarm: AlarmMark) -> float | None:
        """From the joint's latest fault to its alarm, ms; None where the joint was not broken."""
        onsets = [mark.time for mark in self.fault if mark.joint == alarm.joint and mark.acts(alarm.time)]
        return 1000 * (alarm.time - max(onsets)) if onsets else None

    def alarm_text(self, alarm: AlarmMark) -> str:
        """What was noticed, in words: "noticed +60 ms", with the joint's name where several break."""
        delay = self.delay_ms(alarm)
        if delay is None:
            return f"false alarm: {alarm.joint}"
        name = f"{alarm.joint} " if len(self.fault) > 1 else ""
        return f"{name}noticed +{delay:.0f} ms"

    def index(self, time: float) -> int:
        """The row that shows `time` (s); the first and last rows hold beyond the ends."""
        return int(np.clip(round(time / self.control_dt), 0, len(self.qpos) - 1))

    def top_joints(self, count: int) -> list[int]:
        """Columns of `probability` worth showing: broken joints first, then by their highest value."""
        if self.probability is None:
            return []
        peak = self.probability.max(axis=0)
        broken = {self.joint_names.index(mark.joint): None for mark in self.fault}
        rest = [int(j) for j in np.argsort(-peak, kind="stable") if int(j) not in broken]
        return [*broken, *rest][:count]
