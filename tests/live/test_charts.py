"""The charts say what was, and names from files cannot become part of the page."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from koboshi.faults import KINDS, Fault
from koboshi.live import Moment, Note, charts
from koboshi.live.moment import HEALTHY

NAMES = ("left_knee", "right_knee", "torso")
WELL = charts.Health(1.0, 1.0, paused=False, too_slow=False, viewers=2)


def moment(**changes: Any) -> Moment:
    fields: dict[str, Any] = {
        "time": 10.0, "qpos": np.zeros(9), "command": np.zeros(3), "velocity": np.zeros(3), "controller": "ours",
        "actor": HEALTHY, "probability": np.array([0.9, 0.1, 0.0]), "alarm": np.array([True, False, False]),
        "faults": {"left_knee": Fault("left_knee", severity=0.4)}, "fell": False, "levels": None, "listens": True,
    }  # fmt: skip
    return Moment(**(fields | changes))


def test_status_tells_who_acts_and_what_is_broken() -> None:
    text = charts.status(moment(), WELL)
    assert ">healthy policy<" in text and "left_knee: torque loss 0.40" in text
    assert "1.00× real time" in text and "2 viewers" in text and "too slow" not in text
    assert ">knee specialist<" in charts.status(moment(actor="knee specialist"), WELL)
    assert "all joints well" in charts.status(moment(faults={}), WELL)
    assert "fell; stands up anew" in charts.status(moment(fell=True), WELL)


def test_a_slow_machine_is_told_and_a_still_clock() -> None:
    slow = charts.status(moment(), WELL._replace(pace=0.31, too_slow=True, viewers=1))
    assert "this machine is too slow: 0.31× of the 1.00× asked for" in slow and "1 viewer<" in slow
    assert "paused" in charts.status(moment(), WELL._replace(paused=True, pace=None))


def test_one_bar_a_joint_as_long_as_its_belief() -> None:
    text = charts.belief_bars(NAMES, moment())
    assert re.findall(r'data-joint="(\w+)" data-alarm="(\d)"', text) == [
        ("left_knee", "1"), ("right_knee", "0"), ("torso", "0")
    ]  # fmt: skip
    assert re.findall(r"width:([\d.]+)%", text) == ["90.0", "10.0", "0.0"]
    levels = np.zeros((len(KINDS), 3))
    levels[KINDS.index("braking"), 0], levels[KINDS.index("torque_loss"), 0] = 0.2, 0.5
    said = charts.belief_bars(NAMES, moment(levels=levels))
    assert "torque loss 0.7" in said and said.count("torque loss") == 1 and "braking" not in said
    assert "nobody listens" in charts.belief_bars(NAMES, moment(probability=None, alarm=None, listens=False))
    yet = charts.belief_bars(NAMES, moment(probability=None, alarm=None))
    assert yet.count("data-joint") == 3 and yet.count("0.00") == 3, "who listens and has heard nothing believes nothing"


def test_strips_begin_and_end_where_things_did() -> None:
    found = [
        moment(time=10.0 + i, actor=HEALTHY if i < 2 else "knee specialist", alarm=np.array([i >= 2, False, False]),
               faults={"left_knee": Fault("left_knee")} if i in (1, 2, 4) else {})
        for i in range(5)
    ]  # fmt: skip
    text = charts.timeline(NAMES, found, 4.0)
    assert re.findall(r">([^<>]+)</text>", text)[3:] == [
        "broken: left_knee", "alarm: left_knee", HEALTHY, "knee specialist"
    ]  # fmt: skip
    left, width = charts._LEFT, charts._WIDTH - charts._LEFT
    bars = [(float(x), float(w)) for x, w in re.findall(r'<rect x="([\d.]+)" y="\d+" width="([\d.]+)"', text)]
    second = width / 4
    # Broken twice, the second time just now; then the alarm, and both who acted.
    wanted = [(1, 1), (4, 0), (2, 2), (0, 1), (2, 2)]
    assert np.allclose(bars, [(left + x * second, max(w * second, 2.0)) for x, w in wanted], atol=0.1)
    assert charts.timeline(NAMES, [], 4.0) == ""


def test_notes_are_newest_first_and_few() -> None:
    text = charts.notes([Note(float(i), "fault", f"note {i}") for i in range(9)], count=3)
    assert re.findall(r"note \d", text) == ["note 8", "note 7", "note 6"]


def test_a_name_cannot_become_markup() -> None:
    bad = "<script>x</script>"
    for text in (
        charts.status(moment(actor=bad), WELL),
        charts.belief_bars((bad, "b", "c"), moment()),
        charts.timeline((bad, "b", "c"), [moment(actor=bad, faults={})], 4.0),
        charts.notes([Note(0.0, "switch", bad)]),
    ):
        assert "<script" not in text and "&lt;script" in text
