"""What a recording is worth. Every number counts from the onset of the fault to `seconds` after it.

Definitions: **survival** no fall until the end. **vx_rmse, yaw_rmse** root mean square of command less velocity over
all control steps before a fall. **progress** distance in the commanded direction over distance commanded, the
fallen standing still from their fall on. **recovery** share of episodes that survive and whose forward velocity,
averaged over each second of the last half, stays within 0.2 m/s of the command on average. A figure is None where
there is nothing to measure it on: nobody stood, or the last half holds no whole second.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from koboshi.bench.rollout import Recording

RECOVERED = 0.2
"""Mean error of second-long averages that counts as recovered, m/s."""


def aligned(recording: Recording, values: Tensor, seconds: float) -> Tensor:
    """(S, N, …) rows from each episode's onset to `seconds` after it."""
    steps = round(seconds / recording.step_dt)
    index = recording.onset[None, :] + torch.arange(steps)[:, None]
    return values[index, torch.arange(values.shape[1])[None, :]]


def controller_metrics(recording: Recording, seconds: float) -> dict[str, Any]:
    """The figures of one controller; keys as in `metrics.json`."""
    steps = round(seconds / recording.step_dt)
    survived = recording.end >= recording.onset + steps
    alive = torch.arange(steps)[:, None] < (recording.end - recording.onset)[None, :]
    velocity = aligned(recording, recording.velocity, seconds)
    error = recording.command - velocity
    by_joint = _by_joint(recording, survived)
    return {
        "survival_mean": sum(by_joint.values()) / len(by_joint),
        "survival_worst": min(by_joint.values()),
        "survival_by_joint": by_joint,
        "vx_rmse": _rms(error[..., 0], alive),
        "yaw_rmse": _rms(error[..., 2], alive),
        "progress": _progress(recording.command[:, 0], velocity[..., 0], alive),
        "recovery": _recovery(error[..., 0], survived, recording.step_dt),
    }


def _by_joint(recording: Recording, survived: Tensor) -> dict[str, float]:
    rows: dict[str, list[float]] = {}
    for episode, ok in zip(recording.scenarios.episodes, survived.tolist(), strict=True):
        rows.setdefault(episode.joint or "none", []).append(float(ok))
    return {joint: sum(values) / len(values) for joint, values in rows.items()}


def _rms(error: Tensor, mask: Tensor) -> float | None:
    return float(error[mask].square().mean().sqrt()) if mask.any() else None


def _progress(command: Tensor, velocity: Tensor, alive: Tensor) -> float | None:
    moving = command > 0.1
    travelled = (velocity * alive).mean(0)[moving] / command[moving]
    return float(travelled.clamp(0, 1).mean()) if moving.any() else None


def _recovery(error: Tensor, survived: Tensor, step_dt: float) -> float | None:
    second = round(1 / step_dt)
    half = error[len(error) // 2 :]
    whole = half[: len(half) // second * second]
    if not len(whole):
        return None
    recovered = whole.unflatten(0, (-1, second)).mean(1).abs().mean(0) <= RECOVERED
    return float((survived & recovered).float().mean())


def gait_metrics(recording: Recording, seconds: float) -> dict[str, float | None]:
    """`duty_left`, `duty_right`: share of time a foot is on the ground; `duty_difference` between them."""
    steps = round(seconds / recording.step_dt)
    alive = torch.arange(steps)[:, None] < (recording.end - recording.onset)[None, :]
    if not alive.any():
        return {"duty_left": None, "duty_right": None, "duty_difference": None}
    left, right = aligned(recording, recording.contact, seconds)[alive].float().mean(0).tolist()
    return {"duty_left": left, "duty_right": right, "duty_difference": abs(left - right)}
