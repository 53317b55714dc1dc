"""From probabilities to alarms: threshold, persistence and hysteresis, one step at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.vec_env import reading_is_free


@dataclass(frozen=True)
class AlarmCfg:
    """When an alarm is raised and when it is taken back."""

    threshold: float = 0.9
    """A probability of at least this counts for an alarm."""
    persistence: int = 2
    """Steps in a row that must count before the alarm is raised."""
    sure_threshold: float | None = None
    """A joint at least this probable need not wait so long; None: all do."""
    sure_persistence: int = 1
    """Steps in a row for which it must be."""
    release_threshold: float = 0.2
    """A probability below this counts for release."""
    release_steps: int = 50
    """Steps in a row that must count before the alarm is taken back."""

    def __post_init__(self) -> None:
        if not 0 <= self.release_threshold <= self.threshold <= 1:
            raise KoboshiError(
                f"alarm thresholds must obey 0 <= release_threshold ({self.release_threshold}) "
                f"<= threshold ({self.threshold}) <= 1"
            )
        sure = self.sure_threshold
        if sure is None and self.sure_persistence != 1:
            raise KoboshiError(f"sure_persistence={self.sure_persistence} has no effect without a sure_threshold")
        if sure is not None and not (self.threshold < sure <= 1 and 1 <= self.sure_persistence < self.persistence):
            raise KoboshiError(
                f"sure_threshold ({sure}) is above threshold ({self.threshold}) and at most 1, sure_persistence "
                f"({self.sure_persistence}) at least 1 and below persistence ({self.persistence})"
            )
        if self.persistence < 1 or self.release_steps < 1:
            raise KoboshiError(
                f"persistence {self.persistence} and release_steps {self.release_steps} must be at least 1"
            )


class AlarmState(NamedTuple):
    """What alarms carry from step to step, each (N, J)."""

    above: Tensor
    """int32: steps in a row at or above the threshold."""
    sure: Tensor
    """int32: the same, at or above `sure_threshold`."""
    below: Tensor
    """int32: steps in a row below the release threshold."""
    alarm: Tensor
    """bool."""


def initial_alarms(num_envs: int, num_joints: int, device: torch.device | str = "cpu") -> AlarmState:
    """No alarm anywhere."""
    count = torch.zeros(num_envs, num_joints, dtype=torch.int32, device=device)
    return AlarmState(count, count, count, torch.zeros(num_envs, num_joints, dtype=torch.bool, device=device))


def alarm_step(
    cfg: AlarmCfg, prob: Tensor, state: AlarmState, reset: Tensor | None = None
) -> tuple[Tensor, AlarmState]:
    """(N, J) probabilities -> (N, J) bool alarms and the next state; pure.

    `reset`: (N,) bool, robots whose alarms and counts start anew before this step.
    """
    above, sure, below, alarm = state
    high = prob >= cfg.threshold
    # In most steps just the alarmed joints, often none, are above the threshold. Then nothing changes, and asking
    # costs less than counting: a standing alarm has no use for the counts to it, and what is high ends `below`. Asking
    # another device would wait for it.
    if reset is None and reading_is_free(prob) and torch.equal(high, alarm):
        none = torch.zeros_like(above)
        return alarm, AlarmState(none, none, none, alarm)
    if reset is not None:
        gone = reset.unsqueeze(-1)
        above, sure, below = (count.masked_fill(gone, 0) for count in (above, sure, below))
        alarm = alarm & ~gone
    above = (above + 1) * high
    raised = above >= cfg.persistence
    if cfg.sure_threshold is not None:
        sure = (sure + 1) * (prob >= cfg.sure_threshold)
        raised |= sure >= cfg.sure_persistence
    below = (below + 1) * (prob < cfg.release_threshold)
    alarm = (alarm | raised) & (below < cfg.release_steps)
    return alarm, AlarmState(above, sure, below, alarm)


def alarms_over_time(cfg: AlarmCfg, prob: Tensor, reset: Tensor) -> Tensor:
    """(T, N, J) probabilities, (T, N) bool resets -> (T, N, J) bool alarms, as `alarm_step` raises them."""
    state = initial_alarms(prob.shape[1], prob.shape[2], prob.device)
    out = torch.empty(prob.shape, dtype=torch.bool, device=prob.device)
    for t in range(prob.shape[0]):
        out[t], state = alarm_step(cfg, prob[t], state, reset[t])
    return out
