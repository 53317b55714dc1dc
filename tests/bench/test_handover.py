"""Everybody takes over the same robots at the same moment."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from koboshi.bench.handover import HandedOver, WalkDigest
from koboshi.bench.rollout import rollout
from koboshi.faults import Fault, Scenario, Scenarios
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import HealthyRouter
from koboshi.tasks import make_task

SCENARIOS = Scenarios("unitree_h1", 3, (Scenario((Fault("torso", onset_s=0.2),), (0.7, 0.0, 0.0), 0.2, 0.0),) * 2)
STEPS = 6


class Same:
    """A policy that asks for the same everywhere, and counts what it has seen."""

    def __init__(self, action: float) -> None:
        self.action = action

    def initial_state(self, num_envs: int, device: torch.device) -> Tensor:
        return torch.zeros(num_envs)

    def act(self, obs: Any, state: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        self.seen = state + 1
        return torch.full((len(reset), 19), self.action), self.seen


def test_the_walker_acts_and_the_judged_one_listens() -> None:
    walker, judged = Same(0.1), Same(0.2)
    controller = HandedOver(walker, Controller(judged, None, HealthyRouter(19)), STEPS)
    state, actions = controller.initial_state(2), []
    for _ in range(STEPS + 2):
        decision, state = controller.act({}, torch.zeros(2, dtype=torch.bool), state)
        actions.append(float(decision.action[0, 0]))
    assert actions == pytest.approx([0.1] * STEPS + [0.2] * 2)
    assert walker.seen.tolist() == [STEPS] * 2 and judged.seen.tolist() == [STEPS + 2] * 2


def test_the_digest_tells_whether_robots_were_the_same() -> None:
    cfg = make_task("h1-dead-joint").env

    def digest(walker: float, judged: float, steps: int) -> str:
        watch = WalkDigest(STEPS)
        controller = HandedOver(Same(walker), Controller(Same(judged), None, HealthyRouter(19)), steps)
        rollout(cfg, controller, SCENARIOS, 0.02, world="nominal", watch=watch)
        return watch.value

    same = digest(0.1, 0.2, STEPS)
    assert same == digest(0.1, 0.5, STEPS) != ""
    assert same != digest(0.1, 0.2, STEPS - 1)
