"""Who breaks, what, how badly and when: drawn anew at each episode's reset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from koboshi.errors import KoboshiError, unknown

Kind = Literal["torque_loss", "locked", "limited_range", "braking", "sensor_freeze", "sensor_bias"]
KINDS: tuple[str, ...] = ("torque_loss", "locked", "limited_range", "braking", "sensor_freeze", "sensor_bias")


@dataclass(frozen=True)
class FaultSchedule:
    """A random schedule. With `groups` the joint follows from the environment's index instead of chance.

    With K groups, N environments fall into K blocks of M = N/K: environment i carries a fault of group i // M,
    on the group's joint number i % len(group).
    """

    probability: float = 1.0
    """Share of episodes in which something breaks."""
    joints: tuple[str, ...] | None = None
    """Candidates; None: all of the robot's but the ankles."""
    kinds: tuple[Kind, ...] = ("torque_loss",)
    num_joints: tuple[int, int] = (1, 1)
    """Least and greatest number of joints that break in an episode."""
    severity: tuple[float, float] = (1.0, 1.0)
    """1 is dead."""
    onset_s: tuple[float, float] = (2.0, 8.0)
    """Time in the episode, s; each joint's is drawn on its own."""
    groups: tuple[tuple[str, ...], ...] | None = None
    """Then `joints` and `num_joints` are not used."""

    def validate(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise unknown("fault kind", kind, KINDS)
        for name, value in (("kinds", self.kinds), ("joints", self.joints)):
            if value is not None and not 0 < len(set(value)) == len(value):
                raise KoboshiError(f"a fault schedule's {name} are at least one and none twice, not {value}")
        if self.groups is not None and (not self.groups or () in self.groups):
            raise KoboshiError(f"a fault schedule's groups name at least one joint each, not {self.groups}")
        if not 0 <= self.probability <= 1:
            raise KoboshiError(f"a fault schedule's probability is from 0 to 1, not {self.probability}")
        if not 0 <= self.severity[0] <= self.severity[1] <= 1:
            raise KoboshiError(f"a fault schedule's severities are from 0 to 1, ascending, not {self.severity}")
        if not 0 <= self.onset_s[0] <= self.onset_s[1]:
            raise KoboshiError(f"a fault schedule's onsets are ≥ 0 s, ascending, not {self.onset_s}")
        if not 1 <= self.num_joints[0] <= self.num_joints[1]:
            raise KoboshiError(f"a fault schedule breaks at least one joint, ascending, not {self.num_joints}")
