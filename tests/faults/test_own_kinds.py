"""Kinds of fault from outside: known, at work, and refused by name; built-in ones keep their indices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import worlds

from koboshi import config, plugins
from koboshi.envs import Env
from koboshi.errors import KoboshiError
from koboshi.faults import KINDS, Fault, Scenario, Scenarios, check_fault
from koboshi.robots import UNITREE_H1
from koboshi.tasks import make_task

pytestmark = pytest.mark.usefixtures("as_before")

KNEE = UNITREE_H1.joint_id("left_knee")
SHIPPED = [
    "torque_loss", "locked", "limited_range", "braking", "encoder_offset", "encoder_freeze", "torque_sensor_loss"
]  # fmt: skip
OWN = """
import torch
from koboshi.faults.kinds import FaultKind, FieldEffect

def rust(value, severity, held):
    return value + 20 * severity

def pinned(value, severity, held):
    ends = torch.stack((held, held), dim=-1)
    return torch.where(severity[..., None] > 0, ends, value)

FAULTS = {
    "rust": FaultKind("20 s N·m of dry friction", (FieldEffect("dof_frictionloss", "dof", rust),)),
    "pinned": FaultKind("no play", (FieldEffect("jnt_range", "joint", pinned),), needs_range=True, captures=True),
}
"""


def load(folder: Path, text: str = OWN) -> None:
    (folder / "own.py").write_text(text)
    plugins.load([str(folder / "own.py")])


def scripted(*episodes: list[Fault]) -> Env:
    return Env(worlds.scripted(worlds.endless(worlds.clean(worlds.h1())), *episodes))


def test_they_stand_behind_those_that_ship(tmp_path: Path) -> None:
    assert KINDS == SHIPPED, "data sets and stored states hold these indices: add new ones at the end"
    load(tmp_path)
    assert [*SHIPPED, "rust", "pinned"] == KINDS
    load(tmp_path)  # a second time does nothing
    assert len(KINDS) == 9


def test_one_is_forgotten_after_a_test() -> None:
    assert KINDS == SHIPPED


def test_one_acts_is_labelled_and_heals(tmp_path: Path) -> None:
    load(tmp_path)
    env = scripted([Fault("left_knee", "rust", 0.5, 0.04, 0.04)], [Fault("left_knee", "braking", 0.5, 0.04, 0.04)], [])
    env.reset(0)
    friction = env.backend.expand("dof_frictionloss")[:, 6 + KNEE]
    own = friction[0].item()
    for expected, kind in ((0, -1), (0, -1), (10, 7), (10, 7), (0, -1)):
        env.step(torch.zeros(3, 19))
        assert (friction - own).tolist() == pytest.approx([expected, 0, 0], abs=1e-5)
        assert env.faults.kind[0, KNEE] == kind


def test_one_may_hold_on_to_where_the_joint_was(tmp_path: Path) -> None:
    load(tmp_path)
    env = scripted([Fault("left_knee", "pinned", 1.0, 0.04)])
    env.reset(0)
    for _ in range(2):
        env.step(torch.full((1, 19), 0.3))
    at = env.state.joint_pos[0, KNEE].item()
    env.step(torch.full((1, 19), 0.3))
    assert env.backend.expand("jnt_range")[0, 1 + KNEE].tolist() == pytest.approx([at, at], abs=1e-6)


def test_one_is_a_setting_and_in_scenario_files(tmp_path: Path) -> None:
    task = make_task("h1-dead-joint")
    with pytest.raises(KoboshiError, match="no fault kind 'rust'"):
        config.override(task, ["faults.kinds=[rust]"])
    load(tmp_path)
    found = config.override(task, ["faults.kinds=[rust,locked]"]).faults
    assert found is not None and found.kinds == ("rust", "locked")
    saved = Scenarios("unitree_h1", 1, (Scenario((Fault("left_knee", "rust"),), (0.5, 0.0, 0.0), 2.0),))
    saved.save(tmp_path / "scenarios.json")
    assert Scenarios.load(tmp_path / "scenarios.json") == saved
    check_fault(UNITREE_H1, "left_knee", "pinned")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"rust"', '"locked"', "the fault kind 'locked' is taken; kinds: torque_loss, locked"),
        ('"rust"', '"a:b"', "a fault kind's name is of letters, digits and _, not 'a:b'"),
        ('(FieldEffect("dof_frictionloss", "dof", rust),)', "()", "fault kind 'rust' has no effects"),
        ('"dof_frictionloss"', '"dof_rust"', "fault kind 'rust' changes 'dof_rust', and a MuJoCo model has no such"),
        ('"dof", rust', '"knees", rust', "no columns of fault kind 'rust' 'knees'"),
        ('"pinned": FaultKind', '"pinned": lambda: 1, "b": FaultKind', "is a function, and"),
        ("FAULTS = {", "FAULTS = [1] or {", "is a list, and a dict is wanted"),
    ],
)
def test_one_that_cannot_be_is_refused_by_name(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert OWN.count(old) == 1
    with pytest.raises(KoboshiError) as error:
        load(tmp_path, OWN.replace(old, new))
    assert says in str(error.value)
    assert KINDS == SHIPPED, "all or nothing"


def test_the_command_line_shows_one(tmp_path: Path, koboshi: Any) -> None:
    (tmp_path / "own.py").write_text(OWN)
    result = koboshi("list", "faults", "--module", tmp_path / "own.py", "--out", tmp_path)
    assert result.code == 0, result.err
    assert "20 s N·m of dry friction" in result.out and (tmp_path / "faults.png").is_file()
