"""What is kept of an episode, worked out by hand from recordings of few steps; 10 control steps a second."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from koboshi import robots
from koboshi.bench.episode_columns import columns, pooled
from koboshi.bench.strain import NO_KIND, NOT_ASKED, Strain
from koboshi.faults import KINDS, Fault

H1 = robots.find("unitree_h1")
J = len(H1.joint_names)
KNEE, TORSO = H1.joint_id("left_knee"), H1.joint_id("torso")
DT, HANDOVER, ONSET, SECONDS = 0.1, 25, 30, 2.0
STEPS = ONSET + 20


def alarms(*raised: tuple[int, int, int, int]) -> torch.Tensor:
    """(T, 4, J): (episode, joint, first, one past the last) decisions with an alarm."""
    found = torch.zeros(STEPS, 4, J, dtype=torch.bool)
    for episode, joint, first, last in raised:
        found[first:last, episode, joint] = True
    return found


@pytest.fixture
def made(recording: Callable[..., Any]) -> Callable[..., dict[str, list[Any]]]:
    """made(ends, alarms, loads): the columns of four robots: knee dead twice, knee and torso, nothing."""

    def make(ends: list[int], alarm: torch.Tensor, loads: dict[tuple[int, int], int]) -> dict[str, list[Any]]:
        pair = (Fault("left_knee", onset_s=3.0), Fault("torso", onset_s=3.2))
        found = recording(
            ["left_knee", "left_knee", pair, None], [ONSET] * 4, STEPS, DT,
            end=torch.tensor(ends), alarm=alarm, probability=alarm.float(),
            command=torch.tensor([1.0, 0.0, 0.0]), velocity=torch.tensor([1.0, 0.0, 0.0]).expand(STEPS, 4, 3),
        )  # fmt: skip
        strain = Strain(found.scenarios, DT, SECONDS, True)
        for (episode, joint), step in loads.items():
            strain.first_load[episode, joint] = step
        return columns(found, strain, SECONDS, detects=True)

    return make


def test_falls_before_and_after_the_handover(made: Callable[..., Any]) -> None:
    rows = made([STEPS, HANDOVER - 1, HANDOVER, STEPS], alarms(), {})
    assert rows["survived"] == [True, None, False, True], "who falls before the handover is nobody's fault"
    assert rows["recovered"] == [True, None, False, True]
    assert rows["progress"] == [1.0, None, 0.0, 1.0]
    assert rows["vx_rmse"] == [0.0, None, None, 0.0]
    assert rows["fell_s"] == pytest.approx([None, -0.6, -0.5, None])
    assert rows["felt"] == [[True], [False], [False, False], []]
    late = made([STEPS, ONSET + 15, ONSET, STEPS], alarms(), {})
    assert late["survived"] == [True, False, False, True]
    assert late["fell_s"] == [None, pytest.approx(1.5), 0.0, None]
    assert late["felt"] == [[True], [True], [False, False], []], "no decision lies between onset and fall"


def test_delays_and_loads_count_from_each_onset(made: Callable[..., Any]) -> None:
    # Decision 31 is the first that can know of a fault that acts from step 30 on: one control period.
    alarm = alarms((0, KNEE, 31, 46), (2, KNEE, 36, 46), (2, TORSO, 33, 46))
    rows = made([STEPS] * 4, alarm, {(0, KNEE): 30, (2, KNEE): 33, (2, TORSO): 45})
    assert rows["delay_ms"] == [[100.0], [None], [pytest.approx(600), pytest.approx(100)], []]
    assert rows["load_ms"] == [[100.0], [None], [pytest.approx(400), pytest.approx(1400)], []]
    # A robot that falls in step 33 decides in that step for the last time; decision 34 is of the next episode.
    assert made([33, STEPS, 33, STEPS], alarms((0, KNEE, 34, 46), (2, KNEE, 33, 34)), {})["delay_ms"] == [
        [None], [None], [pytest.approx(300), None], []
    ]  # fmt: skip


def test_sets_are_named_after_the_last_onset(made: Callable[..., Any]) -> None:
    rows = made([STEPS, 35, STEPS, STEPS], alarms((0, KNEE, 31, 46), (2, TORSO, 36, 46), (2, KNEE, 38, 46)), {})
    assert rows["named_0.2"] == [[KNEE], [], [], []]
    assert rows["named_0.5"] == [[KNEE], [], [TORSO], []], "the pair's last onset is two steps later, step 37"
    assert rows["named_1"] == [[KNEE], None, sorted([KNEE, TORSO]), []]
    assert rows["named_5"] == [None] * 4


def test_false_alarms_are_those_raised_on_joints_that_are_well(made: Callable[..., Any]) -> None:
    alarm = alarms(
        (0, KNEE, 27, 28),  # before it breaks
        (0, TORSO, 20, 27),  # stands at the handover
        (0, KNEE, 33, 46),
        (1, TORSO, 28, 30), (1, TORSO, 35, 36), (1, TORSO, 41, 42),  # the last one after its fall
        (3, KNEE, 10, 24),  # gone at the handover
    )  # fmt: skip
    rows = made([STEPS, 40, STEPS, STEPS], alarm, {})
    assert rows["false"] == [2, 2, 0, 0]
    assert rows["alive_s"] == pytest.approx([2.5, 1.6, 2.5, 2.5])


def test_batches_are_pooled_in_order() -> None:
    assert pooled([{"a": [1, 2]}, {"a": [3]}]) == {"a": [1, 2, 3]}


class _Step:
    """An environment of one robot as `Strain` sees it."""

    def __init__(self, target: float, torque: float, fell: bool = False) -> None:
        self.device = torch.device("cpu")
        self.terminated = torch.tensor([fell])
        zeros = torch.zeros(1, J)
        self.ctrl = zeros.clone()
        self.ctrl[0, KNEE] = target
        self.joints = SimpleNamespace(actuator=torch.arange(J))
        torques = zeros.clone()
        torques[0, [KNEE, TORSO]] = torch.tensor([300.0, torque])
        self.state = SimpleNamespace(joint_pos=zeros, joint_vel=zeros, joint_torque=torques)


def decision(levels: torch.Tensor | None = None) -> Any:
    belief = SimpleNamespace(levels=torch.zeros(1, len(KINDS) * J) if levels is None else levels)
    return SimpleNamespace(route=SimpleNamespace(belief=belief))


def test_strain_is_that_of_healthy_joints_and_loads_are_asked_for(recording: Callable[..., Any]) -> None:
    found = recording(["left_knee"], [2], 20, DT)
    strain = Strain(found.scenarios, DT, 0.5, False)
    # The knee's law is 200 N·m/rad and 300 N·m at most, so 5 % are asked for from 0.075 rad on; the torso has 200 N·m.
    for target, torque in ((1.0, 190.0), (0.0, 180.0), (0.07, 50.0), (0.08, 80.0), (1.0, 20.0)):
        strain(_Step(target, torque), decision())
    assert strain.first_load[0, KNEE] == 3 and strain.first_load.max() == 3
    assert strain.peak[0] == pytest.approx(0.4)
    strain(_Step(0.0, 150.0, fell=True), decision())
    strain(_Step(0.0, 160.0), decision())
    assert strain.peak[0] == pytest.approx(0.4), "after a fall another episode has begun"
    assert (strain.kind == NOT_ASKED).all()


def test_kinds_are_asked_for_a_second_after_the_last_onset(recording: Callable[..., Any]) -> None:
    found = recording(["left_knee"], [2], 20, DT)
    strain = Strain(found.scenarios, DT, 2.0, True)
    for t in range(16):
        levels = torch.zeros(1, len(KINDS), J)
        levels[0, 1 if t == 12 else 2, KNEE] = 0.5
        strain(_Step(0.0, 0.0), decision(levels.flatten(1)))
    assert strain.kind[0, KNEE] == 1 and strain.kind[0, TORSO] == NO_KIND
    fallen = Strain(found.scenarios, DT, 2.0, True)
    for t in range(16):
        fallen(_Step(0.0, 0.0, fell=t == 5), decision(torch.ones(1, len(KINDS) * J)))
    assert (fallen.kind == NOT_ASKED).all(), "its next episode says nothing of this one"
    assert not math.isnan(strain.peak[0])
