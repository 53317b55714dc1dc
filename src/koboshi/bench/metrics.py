"""What a recording is worth. Every number counts from the onset of an episode's first fault to `seconds` after it.

Definitions
- **survival**: no fall until the end. An episode that falls before its first fault tells nothing about it: it is
  left out of every figure and counted in `fell_before_onset`. One without a fault counts from its first step.
- **vx_rmse, vy_rmse, yaw_rmse**: root mean square of command less velocity over all control steps before a fall.
- **progress**: distance in the commanded direction over distance commanded, the fallen standing still from then on.
- **heading_error**: mean distance between the heading asked for and the robot's, over the last second, of those that
  survive. **path_error**: root mean square distance from the straight line on which the episode's onset, the heading
  and the command put it, over all control steps before a fall. **path_progress**: as progress, but along that line.
  They are figures of episodes that hold a heading (`Scenario.heading`).
- **recovery**: share of episodes that survive and whose forward velocity, averaged over each second of the last
  half, stays within 0.2 m/s of the command on average.

A figure is None where there is nothing to measure it on. Controllers differ in whom they let fall, and the fallen
are easy to track: `paired` compares two on the episodes that both survive.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from koboshi import robots
from koboshi.bench.rollout import Recording
from koboshi.envs.math import wrapped
from koboshi.errors import KoboshiError

RECOVERED = 0.2
"""Mean error of second-long averages that counts as recovered, m/s."""
MOVING = 0.1
"""Commanded speed above which there is progress to make, m/s."""
HEALTHY = "none"
"""The name under which episodes without a fault are counted by joint."""


@dataclass(frozen=True)
class EpisodeRows:
    """One number for each of N episodes, None where it does not exist."""

    survived: list[bool | None]
    """None: it fell before the onset."""
    vx_rmse: list[float | None]
    vy_rmse: list[float | None]
    yaw_rmse: list[float | None]
    progress: list[float | None]
    heading_error: list[float | None]
    path_error: list[float | None]
    path_progress: list[float | None]

    def to_dict(self) -> dict[str, list[Any]]:
        """JSON data."""
        return asdict(self)


def aligned(recording: Recording, values: Tensor, seconds: float) -> Tensor:
    """(S, N, …) rows from each episode's onset to `seconds` after it."""
    steps = round(seconds / recording.step_dt)
    index = recording.onset[None, :] + torch.arange(steps)[:, None]
    return values[index, torch.arange(values.shape[1])[None, :]]


class _Window:
    """The rows that count, aligned to each episode's onset; S steps, N episodes."""

    def __init__(self, recording: Recording, seconds: float) -> None:
        steps = round(seconds / recording.step_dt)
        broken = torch.tensor([bool(e.faults) for e in recording.scenarios.episodes])
        self.counts = ~(broken & (recording.end < recording.onset))
        """(N,) bool: did not fall before its fault."""
        self.survived = self.counts & (recording.end >= recording.onset + steps)
        self.alive = torch.arange(steps)[:, None] < (recording.end - recording.onset)[None, :]
        """(S, N) bool."""
        self.velocity = aligned(recording, recording.velocity, seconds)
        command = aligned(recording, recording.command, seconds)
        self.error = command - self.velocity
        self.command = command[0, :, :2]
        """(N, 2) v_x and v_y, which a scenario keeps, m/s."""


def controller_metrics(recording: Recording, seconds: float) -> dict[str, Any]:
    """The figures of one controller; keys as in `metrics.json`."""
    window = _Window(recording, seconds)
    by_joint = _by_joint(recording, window.survived.double().masked_fill(~window.counts, math.nan))
    measured = [share for share in by_joint.values() if share is not None]
    travelled, course = _progress(window), _Course(recording, window, seconds)
    turned = _by_joint(recording, course.heading_error).values()
    return {
        "survival_mean": sum(measured) / len(measured) if measured else None,
        "survival_worst": min(measured, default=None),
        "survival_by_joint": by_joint,
        "fell_before_onset": int((~window.counts).sum()),
        "vx_rmse": _rms(window.error[..., 0], window.alive),
        "vy_rmse": _rms(window.error[..., 1], window.alive),
        "yaw_rmse": _rms(window.error[..., 2], window.alive),
        "progress": _mean_known(travelled),
        "heading_error": _mean_known(course.heading_error),
        "heading_error_worst": max((error for error in turned if error is not None), default=None),
        "path_error": _rms(course.aside, window.alive & course.held),
        "path_progress": _mean_known(course.progress),
        "recovery": _recovery(window, recording.step_dt),
    }


def episode_rows(recording: Recording, seconds: float) -> EpisodeRows:
    """The same, an episode at a time."""
    window = _Window(recording, seconds)
    steps = window.alive.sum(0)
    squares = window.error.square().masked_fill(~window.alive[..., None], 0.0).sum(0)
    vx, vy, yaw = (squares / steps[:, None]).sqrt().T  # 0 / 0 is NaN: it never stood
    survived = [bool(s) if c else None for s, c in zip(window.survived, window.counts, strict=True)]
    course = _Course(recording, window, seconds)
    aside = course.aside.square().masked_fill(~window.alive, 0.0).sum(0)
    path = (aside / steps).sqrt().masked_fill(~course.held, math.nan)
    numbers = (vx, vy, yaw, _progress(window), course.heading_error, path, course.progress)
    return EpisodeRows(survived, *map(_known, numbers))


def _known(values: Tensor) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


COURSE = ("heading_error", "heading_error_worst", "path_error", "path_progress")
"""Figures that only episodes with a heading have; tables leave them out where nobody has any."""
PAIRED = tuple(f.name for f in fields(EpisodeRows) if f.name != "survived")
"""What `paired` compares."""


def paired(a: EpisodeRows, b: EpisodeRows) -> dict[str, Any]:
    """Mean of a − b over the episodes that both survive, for each of PAIRED, and how many these are: `pairs`.

    KoboshiError where the two were not judged on equally many episodes.
    """
    if len(a.survived) != len(b.survived):
        raise KoboshiError(f"{len(a.survived)} episodes cannot be paired with {len(b.survived)}")
    both = [bool(x and y) for x, y in zip(a.survived, b.survived, strict=True)]
    found: dict[str, Any] = {"pairs": sum(both)}
    for name in PAIRED:
        columns = zip(both, getattr(a, name), getattr(b, name), strict=True)
        differences = [x - y for ok, x, y in columns if ok and x is not None and y is not None]
        found[name] = sum(differences) / len(differences) if differences else None
    return found


def _by_joint(recording: Recording, values: Tensor) -> dict[str, float | None]:
    """Joint -> mean of `values` (N,), NaN where there is none, over the episodes in which it fails; episodes without a
    fault under HEALTHY."""
    rows: dict[str, list[float]] = {}
    for episode, value in zip(recording.scenarios.episodes, values.tolist(), strict=True):
        for joint in dict.fromkeys(fault.joint for fault in episode.faults) or [HEALTHY]:
            found = rows.setdefault(joint, [])
            if not math.isnan(value):
                found.append(value)
    return {joint: sum(found) / len(found) if found else None for joint, found in rows.items()}


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def _rms(error: Tensor, mask: Tensor) -> float | None:
    return float(error[mask].square().mean().sqrt()) if mask.any() else None


class _Course:
    """How episodes that hold a heading keep to the line that it means; S steps, N episodes."""

    def __init__(self, recording: Recording, window: _Window, seconds: float) -> None:
        pose = aligned(recording, recording.pose, seconds)
        target = aligned(recording, recording.target, seconds)[0]
        self.held = target.isfinite() & window.counts
        """(N,) bool."""
        speed = window.command.norm(dim=1)
        bearing = target + torch.atan2(window.command[:, 1], window.command[:, 0])
        east, north = (pose[..., :2] - pose[0, :, :2]).unbind(-1)
        along = east * bearing.cos() + north * bearing.sin()
        self.aside = north * bearing.cos() - east * bearing.sin()
        """(S, N) m to the left of the line."""
        last = (window.alive.sum(0) - 1).clamp(min=0)
        asked = speed * (len(pose) - 1) * recording.step_dt
        self.progress = (along.gather(0, last[None])[0] / asked).clamp(0, 1)
        """(N,) 0..1; NaN where no heading was held or no movement asked for."""
        self.progress = self.progress.masked_fill(~self.held | (speed <= MOVING), math.nan)
        second = round(1 / recording.step_dt)
        wrong = wrapped(pose[-second:, :, 2] - target)
        self.heading_error = wrong.abs().mean(0).masked_fill(~self.held | ~window.survived, math.nan)
        """(N,) rad; NaN where no heading was held or the robot fell."""


def _mean_known(values: Tensor) -> float | None:
    return _mean(values[~values.isnan()])


def _progress(window: _Window) -> Tensor:
    """(N,) 0..1; NaN where no movement was asked for or the episode does not count."""
    direction, speed = window.command, window.command.norm(dim=1)
    along = (window.velocity[..., :2] * direction).sum(-1).masked_fill(~window.alive, 0.0)
    share = (along.mean(0) / speed.square()).clamp(0, 1)
    return share.masked_fill((speed <= MOVING) | ~window.counts, math.nan)


def _recovery(window: _Window, step_dt: float) -> float | None:
    recovered = _recovered(window, step_dt)
    if recovered is None or not window.counts.any():
        return None
    return float(recovered[window.counts].float().mean())


def _recovered(window: _Window, step_dt: float) -> Tensor | None:
    """(N,) bool; None where the last half is shorter than a second."""
    second = round(1 / step_dt)
    error = window.error[..., 0]
    half = error[len(error) // 2 :]
    whole = half[: len(half) // second * second]
    if not len(whole):
        return None
    return window.survived & (whole.unflatten(0, (-1, second)).mean(1).abs().mean(0) <= RECOVERED)


def recovered_rows(recording: Recording, seconds: float) -> list[bool | None]:
    """Which of N episodes recover; None for one that fell before its fault, and where no second-long mean exists."""
    window = _Window(recording, seconds)
    found = _recovered(window, recording.step_dt)
    if found is None:
        return [None] * len(window.counts)
    return [bool(r) if c else None for r, c in zip(found, window.counts, strict=True)]


def gait_metrics(recording: Recording, seconds: float) -> dict[str, Any]:
    """`duty`: foot name -> share of time it is on the ground. `duty_difference`: the largest between mirrored feet.

    Without such a pair there is no difference: None.
    """
    robot = robots.find(recording.scenarios.robot)
    feet, window = robot.feet, _Window(recording, seconds)
    if not window.alive.any():
        return {"duty": {foot.name: None for foot in feet}, "duty_difference": None}
    shares = aligned(recording, recording.contact, seconds)[window.alive].float().mean(0).tolist()
    partners = robot.mirror_feet.tolist() if robot.mirrored else range(len(feet))
    differences = [abs(shares[i] - shares[j]) for i, j in enumerate(partners) if i < j]
    return {
        "duty": {foot.name: share for foot, share in zip(feet, shares, strict=True)},
        "duty_difference": max(differences, default=None),
    }
