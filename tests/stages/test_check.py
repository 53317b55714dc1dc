"""`koboshi check`: every fault that is planted in a small sound robot is found by name, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from biped import biped
from koboshi.robots import PositionActuator, Robot, VelocityActuator
from koboshi.stages import check as stage
from koboshi.stages.check import check, standing_torques

APART = {"left_hip": 0.1, "right_hip": -0.1}
GAINS = PositionActuator(stiffness=50.0, damping=2.0, effort_limit=30.0)
KNEE, HIP = ' axis="0 1 0" range="-1 1" armature=".01"', ' range="-1 .5" armature=".01"'


def knees(new: str) -> list[tuple[str, str]]:
    return [(f'"{side}_knee"{KNEE}', f'"{side}_knee"{new}') for side in ("left", "right")]


def both(kind: str, part: str) -> set[tuple[str, str]]:
    return {(kind, f"left_{part}"), (kind, f"right_{part}")}


PLANTED: dict[str, tuple[list[tuple[str, str]], dict[str, Any], set[tuple[str, str]], str]] = {
    "armature": (knees(' axis="0 1 0" range="-1 1"'), {}, both("armature", "knee"), "rotor's inertia"),
    "limits": (knees(' axis="0 1 0" armature=".01"'), {}, both("limits", "knee"), "no range"),
    "pose": (
        knees(' axis="0 1 0" range="-1 .05" armature=".01"'), {}, both("pose", "knee"), "0.100 rad .* -1.000 to 0.050"
    ),
    "no feet": ([], {"feet": ()}, {("feet", "biped")}, "it has none"),
    "feet float": ([], {"base_height": 0.5}, both("feet", "foot"), "71 mm above the ground"),
    "feet sink": ([], {"base_height": 0.40}, both("feet", "foot"), "29 mm below the ground"),
    "no imu": ([], {"imu_site": None}, {("imu", "base")}, "the model's sites: imu"),
    "self-collision": (
        [('".2 .1 .05"', '".2 .1 .25"')], {},
        {("self_collision", "base, left_shank"), ("self_collision", "base, right_shank")}, "mm in each other",
    ),
    "other range": ([(HIP, ' range="-1 .6" armature=".01"')], {}, {("mirror", "biped")}, "'left_hip' has the range"),
    "other mass": (
        [('name="right_shank_rod" type="capsule" fromto="0 0 0 0 0 -.15" size=".02" mass=".5"',
          'name="right_shank_rod" type="capsule" fromto="0 0 0 0 0 -.15" size=".02" mass=".9"')],
        {"actuators": {".*": replace(GAINS, damping=4.0)}}, {("mirror", "biped")}, "masses or inertias differ by side",
    ),
    "other pose": ([], {"default_pose": {"left_knee": 0.1}}, both("mirror", "knee"), "is not its partner's"),
    "ringing gains": (
        [], {"actuators": {".*_knee": replace(GAINS, damping=0.2), ".*": GAINS}}, both("gains", "knee"), "ring: .* Hz"
    ),
    "slow gains": (
        [], {"actuators": {".*_knee": replace(GAINS, damping=30.0), ".*": GAINS}}, both("gains", "knee"), "slow: "
    ),
    "weak gains": (knees(KNEE + ' stiffness="200" springref=".1"'), {}, both("gains", "knee"), "weak: comes 20 % of"),
    "effort": (
        [], {"default_pose": APART, "actuators": {".*": replace(GAINS, effort_limit=1.3)}},
        both("effort", "hip"), "standing asks for 1.3 N·m, more than its effort limit of 1.3",
    ),
    "passive": (
        [], {"actuators": {".*_hip": GAINS}, "default_pose": {}, "group_patterns": {"hips": (".*",)}},
        both("passive", "knee"), "moves freely",
    ),
}  # fmt: skip


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes ten times as long as checking."""
    monkeypatch.setattr(stage, "plot_step_responses", lambda *_: b"")


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.usefixtures("no_picture")
def test_a_planted_fault_is_found(name: str, tmp_path: Path) -> None:
    edits, fields, expected, text = PLANTED[name]
    found = check(biped(*edits, **fields), tmp_path)
    assert {(finding.kind, finding.part) for finding in found} == expected, found
    for finding in found:
        assert re.search(text, finding.text), finding.text


def test_a_sound_robot_has_none_and_a_picture(tmp_path: Path) -> None:
    assert check(biped(), tmp_path / "new") == []
    assert (tmp_path / "new" / "step_response.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("no_picture")
def test_wheels_need_no_limits(tmp_path: Path) -> None:
    """And are asked for a speed; these are no wheels but shanks, which gravity holds back."""
    wheels = {".*_knee": VelocityActuator(damping=0.5, effort_limit=30.0), ".*": GAINS}
    found = check(biped(*knees(' axis="0 1 0" armature=".01"'), actuators=wheels, default_pose={}), tmp_path)
    assert {(finding.kind, finding.part) for finding in found} == both("gains", "knee")


@pytest.mark.usefixtures("no_picture")
def test_a_robot_without_sides_is_not_asked_for_them(tmp_path: Path) -> None:
    robot = biped((HIP, ' range="-1 .6" armature=".01"'), mirrored=False)
    assert check(robot, tmp_path) == []


def legs_apart(**fields: Any) -> Robot:
    return biped(default_pose=APART, **fields)


def test_standing_torques_by_hand() -> None:
    """Half of 8.2 kg on each foot, 0.4 sin 0.1 m beside its hip; thigh, shank and sole pull the other way."""
    foot = 0.4 * 0.0998334
    leg = 9.81 * 0.0998334 * (1.0 * 0.1 + 0.5 * 0.275 + 0.1 * 0.4)
    torque = 8.2 * 9.81 / 2 * foot - leg
    assert standing_torques(legs_apart()) == pytest.approx([-torque, 0, torque, 0], abs=1e-6)
    hanging = standing_torques(legs_apart(feet=()))
    assert hanging == pytest.approx([leg, 0, -leg, 0], abs=1e-6)
