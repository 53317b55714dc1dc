"""What the benchmark keeps of a rollout: a row an episode, as columns of plain numbers that fit in a small JSON file.

An episode in which the healthy policy fell before the handover tells nothing about anybody: it is void, `survived`
is None, and it is so for every controller alike. After the handover every fall is the controller's.

Lists of an episode's faults are in its scenario's order; of a fault that comes and goes its first time counts. One
that the robot did not live to feel is not `felt`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from koboshi import robots
from koboshi.bench.metrics import PAIRED, episode_rows, recovered_rows
from koboshi.bench.rollout import Recording
from koboshi.bench.strain import KIND_AFTER_S, NO_KIND, NONE, NOT_ASKED, Strain
from koboshi.bench.suite import HANDOVER_S
from koboshi.faults import KINDS

NAMED_AFTER_S = (0.2, 0.5, KIND_AFTER_S, 5.0)
"""The set of alarmed joints is kept so long after an episode's last onset, s."""
Columns = dict[str, list[Any]]


def columns(recording: Recording, strain: Strain, seconds: float, detects: bool) -> Columns:
    """N rows; of a controller that does not detect, nothing about alarms.

    survived, recovered: bool or None. fell_s: s from the onset to the fall, below 0 before it, None without one.
    vx_rmse … path_progress: as `metrics.EpisodeRows`. peak: greatest torque of a healthy joint as a share of its
    limit. felt, load_ms: a list, of each fault whether the robot stood to feel it, and ms from its onset to the first
    load on its joint (None: never). With alarms besides: delay_ms: a list, None where a fault was missed.
    named_<s>: the joints alarmed (indices) so many seconds after the last onset, None after a fall. false: alarms
    raised on joints that were well in the alive_s seconds from the handover on; one that stands then counts. kinds: a
    list of the kinds believed, `NONE` where nothing was, None after a fall or of who tells no kinds.
    """
    strain = strain.to("cpu")
    found = _walked(recording, seconds)
    faults = list(_faults(recording))
    found |= {"peak": strain.peak.tolist(), "felt": [[f.felt for f in row] for row in faults]}
    found["load_ms"] = [[_load_ms(recording, strain, i, f) for f in row] for i, row in enumerate(faults)]
    if detects:
        found |= _heard(recording, strain, faults, seconds)
    return found


def _walked(recording: Recording, seconds: float) -> Columns:
    dt, rows = recording.step_dt, episode_rows(recording, seconds)
    handover, length = round(HANDOVER_S / dt), round(seconds / dt)
    ends, onsets = recording.end.tolist(), recording.onset.tolist()
    steps = len(recording.velocity)
    void = [end < handover for end in ends]
    early = [handover <= end < onset for end, onset in zip(ends, onsets, strict=True)]
    survived = [end >= onset + length for end, onset in zip(ends, onsets, strict=True)]
    found: Columns = {
        "survived": [None if v else s for v, s in zip(void, survived, strict=True)],
        "fell_s": [None if e >= steps else (e - o) * dt for e, o in zip(ends, onsets, strict=True)],
        "recovered": [False if e else r for e, r in zip(early, recovered_rows(recording, seconds), strict=True)],
    }
    for name in PAIRED:
        # Who falls before the onset goes no way at all.
        fallen = 0.0 if name in ("progress", "path_progress") else None
        found[name] = [fallen if e else x for e, x in zip(early, getattr(rows, name), strict=True)]
    for name in ("recovered", *PAIRED):
        found[name] = [None if v else x for v, x in zip(void, found[name], strict=True)]
    return found


class _Felt:
    """One fault of an episode: its joint, kind and the control steps [start, end) in which it is felt."""

    def __init__(self, joint: int, kind: str, start: int, end: int) -> None:
        self.joint, self.kind, self.start, self.end = joint, kind, start, end

    @property
    def felt(self) -> bool:
        return self.end > self.start


def _faults(recording: Recording) -> Iterator[list[_Felt]]:
    robot, dt, steps = robots.find(recording.scenarios.robot), recording.step_dt, len(recording.velocity)
    for episode, fall in zip(recording.scenarios.episodes, recording.end.tolist(), strict=True):
        row = []
        for fault in episode.faults:
            start, stop, _ = fault.planned(dt)
            # The decision after step `fall` is of the next episode, in which the fault is not in force.
            row.append(_Felt(robot.joint_id(fault.joint), fault.kind, start, min(stop, fall, steps)))
        yield row


def _load_ms(recording: Recording, strain: Strain, row: int, fault: _Felt) -> float | None:
    """Counted like a delay: a load in the onset's own step is a control period from the onset."""
    at = int(strain.first_load[row, fault.joint])
    return None if at < 0 or at >= fault.end else (at - fault.start + 1) * recording.step_dt * 1000


def _heard(recording: Recording, strain: Strain, faults: list[list[_Felt]], seconds: float) -> Columns:
    assert recording.alarm is not None, "record with detail=True"
    alarm, dt = recording.alarm.numpy(), recording.step_dt
    found: Columns = {name: [] for name in ("delay_ms", "kinds", "false", "alive_s")}
    named: dict[str, list[list[int] | None]] = {f"{after:g}": [] for after in NAMED_AFTER_S}
    for i, row in enumerate(faults):
        fall, onset = int(recording.end[i]), int(recording.onset[i])
        last = min(fall, onset + round(seconds / dt), len(alarm) - 1)
        found["delay_ms"].append([_delay_ms(alarm[:, i, f.joint], f, dt) for f in row])
        found["kinds"].append([_kind(strain, i, f) for f in row])
        begun = max((f.start for f in row), default=onset)
        for after in NAMED_AFTER_S:
            at = begun + round(after / dt)
            named[f"{after:g}"].append(np.flatnonzero(alarm[at, i]).tolist() if at <= last else None)
        false, steps = _false_alarms(alarm[:, i], row, round(HANDOVER_S / dt), last)
        found["false"].append(false)
        found["alive_s"].append(round(steps * dt, 3))
    return found | {f"named_{after}": sets for after, sets in named.items()}


def _delay_ms(alarm: np.ndarray, fault: _Felt, dt: float) -> float | None:
    """(T,) alarms of the fault's joint. Decision t + 1 is the first that can know of what began in step t."""
    rows = np.flatnonzero(alarm[fault.start + 1 : fault.end + 1])
    return (int(rows[0]) + 1) * dt * 1000 if len(rows) else None


def _kind(strain: Strain, row: int, fault: _Felt) -> str | None:
    said = int(strain.kind[row, fault.joint])
    return None if said == NOT_ASKED else NONE if said == NO_KIND else KINDS[said]


def _false_alarms(alarm: np.ndarray, faults: list[_Felt], first: int, last: int) -> tuple[int, int]:
    """Alarms (T, J) raised on joints that are well, and control steps, of decisions first … last."""
    if last < first:
        return 0, 0
    rows = alarm[first : last + 1].copy()
    before = np.concatenate((np.zeros_like(rows[:1]), rows[:-1]))
    raised = rows & ~before
    for fault in faults:
        raised[max(fault.start + 1 - first, 0) :, fault.joint] = False
    return int(raised.sum()), len(rows)


def pooled(parts: list[Columns]) -> Columns:
    """The rows of several batches, one after another."""
    return {name: [row for part in parts for row in part[name]] for name in parts[0]}
