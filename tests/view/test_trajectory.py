from collections.abc import Callable

import numpy as np
import pytest

from koboshi.errors import KoboshiError
from koboshi.view import AlarmMark, FaultMark, Trajectory


def test_times_and_rows(walk: Callable[..., Trajectory]) -> None:
    t = walk()
    assert t.duration == pytest.approx(1.0)
    assert [t.index(x) for x in (-1, 0.4, 0.409, 9)] == [0, 20, 20, 50]


def test_alarms_in_words(walk: Callable[..., Trajectory]) -> None:
    t = walk()
    assert t.delay_ms(t.alarms[0]) == pytest.approx(100)
    assert t.alarm_text(t.alarms[0]) == "noticed +100 ms"
    assert t.alarm_text(AlarmMark("right_knee", 0.5)) == "false alarm: right_knee"
    assert t.alarm_text(AlarmMark("left_knee", 0.3)) == "false alarm: left_knee"
    knees = [FaultMark("left_knee", "braking", 0.5, 0.2, 0.4), FaultMark("right_knee", "torque_loss", 1.0, 0.3)]
    two = walk(fault=knees)
    assert two.alarm_text(AlarmMark("right_knee", 0.36)) == "right_knee noticed +60 ms"
    assert two.delay_ms(AlarmMark("left_knee", 0.4)) is None  # it works again
    with pytest.raises(KoboshiError, match="did you mean 'left_knee'"):
        walk(alarms=[AlarmMark("left_kne", 0.1)])


def test_the_broken_joint_comes_first_then_the_likeliest(walk: Callable[..., Trajectory]) -> None:
    probability = np.tile([0.0, 0.9], (51, 1))
    assert walk(probability=probability).top_joints(2) == [0, 1]
    assert walk(probability=probability, fault=()).top_joints(1) == [1]
    assert walk(probability=None).top_joints(3) == []


@pytest.mark.parametrize(
    ("mark", "text"),
    [
        (FaultMark("torso", "torque_loss", 1.0, 3), "torso dead at 3.00 s"),
        (FaultMark("torso", "torque_loss", 0.7, 3), "torso at 30 % torque at 3.00 s"),
        (FaultMark("torso", "encoder_offset", 0.5, 1.5), "torso encoder offset 0.50 at 1.50 s"),
    ],
)
def test_a_fault_in_words(mark: FaultMark, text: str) -> None:
    assert mark.text == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"command": np.zeros((3, 3))}, r"command is \(3, 3\), expected \(51, 3\)"),
        ({"probability": np.zeros((51, 5))}, r"probability is \(51, 5\), expected \(51, 2\)"),
        ({"actor": ["healthy"]}, "actor"),
        ({"qpos": np.full((51, 9), np.nan)}, "NaN"),
        ({"fault": [FaultMark("left_kne", "torque_loss", 1, 0)]}, "did you mean 'left_knee'"),
    ],
)
def test_what_does_not_fit_is_named(walk: Callable[..., Trajectory], change: dict, message: str) -> None:
    with pytest.raises(KoboshiError, match=message):
        walk(**change)
