"""What may break in a task, and a schedule of when: settings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from torch import Tensor

from koboshi.errors import KoboshiError, at_least
from koboshi.faults.kinds import KINDS, Kind, check_fault, check_kind
from koboshi.robots import Robot

__all__ = ["KINDS", "NEVER", "Fault", "FaultSchedule", "FaultsCfg", "FaultsOnDemand"]
NEVER = 2**31 - 1
"""The control step that no episode reaches."""


@dataclass(frozen=True)
class Fault:
    """One fault of one joint."""

    joint: str
    kind: Kind = "torque_loss"
    severity: float = 1.0
    """Above 0; 1 is dead."""
    onset_s: float = 0.0
    """Time in the episode, s."""
    duration_s: float | None = None
    """None: until the episode ends."""
    period_s: float | None = None
    """From one onset to the next of a fault that comes and goes; None: it comes once."""

    def check(self, robot: Robot) -> None:
        """KoboshiError where it cannot happen to the robot."""
        check_fault(robot, self.joint, self.kind)
        lasts = self.duration_s is None or 0 < self.duration_s < math.inf
        if not 0 < self.severity <= 1 or not 0 <= self.onset_s < math.inf or not lasts:
            raise KoboshiError(
                f"fault of {self.joint}: severity is above 0 and at most 1, onset ≥ 0 s, duration above 0 s, "
                f"not {self.severity}, {self.onset_s}, {self.duration_s}"
            )
        if self.period_s is not None and not (self.duration_s or math.inf) < self.period_s < math.inf:
            raise KoboshiError(
                f"fault of {self.joint}: one that comes and goes lasts less than its period, "
                f"not {self.duration_s} s of {self.period_s} s"
            )

    def planned(self, step_dt: float) -> tuple[int, int, int]:
        """(start, stop, period) in control steps, the shortest fault one step; NEVER where there is none."""
        start = round(self.onset_s / step_dt)
        length = NEVER if self.duration_s is None else max(1, round(self.duration_s / step_dt))
        period = NEVER if self.period_s is None else max(length + 1, round(self.period_s / step_dt))
        return start, min(start + length, NEVER), period

    def times(self, step_dt: float, until: int) -> Iterator[tuple[int, int]]:
        """(first, one past the last) control step of each time that it is in force and that begins before `until`."""
        start, stop, period = self.planned(step_dt)
        for later in range(0, until - start, period):
            yield start + later, min(stop + later, NEVER)


@dataclass(frozen=True)
class FaultsCfg:
    """What may break in a task: collection, specialists and evaluation all use it."""

    joints: tuple[str, ...] | None = None
    """Candidates (patterns); None: all of the robot's but the spared ones."""
    kinds: tuple[Kind, ...] = ("torque_loss",)
    severity: tuple[float, float] = (1.0, 1.0)
    """1 is dead."""
    whole: float = 0.0
    """Share of faults that have the greatest severity; the others' are uniform in its range."""
    count: tuple[int, int] = (1, 1)
    """Least and greatest number of joints that break in an episode; 0 is allowed as the least."""
    alike: float = 0.0
    """Share of the episodes in which all joints break in the same way and as gravely, as from one cause."""
    dead: float = 0.0
    """Share of the episodes in which all joints that break lose all torque, as where their supply fails."""
    duration_s: tuple[float, float] | None = None
    """How long a fault lasts; None: until the episode ends."""
    hold_out: bool = False
    """Whether schedules leave out the pairs of joints that the benchmark holds out; see `held_out_pairs`."""
    pause_s: tuple[float, float] | None = None
    """How long it is gone before it comes back; None: it comes once."""

    def validate(self) -> None:
        for kind in self.kinds:
            check_kind(kind)
        for name, value in (("kinds", self.kinds), ("joints", self.joints)):
            if value is not None and not 0 < len(set(value)) == len(value):
                raise KoboshiError(f"faults.{name} are at least one and none twice, not {value}")
        if not 0 < self.severity[0] <= self.severity[1] <= 1:
            raise KoboshiError(f"faults.severity is above 0 and at most 1, ascending, not {self.severity}")
        for name in ("whole", "alike", "dead"):
            if not 0 <= getattr(self, name) <= 1:
                raise KoboshiError(f"faults.{name} is a share, from 0 to 1, not {getattr(self, name)}")
        if self.whole and self.severity[0] == self.severity[1]:
            raise KoboshiError(f"faults.whole={self.whole} has no effect: all severities are {self.severity[0]}")
        if not 0 <= self.count[0] <= self.count[1] or self.count[1] == 0:
            raise KoboshiError(f"faults.count is at least 0, ascending and up to 1 or more, not {self.count}")
        if self.duration_s is not None and not 0 < self.duration_s[0] <= self.duration_s[1] < math.inf:
            raise KoboshiError(f"faults.duration_s is above 0 s, ascending and finite, not {self.duration_s}")
        if self.alike and len(self.kinds) == 1 and self.severity[0] == self.severity[1]:
            raise KoboshiError(f"faults.alike={self.alike} has no effect: all faults are of one kind and severity")
        if self.dead and ("torque_loss" not in self.kinds or self.severity[1] < 1):
            raise KoboshiError(
                f"faults.dead={self.dead} needs the kind torque_loss and severities up to 1, "
                f"not {', '.join(self.kinds)} up to {self.severity[1]}"
            )
        if self.dead and len(self.kinds) == 1 and self.severity[0] == 1:
            raise KoboshiError(f"faults.dead={self.dead} has no effect: all joints that break are dead")
        if self.pause_s is not None and not 0 < self.pause_s[0] <= self.pause_s[1] < math.inf:
            raise KoboshiError(f"faults.pause_s is above 0 s, ascending and finite, not {self.pause_s}")
        for name in ("hold_out", "alike"):
            if getattr(self, name) and self.count[1] < 2:
                raise KoboshiError(
                    f"faults.{name} has no effect: faults.count={self.count} breaks no two joints at once"
                )
        if self.pause_s is not None and self.duration_s is None:
            raise KoboshiError("faults.pause_s needs faults.duration_s: what never ends cannot come back")

    def one_at_a_time(self) -> FaultsCfg:
        """The same faults, of one joint an episode, and so of any."""
        return replace(self, count=(1, 1), alike=0.0, hold_out=False)

    def levels(self, u: Tensor) -> Tensor:
        """Severities for numbers uniform in 0..1."""
        low, high = self.severity
        # Above 1 − whole it is the greatest one, and below the rest of the draw is stretched.
        return low + (high - low) * (u / max(1 - self.whole, 1e-9)).clip(max=1.0)

    def candidates(self, robot: Robot) -> tuple[str, ...]:
        """The joints that may break; KoboshiError where a kind cannot act on one or they are too few."""
        names = robot.fault_candidates
        if self.joints is not None:
            names = tuple(robot.joint_names[j] for j in robot.joint_ids(*self.joints))
        for kind in self.kinds:
            for name in names:
                check_fault(robot, name, kind)
        if self.count[1] > len(names):
            raise KoboshiError(f"faults.count is up to {self.count[1]}, but there are only {len(names)} candidates")
        return names


@dataclass(frozen=True)
class FaultSchedule:
    """Faults drawn anew at each episode's start. With `groups` the joint follows from the environment's index.

    With K groups, N environments fall into K blocks of M = N/K: environment i carries a fault of group i // M,
    on the group's joint number i % len(group); where `faults.count` asks for several, other candidates break too.
    """

    faults: FaultsCfg
    probability: float = 1.0
    """Share of episodes in which something breaks."""
    onset_s: tuple[float, float] = (2.0, 8.0)
    """Time in the episode, s; each fault's is drawn on its own."""
    groups: tuple[tuple[str, ...], ...] | None = None
    """Where anything breaks in an environment, one of these joints does, by the environment's index, and first."""
    count_by_index: bool = False
    """Whether environment i carries count[0] + i % (count[1] − count[0] + 1) faults, instead of a number drawn anew."""

    def validate(self) -> None:
        if self.groups is not None and (not self.groups or () in self.groups):
            raise KoboshiError(f"a fault schedule's groups name at least one joint each, not {self.groups}")
        if self.groups is not None and self.count_by_index:
            raise KoboshiError("a fault schedule's count_by_index and groups both give a meaning to the index")
        if not 0 <= self.probability <= 1:
            raise KoboshiError(f"a fault schedule's probability is from 0 to 1, not {self.probability}")
        if not 0 <= self.onset_s[0] <= self.onset_s[1] < math.inf:
            raise KoboshiError(f"a fault schedule's onsets are ≥ 0 s, ascending and finite, not {self.onset_s}")


@dataclass(frozen=True)
class FaultsOnDemand:
    """Nothing breaks by itself: an episode has room for `slots` faults, which `FaultLayer.put` fills."""

    slots: int = 1
    kinds: tuple[Kind, ...] = field(default_factory=lambda: tuple(KINDS))
    """Those that may be asked for; each costs a little time in every step."""

    def validate(self) -> None:
        at_least("the slots of faults on demand", self.slots, 1)
        for kind in self.kinds:
            check_kind(kind)
