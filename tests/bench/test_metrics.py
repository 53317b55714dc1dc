"""Figures of recordings made by hand. Two rows a second; the onset is row 2 and 4 s count: rows 2 to 9."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from koboshi.bench.metrics import controller_metrics, gait_metrics
from koboshi.bench.rollout import Recording

JOINTS = ["left_knee", "left_knee", "torso", "torso", "torso"]
ROWS = 12


@pytest.fixture
def walk(recording: Callable[..., Recording]) -> Recording:
    """0 walks on; 1 falls in its fourth row; 2 is slow; 3 falls in the last row that counts; 4 falls right after it."""
    end = torch.tensor([ROWS, 5, ROWS, 9, 10])
    command = torch.tensor([[1.0, 0, 0.2], [1.0, 0, 0], [1.0, 0, 0], [1.0, 0, 0], [0.05, 0, 0]])
    # What lies before the onset and after a fall or the window must not count.
    velocity = torch.full((ROWS, 5, 3), 99.0)
    velocity[..., 2] = 0.0
    velocity[2:10, 0, 0] = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.5, 0.5, 1.5, 0.5])  # right on average of each second
    velocity[2:5, 1, 0] = 0.5
    velocity[2:10, 2, 0] = 0.7
    velocity[2:9, 3, 0] = 1.0
    velocity[2:10, 4, 0] = 0.05
    contact = torch.zeros(ROWS, 5, 2, dtype=torch.bool)
    contact[:, :, 0] = True  # the left foot always stands, also while it does not count
    contact[2:4, 0, 1] = contact[5:, 1, 1] = True
    return recording(JOINTS, [2] * 5, ROWS, 0.5, end=end, command=command, velocity=velocity, contact=contact)


def test_survival_counts_from_the_onset(walk: Recording) -> None:
    figures = controller_metrics(walk, 4.0)
    assert figures["survival_by_joint"] == {"left_knee": 1 / 2, "torso": pytest.approx(2 / 3)}
    assert figures["survival_mean"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert figures["survival_worst"] == 1 / 2


def test_errors_count_rows_before_a_fall(walk: Recording) -> None:
    figures = controller_metrics(walk, 4.0)
    rows = 8 + 3 + 8 + 7 + 8
    assert figures["vx_rmse"] == pytest.approx(((4 * 0.25 + 3 * 0.25 + 8 * 0.09) / rows) ** 0.5)
    assert figures["yaw_rmse"] == pytest.approx((8 * 0.04 / rows) ** 0.5)


def test_the_fallen_make_no_progress_and_the_standing_are_not_asked_for_any(walk: Recording) -> None:
    travelled = [1.0, 3 / 8 * 0.5, 0.7, 7 / 8]
    assert controller_metrics(walk, 4.0)["progress"] == pytest.approx(sum(travelled) / 4)


def test_recovery_asks_for_survival_and_the_right_speed(walk: Recording) -> None:
    assert controller_metrics(walk, 4.0)["recovery"] == pytest.approx(2 / 5)  # robots 0 and 4


def test_duty_counts_rows_on_foot(walk: Recording) -> None:
    figures = gait_metrics(walk, 4.0)
    assert figures["duty_left"] == 1.0
    assert figures["duty_right"] == pytest.approx(2 / 34)
    assert figures["duty_difference"] == pytest.approx(32 / 34)


def test_episodes_are_aligned_to_their_own_onset(recording: Callable[..., Recording]) -> None:
    velocity = torch.zeros(6, 2, 3)
    velocity[1:3, 0, 0] = velocity[4:6, 1, 0] = 1.0
    command = torch.tensor([[1.0, 0, 0], [1.0, 0, 0]])
    walked = recording(["torso", "torso"], [1, 4], 6, 0.5, velocity=velocity, command=command)
    assert controller_metrics(walked, 1.0)["vx_rmse"] == 0.0
    assert controller_metrics(walked, 1.0)["progress"] == 1.0


def test_what_cannot_be_measured_is_none(recording: Callable[..., Recording]) -> None:
    fallen = recording([None, "torso"], [2, 2], 4, 0.5, end=torch.tensor([1, 2]))
    figures = controller_metrics(fallen, 1.0)
    assert figures["survival_by_joint"] == {"none": 0.0, "torso": 0.0}
    assert [figures[k] for k in ("vx_rmse", "yaw_rmse", "progress", "recovery")] == [None] * 4
    assert gait_metrics(fallen, 1.0)["duty_difference"] is None
