"""What counts as noticed in time, on recordings made by hand (20 ms a row, onset at row 10) and a scripted router."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from koboshi.bench import detection
from koboshi.bench.rollout import Recording
from koboshi.robots import UNITREE_H1
from koboshi.specialists.controller import Decision
from koboshi.specialists.routing import Route
from koboshi.tasks import make_task

KNEE, TORSO = UNITREE_H1.joint_id("left_knee"), UNITREE_H1.joint_id("torso")
ROWS = 80


@pytest.fixture
def noticed(recording: Callable[..., Recording]) -> Recording:
    """Knees that break at row 10: noticed at once, late, never, too early, at the fall, after it; fallen before."""
    joints: list[str | None] = ["left_knee"] * 7 + [None]
    joint = torch.full((ROWS, 8), -1, dtype=torch.int8)
    joint[11:, 0] = KNEE
    joint[12:15, 1] = TORSO
    joint[15:, 1] = KNEE
    joint[:11, 3] = KNEE  # the decision of row 10 was taken before anything could show
    joint[20, 4] = KNEE  # decided before the step in which it falls
    joint[21:, 5] = KNEE  # of its next episode
    joint[11:, 6] = joint[11:, 7] = KNEE
    end = torch.tensor([ROWS, ROWS, ROWS, ROWS, 20, 20, 9, ROWS])
    return recording(joints, [10] * 8, ROWS, 0.02, joint=joint, end=end)


def test_delays_count_control_periods_from_the_onset(noticed: Recording) -> None:
    assert detection.delays(noticed) == pytest.approx([20.0, 100.0, math.inf, math.inf, 200.0, math.inf])


def test_the_first_joint_in_charge_within_a_second_is_what_it_took_the_fault_for(noticed: Recording) -> None:
    joint = noticed.joint.clone()
    joint[62:, 2] = KNEE  # 52 rows later: more than a second
    matrix = detection.confusion(replace(noticed, joint=joint))
    none = len(UNITREE_H1.joint_names)
    expected = np.zeros((none + 1, none + 1), dtype=int)
    expected[KNEE, KNEE], expected[KNEE, TORSO], expected[KNEE, none] = 2, 1, 3
    assert np.array_equal(matrix, expected)
    joint[61, 2] = KNEE
    assert detection.confusion(replace(noticed, joint=joint))[KNEE, KNEE] == 2  # row 61 is the 51st decision
    joint[60, 2] = KNEE
    assert detection.confusion(replace(noticed, joint=joint))[KNEE, KNEE] == 3


def test_missed_faults_are_infinitely_late(noticed: Recording) -> None:
    figures = detection.detection_metrics(noticed)
    # 20, 100, 200, ∞, ∞, ∞: no quantile is interpolated towards infinity.
    assert figures["missed"] == 0.5
    assert figures["delay_ms_median"] is None and figures["delay_ms_p95"] is None
    assert figures["delays_ms"] == [pytest.approx(20), pytest.approx(100), None, None, pytest.approx(200), None]
    # One joint fails: 2 hits, no other joint taken for it, 6 true ones.
    assert figures["macro_f1"] == pytest.approx(2 * 2 / (6 + 2))


def test_no_faults_no_figures(recording: Callable[..., Recording]) -> None:
    figures = detection.detection_metrics(recording([None, None], [1, 1], 5, 0.02))
    assert [figures[k] for k in ("delay_ms_median", "delay_ms_p95", "missed", "macro_f1")] == [None] * 4


class Scripted:
    """A controller that puts row t of `script` (T, N) in charge and moves nothing."""

    def __init__(self, script: Tensor) -> None:
        self.script = script
        self.resets: list[Tensor] = []

    def initial_state(self, *_: object) -> int:
        return 0

    def act(self, obs: dict[str, Tensor], reset: Tensor, state: int) -> tuple[Decision, int]:
        self.resets.append(reset.clone())
        joint = self.script[state]
        return Decision(torch.zeros(len(joint), 19), Route(joint, torch.zeros(len(joint), 19))), state + 1


def test_an_alarm_is_false_once_when_it_is_raised() -> None:
    script = torch.full((10, 2), -1)
    script[:, 0] = torch.tensor([-1, 3, 3, -1, 3, 5, 5, 5, 5, -1])  # raised, again, another joint: 3, and …
    script[5:, 1] = torch.tensor([7, 7, 7, 7, 7])  # … 1, and …
    cfg = replace(make_task("h1-walk").env, episode_length_s=8 * 0.02)  # … 1 each in the new episode after row 8
    controller: Any = Scripted(script)
    seen: list[int] = []
    figures = detection.false_alarms(cfg, controller, 9.5 * 2 * 0.02 / 3600, 2, 0, seen.append)
    assert [r.tolist() for r in controller.resets[7:]] == [[False, False], [True, True], [False, False]]
    assert seen == list(range(1, 11))
    assert figures["false_alarms"] == 6
    assert figures["healthy_hours"] == pytest.approx(20 * 0.02 / 3600)
    assert figures["false_alarms_per_hour"] == pytest.approx(6 / (20 * 0.02 / 3600))
