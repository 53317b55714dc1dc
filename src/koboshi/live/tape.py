"""A recording of what a page showed, to be made a video of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from koboshi.errors import KoboshiError
from koboshi.faults import Fault
from koboshi.live.moment import HEALTHY, Moment
from koboshi.view import AlarmMark, FaultMark, Trajectory

LONGEST_S = 60.0
"""A tape is full after so much simulated time; rendering a minute in software takes minutes."""


class Tape:
    """Gathers moments of a robot whose joints are `names`, `control_dt` s apart."""

    def __init__(self, names: Sequence[str], control_dt: float) -> None:
        self._names, self._dt = names, control_dt
        self._moments: list[Moment] = []

    @property
    def seconds(self) -> float:
        return len(self._moments) * self._dt

    @property
    def full(self) -> bool:
        return self.seconds >= LONGEST_S

    def add(self, moment: Moment) -> None:
        """Moments that show no new time (a paused clock's) and those beyond a full tape are left out."""
        new = not self._moments or moment.time > self._moments[-1].time
        if new and not self.full:
            self._moments.append(moment)

    def trajectory(self) -> Trajectory:
        """KoboshiError where nothing was recorded."""
        found = self._moments
        if not found:
            raise KoboshiError("nothing was recorded: the clock stood still")
        nothing = np.zeros(len(self._names))
        listened = any(moment.probability is not None for moment in found)
        probability = [nothing if moment.probability is None else moment.probability for moment in found]
        return Trajectory(
            qpos=np.stack([moment.qpos for moment in found]),
            control_dt=self._dt,
            joint_names=self._names,
            title=" → ".join(dict.fromkeys(moment.controller for moment in found)),
            command=np.stack([moment.command for moment in found]).astype(float),
            velocity=np.stack([moment.velocity for moment in found]).astype(float),
            fault=self._faults(),
            alarms=self._alarms(),
            actor=["healthy" if moment.actor == HEALTHY else moment.actor for moment in found],
            probability=np.stack(probability).astype(float) if listened else None,
        )

    def _faults(self) -> list[FaultMark]:
        """Each fault from the moment that first shows it to the one that no longer does."""
        begin = self._moments[0].time
        marks: list[FaultMark] = []
        open_: dict[str, tuple[Fault, float]] = {}
        for moment in self._moments:
            now = moment.time - begin
            for joint in [joint for joint, (fault, _) in open_.items() if moment.faults.get(joint) is not fault]:
                fault, since = open_.pop(joint)
                marks.append(FaultMark(joint, fault.kind, fault.severity, since, now))
            for joint, fault in moment.faults.items():
                open_.setdefault(joint, (fault, now))
        marks += [FaultMark(joint, fault.kind, fault.severity, since) for joint, (fault, since) in open_.items()]
        return sorted(marks, key=lambda mark: mark.time)

    def _alarms(self) -> list[AlarmMark]:
        begin, silent = self._moments[0].time, np.zeros(len(self._names), bool)
        marks = []
        for before, moment in pairwise([None, *self._moments]):
            if moment is None or moment.alarm is None:
                continue
            old = silent if before is None or before.alarm is None else before.alarm
            rising = np.flatnonzero(moment.alarm & ~old).tolist()
            marks += [AlarmMark(self._names[j], moment.time - begin) for j in rising]
        return marks
