"""Figures of recordings made by hand. Two rows a second; the onset is row 2 and 4 s count: rows 2 to 9."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from koboshi.bench.metrics import COURSE, EpisodeRows, controller_metrics, episode_rows, gait_metrics, paired
from koboshi.bench.rollout import Recording
from koboshi.errors import KoboshiError
from koboshi.faults import Fault
from koboshi.robots import Foot

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
    assert list(figures["duty"].values()) == [1.0, pytest.approx(2 / 34)]
    assert figures["duty_difference"] == pytest.approx(32 / 34)


def test_any_number_of_feet(recording: Callable[..., Recording], monkeypatch: pytest.MonkeyPatch) -> None:
    feet = tuple(Foot(name, name) for name in ("FL", "FR", "RL", "RR", "tail"))
    dog = SimpleNamespace(feet=feet, mirrored=True, mirror_feet=np.array([1, 0, 3, 2, 4]))
    monkeypatch.setattr("koboshi.bench.metrics.robots.find", lambda name: dog)
    contact = torch.zeros(10, 1, 5, dtype=torch.bool)
    for foot, rows in enumerate((5, 4, 8, 5, 10)):
        contact[:rows, 0, foot] = True
    walked = recording([None], [0], 10, 0.1, contact=contact)
    figures = gait_metrics(walked, 1.0)
    assert figures["duty"] == pytest.approx({"FL": 0.5, "FR": 0.4, "RL": 0.8, "RR": 0.5, "tail": 1.0})
    assert figures["duty_difference"] == pytest.approx(0.3)
    dog.mirrored = False
    assert gait_metrics(walked, 1.0)["duty_difference"] is None
    dog.feet, dog.mirrored, dog.mirror_feet = feet[-1:], True, np.array([0])
    single = gait_metrics(replace(walked, contact=contact[..., -1:]), 1.0)
    assert single == {"duty": {"tail": 1.0}, "duty_difference": None}


def test_episodes_are_aligned_to_their_own_onset(recording: Callable[..., Recording]) -> None:
    velocity = torch.zeros(6, 2, 3)
    velocity[1:3, 0, 0] = velocity[4:6, 1, 0] = 1.0
    command = torch.tensor([[1.0, 0, 0], [1.0, 0, 0]])
    walked = recording(["torso", "torso"], [1, 4], 6, 0.5, velocity=velocity, command=command)
    assert controller_metrics(walked, 1.0)["vx_rmse"] == 0.0
    assert controller_metrics(walked, 1.0)["progress"] == 1.0


def test_what_cannot_be_measured_is_none(recording: Callable[..., Recording]) -> None:
    fallen = recording([None, "torso"], [2, 2], 4, 0.5, end=torch.tensor([1, 1]))
    figures = controller_metrics(fallen, 1.0)
    # One without a fault fell all the same; what fell before its fault says nothing about it.
    assert figures["survival_by_joint"] == {"none": 0.0, "torso": None}
    assert (figures["survival_mean"], figures["fell_before_onset"]) == (0.0, 1)
    assert [figures[k] for k in ("vx_rmse", "vy_rmse", "yaw_rmse", "progress", "recovery")] == [None] * 5
    assert gait_metrics(fallen, 1.0)["duty_difference"] is None
    nobody = controller_metrics(recording(["torso"], [2], 6, 0.5, end=torch.tensor([1])), 2.0)
    assert [nobody[k] for k in ("survival_mean", "survival_worst", "recovery")] == [None] * 3


def test_falls_before_the_onset_are_left_out(recording: Callable[..., Recording]) -> None:
    # Row 2 is the step in which the fault acts first: a fall in it counts.
    command = torch.tensor([[1.0, 0, 0]] * 4)
    velocity = torch.ones(6, 4, 3)
    fallen = recording(["torso"] * 4, [2] * 4, 6, 0.5, end=torch.tensor([1, 2, 6, 6]), command=command)
    figures = controller_metrics(replace(fallen, velocity=velocity), 2.0)
    assert figures["survival_by_joint"] == {"torso": pytest.approx(2 / 3)}
    assert figures["fell_before_onset"] == 1
    assert figures["recovery"] == pytest.approx(2 / 3)
    assert figures["progress"] == pytest.approx(2 / 3)


def test_an_episode_counts_for_each_joint_that_fails_in_it(recording: Callable[..., Recording]) -> None:
    both = (Fault("left_knee", onset_s=1.0), Fault("torso", onset_s=1.5), Fault("torso", onset_s=1.8))
    found = recording([both, "torso"], [2, 2], 6, 0.5, end=torch.tensor([3, 6]))
    assert controller_metrics(found, 2.0)["survival_by_joint"] == {"left_knee": 0.0, "torso": 0.5}


def test_progress_is_along_the_command(recording: Callable[..., Recording]) -> None:
    command = torch.tensor([[-0.6, 0.8, 0], [0.0, 0.05, 1.0]])
    velocity = torch.tensor([-0.3, 0.4, 0]).expand(4, 2, 3)
    walked = recording(["torso"] * 2, [0, 0], 4, 0.5, command=command, velocity=velocity)
    assert controller_metrics(walked, 2.0)["progress"] == pytest.approx(0.5)


def test_course_by_hand(recording: Callable[..., Recording]) -> None:
    """Two rows a second; four robots that hold a heading of 90° and are to walk 0.5 m/s for 4 s, 1.75 m in 7 steps.

    0 walks straight, 1 goes at 45° and looks 0.3 rad too far left at the end, 2 falls half-way, 3 fell before its
    fault; 4 holds none.
    """
    rows, half = 8, math.pi / 2
    way = torch.arange(rows)[:, None] * 0.25
    pose = torch.zeros(rows, 5, 3)
    pose[..., 1] = 3.0 + way  # the line is through where the robot is at the onset
    pose[:, 1, 0] = -2.0 - way[:, 0]
    pose[..., 2] = half
    pose[-2:, 1, 2] = half + 0.3 - 2 * math.pi
    target = torch.full((rows, 5), half)
    target[:, 4] = math.nan
    walked = recording(
        ["left_knee", "torso", "torso", "left_knee", "left_elbow"],
        [0, 0, 0, 2, 0],
        rows + 2,
        0.5,
        command=torch.tensor([0.5, 0.0, 0.0]).expand(5, 3),
        pose=torch.cat((pose, pose[:2] * math.nan)),
        target=torch.cat((target, target[:2])),
        end=torch.tensor([10, 10, 4, 1, 10]),
    )
    found, one = controller_metrics(walked, 4.0), episode_rows(walked, 4.0)
    assert one.heading_error == [pytest.approx(0, abs=1e-6), pytest.approx(0.3, abs=1e-6), None, None, None]
    assert found["heading_error"] == pytest.approx(0.15) and found["heading_error_worst"] == pytest.approx(0.3)
    aside = [0.25 * t for t in range(8)]
    assert one.path_error[:2] == [pytest.approx(0, abs=1e-6), pytest.approx((sum(x * x for x in aside) / 8) ** 0.5)]
    assert found["path_error"] == pytest.approx((sum(x * x for x in aside) / 20) ** 0.5)
    assert one.path_progress == [pytest.approx(1.0), pytest.approx(1.0), pytest.approx(3 / 7), None, None]
    assert found["path_progress"] == pytest.approx((2 + 3 / 7) / 3)
    sideways = replace(walked, command=torch.tensor([0.0, 0.5, 0.0]).expand(rows + 2, 5, 3))
    assert episode_rows(sideways, 4.0).path_progress[:2] == [pytest.approx(0, abs=1e-6), pytest.approx(1.0)]


def test_nothing_is_said_of_headings_where_none_is_held(walk: Recording) -> None:
    figures = controller_metrics(walk, 4.0)
    assert [figures[name] for name in COURSE] == [None] * 4


def test_episode_rows(walk: Recording) -> None:
    rows = episode_rows(walk, 4.0)
    assert rows.survived == [True, False, True, False, True]
    assert rows.vx_rmse == pytest.approx([(4 * 0.25 / 8) ** 0.5, 0.5, 0.3, 0.0, 0.0])
    assert rows.progress[:4] == pytest.approx([1.0, 3 / 8 * 0.5, 0.7, 7 / 8]) and rows.progress[4] is None
    assert rows.vy_rmse[:1] == [99.0] and rows.yaw_rmse[0] == pytest.approx(0.2)
    fell = episode_rows(replace(walk, end=torch.tensor([ROWS, 1, ROWS, 9, 10])), 4.0)
    assert fell.survived[1] is None and fell.vx_rmse[1] is None


def test_controllers_are_compared_on_what_both_survive() -> None:
    zeros: list[float | None] = [0.0] * 5
    none: list[float | None] = [None] * 5
    rest = (zeros, zeros)
    a = EpisodeRows(
        [True, True, True, False, None], [0.3, 0.5, 0.2, 9.0, None], *rest, [1.0, None, 0.5, 1, 1], none, none, none
    )
    b = EpisodeRows(
        [True, True, False, True, True], [0.1, 0.1, 9.0, 9.0, 9.0], *rest, [0.5, 0.5, 1.0, 1, 1], none, none, none
    )
    found = paired(a, b)
    assert found["pairs"] == 2
    assert found["vx_rmse"] == pytest.approx((0.2 + 0.4) / 2) and found["vy_rmse"] == 0.0
    assert found["progress"] == pytest.approx(0.5)  # the second episode has none under a
    assert paired(b, a)["vx_rmse"] == pytest.approx(-0.3)
    nobody = EpisodeRows([False] * 5, *[zeros] * 7)
    names = ("vx_rmse", "vy_rmse", "yaw_rmse", "progress", "heading_error", "path_error", "path_progress")
    assert paired(a, nobody) == {"pairs": 0} | dict.fromkeys(names)
    with pytest.raises(KoboshiError, match="5 episodes cannot be paired with 1"):
        paired(a, EpisodeRows([True], *[[0.0]] * 7))
