"""What the verbs choose to show, on recordings made by hand, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from koboshi import robots
from koboshi.bench.rollout import Recording
from koboshi.errors import KoboshiError
from koboshi.faults import Fault
from koboshi.specialists.assignment import Assignment, Member
from koboshi.stages import evaluate, film, play
from koboshi.tasks import make_task

H1 = robots.find("unitree_h1")
TABLE = Assignment((Member("knee", ("left_knee", "right_knee"), ("right_knee",)),))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("left_knee@3.0", Fault("left_knee", "torque_loss", 1.0, 3.0, None)),
        ("left_knee@3:braking", Fault("left_knee", "braking", 1.0, 3.0, None)),
        ("left_knee@3:braking:0.5", Fault("left_knee", "braking", 0.5, 3.0, None)),
        ("right_knee@5:braking:0.5:2.0", Fault("right_knee", "braking", 0.5, 5.0, 2.0)),
        ("right_knee@5:braking:0.5:2.0:3", Fault("right_knee", "braking", 0.5, 5.0, 2.0, 3.0)),
    ],
)
def test_a_fault_is_written_in_one_word(text: str, fault: Fault) -> None:
    assert play.parse_fault(text, H1) == fault


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("left_knee", "is not a fault; write joint@seconds"),
        ("left_knee@soon", "is not a fault; write joint@seconds"),
        ("left_knee@1:braking:1:1:2:1", "is not a fault; write joint@seconds"),
        ("left_knee@1:braking:1:1:1", "lasts less than its period, not 1.0 s of 1.0 s"),
        ("left_kne@1", "did you mean 'left_knee'"),
        ("left_knee@1:brake", "did you mean 'braking'"),
        ("left_knee@1:braking:2", "at most 1"),
        ("left_knee@-1", "onset"),
        ("left_knee@1:braking:1:0", "duration"),
    ],
)
def test_what_is_no_fault_is_refused(text: str, says: str) -> None:
    with pytest.raises(KoboshiError, match=says):
        play.parse_fault(text, H1)


def test_films_are_of_what_the_healthy_policy_survives_least(recording: Callable[..., Recording]) -> None:
    joints = ["torso", "torso", "left_knee", "left_elbow", "left_knee", "right_knee"]
    judged = recording(joints, [1] * 6, 5, 0.5)
    rows = evaluate.film_candidates(judged.scenarios)
    assert rows == (0, 2, 3, 5)
    healthy = replace(judged, filmed=rows)
    by_joint = {"torso": 0.5, "left_knee": 0.0, "left_elbow": None, "right_knee": 0.9}
    assert evaluate.worth_a_look({"healthy": healthy}, by_joint) == [2, 0, 5]
    assert evaluate.film_candidates(recording([None, None], [0, 0], 5, 0.5).scenarios) == (0,)


def test_the_demo_shows_a_fall_that_the_controller_avoids(recording: Callable[..., Recording]) -> None:
    judged = replace(recording(["torso", "left_knee", "left_elbow"], [2, 3, 2], 9, 0.5), filmed=(0, 1, 2))
    healthy = replace(judged, end=torch.tensor([6, 5, 3]))
    learned = replace(judged, end=torch.tensor([9, 9, 4]))
    assert play.showcase({"learned": learned, "healthy": healthy}) == 1


def test_a_trajectory_tells_faults_alarms_and_who_acts(recording: Callable[..., Recording]) -> None:
    faults = (Fault("left_knee", onset_s=0.2, duration_s=0.3), Fault("torso", "braking", 0.5, 0.9))
    alarm = torch.zeros(10, 2, 19, dtype=torch.bool)
    alarm[4:, 1, H1.joint_id("left_knee")] = True
    alarm[2, 1, H1.joint_id("torso")] = True
    member = torch.full((10, 2), -1, dtype=torch.int16)
    member[5:, 1] = 0
    columns: dict[str, Any] = {"alarm": alarm, "probability": alarm.float(), "member": member}
    found = recording([None, faults], [0, 2], 10, 0.1, end=torch.tensor([10, 8]), **columns)
    found = replace(found, filmed=(1,), qpos=torch.ones(10, 1, 26))
    t = film.trajectory(found, 1, "t", TABLE)
    assert [(m.joint, m.time, m.end) for m in t.fault] == [("left_knee", 0.2, 0.5)]  # it fell before the second
    assert [(a.joint, a.time) for a in t.alarms] == [("torso", pytest.approx(0.2)), ("left_knee", pytest.approx(0.4))]
    assert list(t.actor) == ["healthy"] * 5 + ["knee specialist"] * 3
    assert t.fell_at == pytest.approx(0.8) and len(t.qpos) == 8 and t.probability is not None
    alone = film.trajectory(replace(found, member=torch.full_like(member, -1)), 1, "t", None)
    assert alone.alarms == () and alone.probability is None and set(alone.actor) == {"healthy"}
    short = film.trajectory(film.cut(found, 0.6), 1, "t", TABLE)
    assert len(short.qpos) == 6 and short.fell_at is None
    assert film.trajectory(film.cut(found, 0.6), 1, "t", TABLE).fault[0].end < math.inf


def test_a_task_that_ships_nothing_says_which_do() -> None:
    task = replace(make_task("h1-walk"), name="h1-crawl")
    with pytest.raises(KoboshiError, match=r"'h1-crawl' is shipped, only of: .*h1-walk.*koboshi pipeline h1-crawl"):
        play.shipped(task)
