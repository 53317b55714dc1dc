"""Routers: who acts now. Each gives a joint index for every robot, −1 for the healthy policy."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from koboshi.detect.alarms import AlarmCfg, AlarmState, alarm_step, initial_alarms
from koboshi.detect.model import FaultDetector
from koboshi.vec_env import Obs

NOBODY = -1
Device = torch.device | str


class Route(NamedTuple):
    """joint (N,) int64, NOBODY where the healthy policy acts; probability (N, J), the router's belief."""

    joint: Tensor
    probability: Tensor


class Router(Protocol):
    """Pure given its carried state."""

    def initial_state(self, num_envs: int, device: Device = "cpu") -> Any:
        """The state before the first observation."""
        ...

    def route(self, obs: Obs, reset: Tensor, state: Any) -> tuple[Route, Any]:
        """`reset` (N,) bool: rows whose observation is the first of an episode."""
        ...


class HealthyRouter:
    """Never switches: the healthy policy alone."""

    def initial_state(self, num_envs: int, device: Device = "cpu") -> None:
        return None

    def route(self, obs: Obs, reset: Tensor, state: None) -> tuple[Route, None]:
        joint = torch.full_like(reset, NOBODY, dtype=torch.int64)
        return Route(joint, torch.zeros_like(obs["fault"])), None


class OracleRouter:
    """Knows the truth (observation group `fault`), after a delay.

    Without delay it switches at the first observation that shows the fault: one control period after onset.
    """

    def __init__(self, step_dt: float, delay_s: float | tuple[float, float] = 0.0) -> None:
        """A pair of delays: each episode's is drawn between them (to train specialists that can be late)."""
        low, high = (delay_s, delay_s) if isinstance(delay_s, int | float) else delay_s
        self._low, self._span = round(low / step_dt), round(high / step_dt) - round(low / step_dt) + 1

    def initial_state(self, num_envs: int, device: Device = "cpu") -> tuple[Tensor, Tensor]:
        """(N,) steps for which the fault has shown, and (N,) state of each environment's own draw of delays."""
        return torch.zeros(num_envs, dtype=torch.int64, device=device), torch.arange(num_envs, device=device) + 1

    def route(self, obs: Obs, reset: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Route, tuple[Tensor, Tensor]]:
        severity = obs["fault"]
        since, draw = state
        worst, joint = severity.max(1)
        since = torch.where(reset | (worst == 0), 0, since + 1)
        # A linear congruential generator (Numerical Recipes) keeps the router a pure function of its state.
        draw = torch.where(reset, (draw * 1664525 + 1013904223) % 2**32, draw)
        noticed = since > self._low + (draw >> 16) % self._span
        return Route(torch.where(noticed, joint, NOBODY), severity * noticed[:, None]), (since, draw)


class DetectorRouter:
    """Listens to the detector: threshold, persistence, hysteresis. The joint that alarmed first stays in charge."""

    def __init__(self, detector: FaultDetector, alarm: AlarmCfg) -> None:
        self.detector, self.alarm = detector, alarm

    def initial_state(self, num_envs: int, device: Device = "cpu") -> tuple[Tensor, AlarmState, Tensor]:
        """The detector's hidden state (on its own device), no alarm, nobody in charge."""
        alarms = initial_alarms(num_envs, len(self.detector.spec.joint_names), device)
        return self.detector.initial(num_envs), alarms, torch.full((num_envs,), NOBODY, device=device)

    @torch.inference_mode()
    def route(
        self, obs: Obs, reset: Tensor, state: tuple[Tensor, AlarmState, Tensor]
    ) -> tuple[Route, tuple[Tensor, AlarmState, Tensor]]:
        hidden, alarms, joint = state
        fresh = reset if reset.any() else None
        logits, hidden = self.detector.step(obs["detector"], fresh, hidden)
        probability = logits.sigmoid()
        alarm, alarms = alarm_step(self.alarm, probability, alarms, fresh)
        joint = _in_charge(alarm, probability, joint)
        return Route(joint, probability), (hidden, alarms, joint)


def _in_charge(alarm: Tensor, probability: Tensor, joint: Tensor) -> Tensor:
    """(N,) the joint in charge: the present one while its alarm lasts, else the likeliest alarmed one."""
    # Most steps have no alarm at all, and asking is cheaper than choosing.
    if not alarm.any():
        return torch.full_like(joint, NOBODY)
    kept = alarm.gather(1, joint.clamp(min=0)[:, None]).squeeze(1) & (joint != NOBODY)
    if kept.all():
        return joint
    strength, strongest = (probability * alarm).max(1)
    return torch.where(kept, joint, strongest.masked_fill(strength == 0, NOBODY))
