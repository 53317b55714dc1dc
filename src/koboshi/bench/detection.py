"""What the router noticed, when, and when it switched, as the controller lived it.

Every fault of a scenario counts by itself, from its own onset to its end, the fall or the end of the recording; one
that a robot no longer stands to feel is left out. The first decision that can know of a fault comes one control
period after its onset, so no delay is shorter than a period.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from koboshi import robots
from koboshi.bench.rollout import Recording
from koboshi.detect.alarms import AlarmCfg, AlarmState, alarm_step, alarms_over_time, initial_alarms
from koboshi.detect.metrics import (
    WINDOW_S,
    confusion_matrix,
    delays_ms,
    first_named,
    macro_f1,
    noticed,
    quantile,
)
from koboshi.envs import Env, EnvCfg
from koboshi.errors import KoboshiError
from koboshi.robots import Robot
from koboshi.specialists.assignment import Assignment
from koboshi.specialists.controller import Controller, Decision
from koboshi.vec_env import anyone


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
            for onset, over in fault.times(dt, min(fall, steps)):
                # The robot still decides in the step in which it falls.
                found.append((row, robot.joint_id(fault.joint), onset + 1, min(over + 1, fall + 1, steps)))
    columns = np.array(found, dtype=np.int64).reshape(-1, 4).T
    return FaultRows(*columns)


def delays(recording: Recording) -> np.ndarray:
    """(F,) ms from each fault's onset to the first alarm on its joint; inf where none comes."""
    return _delays(recording, _alarm(recording))


def delays_of_setting(recording: Recording, setting: AlarmCfg) -> np.ndarray:
    """(F,) as `delays`, had alarms been raised by another setting from what was believed."""
    if recording.probability is None:
        raise KoboshiError("this recording holds no beliefs; record it with detail=True")
    begins = torch.zeros(recording.probability.shape[:2], dtype=torch.bool)
    begins[0] = True
    return _delays(recording, alarms_over_time(setting, recording.probability, begins).numpy())


def switch_delays(recording: Recording, assignment: Assignment) -> np.ndarray:
    """(F,) ms from each fault's onset to the first step in which a member that serves its joint acts; inf if never."""
    serves = serving(assignment, robots.find(recording.scenarios.robot))
    return _delays(recording, serves[recording.member.numpy()])


def _delays(recording: Recording, named: np.ndarray) -> np.ndarray:
    faults = faults_of(recording)
    first = first_named(named, faults.row, faults.start, faults.end)
    return delays_ms(first, faults.joint, faults.start, recording.step_dt)


def serving(assignment: Assignment, robot: Robot) -> np.ndarray:
    """(K + 1, J) bool: which member serves which joint; the last row, index −1, is the healthy policy: none."""
    table = np.zeros((len(assignment.members) + 1, len(robot.joint_names)), dtype=bool)
    for k, member in enumerate(assignment.members):
        table[k, [robot.joint_id(name) for name in member.joints]] = True
    return table


def _alarm(recording: Recording) -> np.ndarray:
    if recording.alarm is None:
        raise KoboshiError("this recording holds no alarms; record it with detail=True")
    return recording.alarm.numpy()


def confusion(recording: Recording) -> np.ndarray:
    """(J + 1, J + 1) faults by true joint and by the joint alarmed first within WINDOW_S of the onset ('none' last).

    Of two alarms at once the more probable counts. Alarms on other joints that are broken at that time are right
    too, and not asked about here.
    """
    faults, alarm = faults_of(recording), _alarm(recording)
    assert recording.probability is not None
    window = round(WINDOW_S / recording.step_dt)
    end = np.minimum(faults.end, faults.start + window)
    named = first_named(alarm, faults.row, faults.start, end)
    for f in range(len(named)):
        named[f, _also_broken(faults, f, end[f])] = math.inf
    first = named.min(1, initial=math.inf)
    at = np.where(np.isinf(first), faults.start, first).astype(np.int64)
    strength = recording.probability.numpy()[np.minimum(at, len(alarm) - 1), faults.row]
    return confusion_matrix(faults.joint, noticed(named, faults.start, strength=strength), alarm.shape[2])


def _also_broken(faults: FaultRows, f: int, end: int) -> np.ndarray:
    """Other joints of the same robot that are broken between the fault's start and `end`."""
    same = (faults.row == faults.row[f]) & (faults.start < end) & (faults.end > faults.start[f])
    return faults.joint[same & (faults.joint != faults.joint[f])]


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
        "macro_f1": macro_f1(matrix),
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


def healthy_steps(hours: float, step_dt: float, num_envs: int) -> int:
    """Control steps in which `num_envs` robots walk for so many hours together."""
    return math.ceil(hours * 3600 / step_dt / num_envs)


def false_alarms(
    cfg: EnvCfg, controller: Controller, hours: float, num_envs: int, seed: int, report: Callable[[int], None]
) -> dict[str, float]:
    """Alarms of robots whose joints are all well, under changing commands: `false_alarms_per_hour`, `healthy_hours`,
    and what they may cost: `healthy_falls`, how often these robots fell.

    An alarm counts when it is raised: on a joint that had none in the step before.
    """
    before: Tensor | None = None
    count: Tensor | int = 0
    falls: Tensor | int = 0
    for decision, reset, fell in _healthy_walk(cfg, controller, hours, num_envs, seed, report):
        alarm = decision.route.belief.alarm
        count += _raised(alarm, torch.zeros_like(alarm) if before is None else before, reset)
        falls += fell.sum()
        before = alarm.clone()
    return _rate(int(count), hours, cfg.step_dt, num_envs) | {"healthy_falls": int(falls)}


def alarms_of_settings(
    cfg: EnvCfg,
    controller: Controller,
    settings: Sequence[AlarmCfg],
    hours: float,
    num_envs: int,
    seed: int,
    report: Callable[[int], None],
) -> list[dict[str, float]]:
    """As `false_alarms`, of each of several settings of the alarm on what the controller believes in one and the same
    walk: `false_alarms`, `healthy_hours` and the rate."""
    counts: list[Tensor | int] = [0] * len(settings)
    states: list[AlarmState] = []
    for decision, reset, _ in _healthy_walk(cfg, controller, hours, num_envs, seed, report):
        probability = decision.route.belief.probability
        if not states:
            states = [initial_alarms(num_envs, probability.shape[1], probability.device)] * len(settings)
        fresh = reset if anyone(reset) else None
        for i, setting in enumerate(settings):
            alarm, after = alarm_step(setting, probability, states[i], fresh)
            if alarm is not states[i].alarm:
                counts[i] += _raised(alarm, states[i].alarm, reset)
            states[i] = after
    return [_rate(int(count), hours, cfg.step_dt, num_envs) for count in counts]


def _raised(alarm: Tensor, before: Tensor, reset: Tensor) -> Tensor:
    """How many of these alarms (N, J) were not there before, or were in another episode; it stays on its device."""
    return (alarm & (~before | reset[:, None])).sum()


def _healthy_walk(
    cfg: EnvCfg, controller: Controller, hours: float, num_envs: int, seed: int, report: Callable[[int], None]
) -> Iterator[tuple[Decision, Tensor, Tensor]]:
    """Each decision of robots whose joints are all well; (N,) bool whose episode began with it, who fell after it."""
    env = Env(replace(cfg, num_envs=num_envs, curriculum={}, faults=None))
    obs, state = env.reset(seed), controller.initial_state(num_envs, env.device)
    reset = torch.ones(num_envs, dtype=torch.bool, device=env.device)
    for t in range(healthy_steps(hours, env.step_dt, num_envs)):
        decision, state = controller.act(obs, reset, state)
        step = env.step(decision.action)
        yield decision, reset, step.terminated
        obs, reset = step.obs, step.terminated | step.truncated
        report(t + 1)
    env.settle()


def _rate(raised: int, hours: float, step_dt: float, num_envs: int) -> dict[str, float]:
    spent = healthy_steps(hours, step_dt, num_envs) * num_envs * step_dt / 3600
    return {"false_alarms_per_hour": raised / spent, "false_alarms": raised, "healthy_hours": spent}
