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
from koboshi.detect import AlarmCfg
from koboshi.envs import Env
from koboshi.envs.cfg import TerminationTerm
from koboshi.errors import KoboshiError
from koboshi.faults import KINDS, Fault
from koboshi.robots import UNITREE_H1
from koboshi.specialists.assignment import Assignment, Member
from koboshi.specialists.controller import Decision
from koboshi.specialists.routing import Belief, Route
from koboshi.tasks import make_task

KNEE, RIGHT, TORSO = (UNITREE_H1.joint_id(name) for name in ("left_knee", "right_knee", "torso"))
JOINTS = len(UNITREE_H1.joint_names)
ROWS = 80
TABLE = Assignment((Member("torso", ("torso",)), Member("knee", ("left_knee", "right_knee"), ("right_knee",))))


def columns(n: int) -> dict[str, Tensor]:
    alarm = torch.zeros(ROWS, n, JOINTS, dtype=torch.bool)
    return {"alarm": alarm, "probability": torch.zeros(ROWS, n, JOINTS)}


@pytest.fixture
def noticed(recording: Callable[..., Recording]) -> Recording:
    """Knees that break at row 10: noticed at once, late, never, too early, at the fall, after it; fallen before."""
    joints: list[str | None] = ["left_knee"] * 7 + [None]
    detail = columns(8)
    alarm = detail["alarm"]
    alarm[11:, 0, KNEE] = True
    alarm[12:15, 1, TORSO] = True
    alarm[15:, 1, KNEE] = True
    alarm[:11, 3, KNEE] = True  # the decision of row 10 was taken before anything could show
    alarm[20, 4, KNEE] = True  # decided before the step in which it falls
    alarm[21:, 5, KNEE] = True  # of its next episode
    alarm[11:, 6, KNEE] = alarm[11:, 7, KNEE] = True
    end = torch.tensor([ROWS, ROWS, ROWS, ROWS, 20, 20, 9, ROWS])
    return recording(joints, [10] * 8, ROWS, 0.02, end=end, **detail)


def test_delays_count_control_periods_from_the_onset(noticed: Recording) -> None:
    assert detection.delays(noticed) == pytest.approx([20.0, 100.0, math.inf, math.inf, 200.0, math.inf])


def test_the_first_alarm_within_a_second_is_what_it_took_the_fault_for(noticed: Recording) -> None:
    assert noticed.alarm is not None
    noticed.alarm[61:, 2, KNEE] = True  # row 61 is the 51st decision: more than a second
    matrix = detection.confusion(noticed)
    expected = np.zeros((JOINTS + 1, JOINTS + 1), dtype=int)
    expected[KNEE, KNEE], expected[KNEE, TORSO], expected[KNEE, JOINTS] = 2, 1, 3
    assert np.array_equal(matrix, expected)
    noticed.alarm[60, 2, KNEE] = True
    assert detection.confusion(noticed)[KNEE, KNEE] == 3


def test_of_two_alarms_at_once_the_more_probable_counts(noticed: Recording) -> None:
    assert noticed.alarm is not None and noticed.probability is not None
    noticed.alarm[11, 0, TORSO] = True
    noticed.probability[11, 0, TORSO], noticed.probability[11, 0, KNEE] = 0.9, 0.8
    assert detection.confusion(noticed)[KNEE, TORSO] == 2
    noticed.probability[11, 0, KNEE] = 0.95
    assert detection.confusion(noticed)[KNEE, TORSO] == 1


def test_missed_faults_are_infinitely_late(noticed: Recording) -> None:
    figures = detection.detection_metrics(noticed)
    # 20, 100, 200, ∞, ∞, ∞: no quantile is interpolated towards infinity.
    assert (figures["faults"], figures["missed"]) == (6, 0.5)
    assert figures["delay_ms_median"] is None and figures["delay_ms_p95"] is None
    assert figures["delays_ms"] == [pytest.approx(20), pytest.approx(100), None, None, pytest.approx(200), None]
    # One joint fails: 2 hits, no other joint taken for it, 6 true ones.
    assert figures["macro_f1"] == pytest.approx(2 * 2 / (6 + 2))


def test_no_faults_no_figures(recording: Callable[..., Recording]) -> None:
    figures = detection.detection_metrics(recording([None, None], [1, 1], ROWS, 0.02, **columns(2)), TABLE)
    keys = ("delay_ms_median", "delay_ms_p95", "missed", "macro_f1", "switch_ms_median", "switch_ms_p95")
    assert [figures[k] for k in keys] == [None] * 6
    with pytest.raises(KoboshiError, match="detail=True"):
        detection.delays(recording([None], [1], 5, 0.02))


def test_each_fault_counts_while_it_lasts(recording: Callable[..., Recording]) -> None:
    faults = (
        Fault("left_knee", onset_s=0.2, duration_s=0.2),  # rows 10 to 19; decisions 11 to 20 can know of it
        Fault("right_knee", onset_s=0.6),  # row 30, after the first is over
        Fault("torso", onset_s=0.4),  # row 20
        Fault("left_elbow", onset_s=1.2),  # row 60: it has fallen by then
    )
    detail = columns(1)
    alarm = detail["alarm"]
    alarm[21:, 0, KNEE] = True  # too late
    alarm[33:, 0, RIGHT] = alarm[22:, 0, TORSO] = True
    found = recording([faults], [10], ROWS, 0.02, end=torch.tensor([50]), **detail)
    assert detection.delays(found) == pytest.approx([math.inf, 60, 40])
    alarm[20, 0, KNEE] = True
    assert detection.delays(found) == pytest.approx([200, 60, 40])
    matrix = detection.confusion(found)
    # The left knee's alarm stands still when the right knee breaks and is not true any more.
    assert (matrix[KNEE, KNEE], matrix[TORSO, TORSO], matrix[RIGHT, KNEE]) == (1, 0, 1)
    assert matrix[TORSO, KNEE] == 1 and matrix.sum() == 3
    alarm[21:, 0, KNEE] = False
    matrix = detection.confusion(found)
    # Now the torso's alarm stands when the right knee breaks, and is true.
    assert (matrix[KNEE, KNEE], matrix[TORSO, TORSO], matrix[RIGHT, RIGHT]) == (1, 1, 1)


def test_the_switch_counts_when_a_member_that_serves_the_joint_acts(recording: Callable[..., Recording]) -> None:
    member = torch.full((ROWS, 3), -1, dtype=torch.int16)
    member[5:13, 0] = 1  # has acted all along: the first decision that counts is that of row 11
    member[12:, 1] = 0
    member[14:, 1] = 1
    member[12:, 2] = 0
    found = recording(["right_knee"] * 3, [10] * 3, ROWS, 0.02, member=member, **columns(3))
    assert detection.switch_delays(found, TABLE) == pytest.approx([20, 80, math.inf])
    figures = detection.detection_metrics(found, TABLE)
    assert figures["switches_ms"] == [pytest.approx(20), pytest.approx(80), None]
    assert figures["switch_ms_median"] == pytest.approx(80) and figures["switch_ms_p95"] is None
    assert not detection.serving(TABLE, UNITREE_H1)[-1].any()


class Scripted:
    """A controller that alarms the joints of row t of `script` (T, N), −1 for none, and moves nothing."""

    def __init__(self, script: Tensor) -> None:
        self.script = script
        self.resets: list[Tensor] = []

    def initial_state(self, *_: object) -> int:
        return 0

    def act(self, obs: dict[str, Tensor], reset: Tensor, state: int) -> tuple[Decision, int]:
        self.resets.append(reset.clone())
        joint = self.script[state]
        n = len(joint)
        alarm = torch.nn.functional.one_hot(joint + 1, JOINTS + 1)[:, 1:].bool()
        route = Route(
            torch.full((n,), -1),
            torch.zeros(n, dtype=torch.bool),
            Belief(alarm.float(), alarm, alarm.repeat(1, len(KINDS)).float()),
        )
        return Decision(torch.zeros(n, JOINTS), route), state + 1


NOW = AlarmCfg(threshold=0.5, persistence=1, release_threshold=0.5, release_steps=1)


def test_false_alarms_of_several_settings_in_one_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    script = torch.full((10, 2), -1)
    script[:, 0] = torch.tensor([-1, 3, 3, -1, 3, 5, 5, 5, 5, -1])
    script[5:, 1] = torch.tensor([7, 7, 7, 7, 7])
    cfg = replace(make_task("h1-dead-joint").env, episode_length_s=8 * 0.02)  # a new episode after row 8
    hours = 9.5 * 2 * 0.02 / 3600
    settings = [NOW, replace(NOW, persistence=2), replace(NOW, persistence=4), replace(NOW, release_steps=2)]
    told = detection.false_alarms(cfg, Scripted(script), hours, 2, 0, lambda t: None)
    found = detection.alarms_of_settings(cfg, Scripted(script), settings, hours, 2, 0, lambda t: None)
    assert found[0] | {"healthy_falls": 0} == told and told["false_alarms"] == 6
    # Two rows in a row: 3 in rows 1, 2; 5 in rows 5 … 7; 7 in rows 5 … 7 and in 8, 9 of the new episode.
    # Four: none, for the new episode begins counting anew. Released late: 3 is raised once in rows 1 … 4.
    assert [each["false_alarms"] for each in found[1:]] == [4, 0, 5]


def test_delays_of_another_setting(noticed: Recording) -> None:
    assert noticed.alarm is not None
    with_beliefs = replace(noticed, probability=noticed.alarm.float() * 0.8)
    assert detection.delays_of_setting(with_beliefs, NOW).tolist() == detection.delays(noticed).tolist()
    later = detection.delays_of_setting(with_beliefs, replace(NOW, persistence=3))
    assert later == pytest.approx([60.0, 140.0, math.inf, math.inf, math.inf, math.inf])
    assert np.isinf(detection.delays_of_setting(with_beliefs, replace(NOW, threshold=0.9))).all()


def test_an_alarm_is_false_once_when_it_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[Env] = []
    monkeypatch.setattr(Env, "settle", lambda env: settled.append(env))
    script = torch.full((10, 2), -1)
    script[:, 0] = torch.tensor([-1, 3, 3, -1, 3, 5, 5, 5, 5, -1])  # raised, again, another joint: 3, and …
    script[5:, 1] = torch.tensor([7, 7, 7, 7, 7])  # … 1, and …
    cfg = replace(make_task("h1-dead-joint").env, episode_length_s=8 * 0.02)  # … 1 each in the new episode after row 8
    controller: Any = Scripted(script)
    seen: list[int] = []
    figures = detection.false_alarms(cfg, controller, 9.5 * 2 * 0.02 / 3600, 2, 0, seen.append)
    assert [r.tolist() for r in controller.resets[7:]] == [[False, False], [True, True], [False, False]]
    assert seen == list(range(1, 11)) and len(settled) == 1
    assert figures["false_alarms"] == 6
    assert figures["healthy_hours"] == pytest.approx(20 * 0.02 / 3600)
    assert figures["false_alarms_per_hour"] == pytest.approx(6 / (20 * 0.02 / 3600))
    assert figures["healthy_falls"] == 0, "episodes end by themselves"
    low = replace(cfg, terminations={"all": TerminationTerm(lambda env: torch.tensor([True, False]))})
    fallen = detection.false_alarms(low, Scripted(script), 9.5 * 2 * 0.02 / 3600, 2, 0, seen.append)
    assert fallen["healthy_falls"] == 10, "one robot falls in every step, the last one too"
