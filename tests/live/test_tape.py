"""What was watched becomes a trajectory: faults and alarms with their times, and who acted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from koboshi.errors import KoboshiError
from koboshi.faults import Fault
from koboshi.live import Moment
from koboshi.live.moment import HEALTHY
from koboshi.live.tape import LONGEST_S, Tape
from koboshi.view import AlarmMark, FaultMark

NAMES, DT = ("left_knee", "right_knee"), 0.02
DEAD, WEAK = Fault("left_knee"), Fault("left_knee", severity=0.5)


def moment(step: int, alarm: tuple[bool, bool] | None = (False, False), **changes: Any) -> Moment:
    listens = alarm is not None
    fields: dict[str, Any] = {
        "time": 7.0 + step * DT, "qpos": np.full(9, float(step)), "command": np.zeros(3, np.float32),
        "velocity": np.zeros(3, np.float32), "controller": "ours", "actor": HEALTHY,
        "probability": np.array(alarm, np.float32) if listens else None,
        "alarm": np.array(alarm) if listens else None, "faults": {}, "fell": False, "levels": None, "listens": listens,
    }  # fmt: skip
    return Moment(**(fields | changes))


def taped(*moments: Moment) -> Tape:
    tape = Tape(NAMES, DT)
    for each in moments:
        tape.add(each)
    return tape


def test_faults_alarms_and_actors_have_their_times() -> None:
    found = taped(
        moment(0),
        moment(1, faults={"left_knee": DEAD}),
        moment(2, (True, False), faults={"left_knee": DEAD}, actor="knee specialist"),
        moment(3, (True, False), faults={"left_knee": WEAK}, actor="knee specialist"),
        moment(4, (True, False), controller="theirs", faults={"right_knee": Fault("right_knee", "locked")}),
        moment(5, None, controller="theirs"),
    ).trajectory()
    assert found.fault == [
        FaultMark("left_knee", "torque_loss", 1.0, pytest.approx(0.02), pytest.approx(0.06)),
        FaultMark("left_knee", "torque_loss", 0.5, pytest.approx(0.06), pytest.approx(0.08)),
        FaultMark("right_knee", "locked", 1.0, pytest.approx(0.08), pytest.approx(0.10)),
    ]
    assert found.alarms == [AlarmMark("left_knee", pytest.approx(0.04))]
    assert found.actor == ["healthy", "healthy", "knee specialist", "knee specialist", "healthy", "healthy"]
    assert found.title == "ours → theirs" and found.qpos[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert found.probability is not None and found.probability[:, 0].tolist() == [0, 0, 1, 1, 1, 0]


def test_a_clock_that_stands_still_adds_nothing() -> None:
    tape = taped(moment(0), moment(0), moment(1), moment(1))
    assert tape.seconds == pytest.approx(2 * DT) and len(tape.trajectory().qpos) == 2
    with pytest.raises(KoboshiError, match="nothing was recorded"):
        taped().trajectory()


def test_nobody_listened() -> None:
    assert taped(moment(0, None), moment(1, None)).trajectory().probability is None


def test_it_is_full_after_a_minute() -> None:
    most = round(LONGEST_S / DT)
    tape = taped(*(moment(i) for i in range(most - 1)))
    assert not tape.full
    for i in range(most - 1, most + 5):
        tape.add(moment(i))
    assert tape.full and tape.seconds == pytest.approx(LONGEST_S)
