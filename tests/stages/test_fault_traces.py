"""`koboshi list faults`: what each kind does at a joint of the robot that walks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koboshi.errors import KoboshiError
from koboshi.faults import KINDS
from koboshi.faults.kinds import ENCODER_OFFSET
from koboshi.stages import fault_traces
from koboshi.tasks import make_task


def test_each_kind_beside_a_twin_that_stays_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kinds' own definitions, on the H1 that ships; before the onset nothing differs."""
    drawn: list[Any] = []
    draw = fault_traces.plots.fault_traces
    monkeypatch.setattr(fault_traces.plots, "fault_traces", lambda *args: (drawn.append(args), draw(*args)))
    path = fault_traces.picture(make_task("h1-walk"), None, tmp_path)
    title, well, broken, _ = drawn[0]
    assert title.startswith("left_knee of unitree_h1") and path.read_bytes().startswith(b"\x89PNG")
    assert list(broken) == KINDS and all(tuple(levels) == (0.5, 1.0) for levels in broken.values())
    before, after = well.time < 0.001, well.time > 0.001
    assert before.sum() == 15 and after.sum() == 35
    assert abs(well.torque).max() > 50 and np.ptp(well.angle) > 0.2, "it walks"
    for levels in broken.values():
        for trace in levels.values():
            for name in ("angle", "shown_angle", "torque", "shown_torque"):
                np.testing.assert_allclose(getattr(trace, name)[before], getattr(well, name)[before], atol=1e-4)
    dead, locked = broken["torque_loss"][1.0], broken["locked"][1.0]
    assert (dead.torque[after] == 0).all() and np.ptp(dead.angle) > 0.8
    assert np.ptp(locked.angle[after]) < 0.5 * np.ptp(well.angle[after])
    off, frozen, deaf = (broken[kind][0.5] for kind in ("encoder_offset", "encoder_freeze", "torque_sensor_loss"))
    np.testing.assert_allclose((off.shown_angle - off.angle)[after], 0.5 * ENCODER_OFFSET, atol=1e-5)
    held = 2 * frozen.shown_angle[after] - frozen.angle[after]
    np.testing.assert_allclose(held, well.angle[before][-1], atol=1e-4)
    np.testing.assert_allclose(deaf.shown_torque[after], 0.5 * deaf.torque[after], atol=1e-4)
    np.testing.assert_allclose(deaf.torque, well.torque, atol=1e-3)


def test_only_kinds_that_the_joint_can_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(fault_traces.plots, "fault_traces", lambda *args: drawn.append(args))
    monkeypatch.setattr(fault_traces, "can_have", lambda robot, joint, kind: kind == "braking")
    fault_traces.picture(make_task("go2-flat"), "RL_calf_joint", tmp_path)
    assert list(drawn[0][2]) == ["braking"] and drawn[0][0].startswith("RL_calf_joint of unitree_go2")
    with pytest.raises(KoboshiError, match="no joint 'calf'"):
        fault_traces.picture(make_task("go2-flat"), "calf", tmp_path)
    with pytest.raises(KoboshiError, match="no controller of task 'h1-velocity' is shipped"):
        fault_traces.picture(make_task("h1-velocity"), None, tmp_path)
