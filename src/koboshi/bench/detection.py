"""What the router noticed, and when, as the controller lived it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from koboshi.bench.rollout import Recording
from koboshi.detect.metrics import macro_f1
from koboshi.envs import Env, EnvCfg
from koboshi.envs.cfg import EventTerm
from koboshi.robots import ROBOTS
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import NOBODY

WINDOW_S = 1.0
"""An alarm later than this after the onset does not count for isolation."""


def delays(recording: Recording) -> np.ndarray:
    """(F,) ms from the onset until the right joint is in charge, for each episode with a fault; inf if never.

    The first decision that can know of a fault comes one control period after its onset.
    """
    rows, true = _faults(recording)
    steps = torch.arange(len(recording.joint))[:, None]
    onset, end = recording.onset[rows], recording.end[rows]
    right = (recording.joint[:, rows] == true) & (steps > onset) & (steps <= end)
    first = torch.where(right.any(0), right.int().argmax(0), -1)
    delay = (first - onset).numpy() * recording.step_dt * 1000.0
    return np.where(first.numpy() < 0, math.inf, delay)


def confusion(recording: Recording) -> np.ndarray:
    """(J + 1, J + 1) faults by true joint and by the joint first put in charge within a second ('none' last)."""
    rows, true = _faults(recording)
    joints = len(ROBOTS[recording.scenarios.robot].joint_names)
    matrix = np.zeros((joints + 1, joints + 1), dtype=int)
    window = round(WINDOW_S / recording.step_dt)
    for row, joint in zip(rows.tolist(), true.tolist(), strict=True):
        onset, end = int(recording.onset[row]), int(recording.end[row])
        seen = recording.joint[onset + 1 : min(onset + window, end) + 1, row]
        named = seen[seen != NOBODY]
        matrix[joint, int(named[0]) if len(named) else joints] += 1
    return matrix


def _faults(recording: Recording) -> tuple[Tensor, Tensor]:
    """(F,) rows with a fault and (F,) the joint each breaks, of those that stood until then."""
    _, severity, _ = recording.scenarios.plan(recording.step_dt)
    standing = recording.end > recording.onset
    rows = ((severity.amax(1) > 0) & standing).nonzero().squeeze(1)
    return rows, severity[rows].argmax(1)


def detection_metrics(recording: Recording) -> dict[str, Any]:
    """`delay_ms_median`, `delay_ms_p95` (misses are infinite: null), `missed`, `macro_f1`, `delays_ms`."""
    delay, matrix = delays(recording), confusion(recording)
    return {
        "delay_ms_median": _quantile(delay, 0.5),
        "delay_ms_p95": _quantile(delay, 0.95),
        "missed": float(np.isinf(delay).mean()) if len(delay) else None,
        "macro_f1": macro_f1(matrix) if len(delay) else None,
        "confusion": matrix.tolist(),
        "delays_ms": [None if math.isinf(d) else float(d) for d in delay],
    }


def _quantile(delay: np.ndarray, q: float) -> float | None:
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

    An alarm counts when a joint is put in charge that was not before.
    """
    events: dict[str, EventTerm | None] = {n: e for n, e in cfg.events.items() if n != "change_joint_torque"}
    env = Env(replace(cfg, num_envs=num_envs, events=events))
    steps = healthy_steps(hours, env.step_dt, num_envs)
    obs, state = env.reset(seed), controller.initial_state(num_envs, env.device)
    reset = torch.ones(num_envs, dtype=torch.bool, device=env.device)
    before = torch.full((num_envs,), NOBODY, device=env.device)
    count = 0
    for t in range(steps):
        decision, state = controller.act(obs, reset, state)
        joint = decision.route.joint
        count += int(((joint != NOBODY) & ((joint != before) | reset)).sum())
        step = env.step(decision.action)
        before, obs, reset = joint, step.obs, step.terminated | step.truncated
        report(t + 1)
    spent = steps * num_envs * env.step_dt / 3600
    return {"false_alarms_per_hour": count / spent, "false_alarms": count, "healthy_hours": spent}
