"""What the router noticed, when, and when it switched, as the controller lived it.

Every fault of a scenario counts by itself, from its own onset to its end, the fall or the end of the recording; one
that a robot no longer stands to feel is left out. The first decision that can know of a fault comes one control
period after its onset, so no delay is shorter than a period.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from koboshi import robots
from koboshi.bench.rollout import Recording
from koboshi.detect.metrics import macro_f1
from koboshi.envs import Env, EnvCfg
from koboshi.errors import KoboshiError
from koboshi.robots import Robot
from koboshi.specialists.assignment import Assignment
from koboshi.specialists.controller import Controller

WINDOW_S = 1.0
"""An alarm later than this after the onset does not count for isolation."""


class FaultRows(NamedTuple):
    """F faults of a recording, each (F,) int64."""

    row: np.ndarray
    """The scenario."""
    joint: np.ndarray
    start: np.ndarray
    """The first decision that can know of it."""
    end: np.ndarray
    """One past the last decision that counts."""


def faults_of(recording: Recording) -> FaultRows:
    """The faults that robots stood to feel."""
    robot, dt, steps = robots.find(recording.scenarios.robot), recording.step_dt, len(recording.velocity)
    found = []
    for row, (episode, fall) in enumerate(zip(recording.scenarios.episodes, recording.end.tolist(), strict=True)):
        for fault in episode.faults:
            onset = round(fault.onset_s / dt)
            over = steps if fault.duration_s is None else onset + 1 + round(fault.duration_s / dt)
            # The robot still decides in the step in which it falls.
            end = min(over, fall + 1, steps)
            if onset < min(fall, steps):
                found.append((row, robot.joint_id(fault.joint), onset + 1, end))
    columns = np.array(found, dtype=np.int64).reshape(-1, 4).T
    return FaultRows(*columns)


def delays(recording: Recording) -> np.ndarray:
    """(F,) ms from each fault's onset to the first alarm on its joint; inf where none comes."""
    faults, alarm = faults_of(recording), _alarm(recording)
    return _first(faults, lambda f, span: alarm[span, faults.row[f], faults.joint[f]]) * recording.step_dt * 1000.0


def switch_delays(recording: Recording, assignment: Assignment) -> np.ndarray:
    """(F,) ms from each fault's onset to the first step in which a member that serves its joint acts; inf if never."""
    robot = robots.find(recording.scenarios.robot)
    serves, faults, member = serving(assignment, robot), faults_of(recording), recording.member.numpy()
    served = _first(faults, lambda f, span: serves[member[span, faults.row[f]], faults.joint[f]])
    return served * recording.step_dt * 1000.0


def serving(assignment: Assignment, robot: Robot) -> np.ndarray:
    """(K + 1, J) bool: which member serves which joint; the last row, index −1, is the healthy policy: none."""
    table = np.zeros((len(assignment.members) + 1, len(robot.joint_names)), dtype=bool)
    for k, member in enumerate(assignment.members):
        table[k, [robot.joint_id(name) for name in member.joints]] = True
    return table


def _first(faults: FaultRows, true: Callable[[int, slice], np.ndarray]) -> np.ndarray:
    """(F,) control periods from each onset to the first decision of its span that `true(fault, span)` holds for."""
    out = np.full(len(faults.row), math.inf)
    for f, (start, end) in enumerate(zip(faults.start, faults.end, strict=True)):
        hits = np.flatnonzero(true(f, slice(start, end)))
        if len(hits):
            out[f] = hits[0] + 1
    return out


def _alarm(recording: Recording) -> np.ndarray:
    if recording.alarm is None:
        raise KoboshiError("this recording holds no alarms; record it with detail=True")
    return recording.alarm.numpy()


def confusion(recording: Recording) -> np.ndarray:
    """(J + 1, J + 1) faults by true joint and by the joint alarmed first within a second of the onset ('none' last).

    Of two alarms at once the more probable counts. Alarms on other joints that are broken at that time are right
    too, and not asked about here.
    """
    faults, alarm = faults_of(recording), _alarm(recording)
    assert recording.probability is not None
    probability = recording.probability.numpy()
    joints, window = alarm.shape[2], round(WINDOW_S / recording.step_dt)
    matrix = np.zeros((joints + 1, joints + 1), dtype=int)
    for f, (row, joint, start, end) in enumerate(zip(*faults, strict=True)):
        span = slice(start, min(end, start + window))
        raised = alarm[span, row].copy()
        raised[:, _also_broken(faults, f, span)] = False
        matrix[joint, _first_alarm(raised, probability[span, row])] += 1
    return matrix


def _also_broken(faults: FaultRows, f: int, span: slice) -> np.ndarray:
    """Other joints of the same robot that are broken within the span."""
    same = (faults.row == faults.row[f]) & (faults.start < span.stop) & (faults.end > span.start)
    return faults.joint[same & (faults.joint != faults.joint[f])]


def _first_alarm(raised: np.ndarray, probability: np.ndarray) -> int:
    """The column of the first alarm in (rows, J), the more probable of two at once; J where there is none."""
    rows = np.flatnonzero(raised.any(1))
    if not len(rows):
        return raised.shape[1]
    return int(np.where(raised[rows[0]], probability[rows[0]], -1.0).argmax())


def detection_metrics(recording: Recording, assignment: Assignment | None = None) -> dict[str, Any]:
    """Delays to the alarm and, with an assignment, to the switch: medians, 95th percentiles, each fault's; misses.

    Infinite figures are None, and so is what no fault tells about.
    """
    delay, matrix = delays(recording), confusion(recording)
    figures: dict[str, Any] = {
        "faults": len(delay),
        "delay_ms_median": quantile(delay, 0.5),
        "delay_ms_p95": quantile(delay, 0.95),
        "missed": float(np.isinf(delay).mean()) if len(delay) else None,
        "macro_f1": macro_f1(matrix) if len(delay) else None,
        "confusion": matrix.tolist(),
        "delays_ms": _finite(delay),
    }
    if assignment is not None:
        switch = switch_delays(recording, assignment)
        figures |= {
            "switch_ms_median": quantile(switch, 0.5),
            "switch_ms_p95": quantile(switch, 0.95),
            "switches_ms": _finite(switch),
        }
    return figures


def _finite(values: np.ndarray) -> list[float | None]:
    return [None if math.isinf(value) else float(value) for value in values]


def quantile(delay: np.ndarray, q: float) -> float | None:
    """The q-quantile, of which no part is interpolated towards infinity; None where it is infinite or of nothing."""
    if not len(delay):
        return None
    value = float(np.quantile(delay, q, method="higher"))
    return None if math.isinf(value) else value


def healthy_steps(hours: float, step_dt: float, num_envs: int) -> int:
    """Control steps in which `num_envs` robots walk for so many hours together."""
    return math.ceil(hours * 3600 / step_dt / num_envs)


def false_alarms(
    cfg: EnvCfg, controller: Controller, hours: float, num_envs: int, seed: int, report: Callable[[int], None]
) -> dict[str, float]:
    """Alarms of robots whose joints are all well, under changing commands: `false_alarms_per_hour`, `healthy_hours`.

    An alarm counts when it is raised: on a joint that had none in the step before.
    """
    env = Env(replace(cfg, num_envs=num_envs, faults=None))
    steps = healthy_steps(hours, env.step_dt, num_envs)
    obs, state = env.reset(seed), controller.initial_state(num_envs, env.device)
    reset = torch.ones(num_envs, dtype=torch.bool, device=env.device)
    before: Tensor | None = None
    count = torch.zeros((), dtype=torch.int64, device=env.device)
    for t in range(steps):
        decision, state = controller.act(obs, reset, state)
        alarm = decision.route.belief.alarm
        count += (alarm if before is None else alarm & (~before | reset[:, None])).sum()
        before = alarm.clone()
        step = env.step(decision.action)
        obs, reset = step.obs, step.terminated | step.truncated
        report(t + 1)
    spent, raised = steps * num_envs * env.step_dt / 3600, int(count)
    return {"false_alarms_per_hour": raised / spent, "false_alarms": raised, "healthy_hours": spent}
