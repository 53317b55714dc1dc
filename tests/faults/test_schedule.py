"""Who breaks: by chance or by the environment's index, within the ranges asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from koboshi.envs import Env
from koboshi.envs.cfg import EventTerm
from koboshi.envs.terms import events
from koboshi.errors import KoboshiError
from koboshi.faults import KINDS, FaultSchedule, FaultState
from koboshi.faults.state import NEVER
from koboshi.robots import UNITREE_H1
from koboshi.sim import make_backend
from koboshi.tasks.h1_walk import env_cfg

J, DT = 19, 0.02
ANKLES = UNITREE_H1.joint_ids(".*_ankle")


def state_of(num_envs: int) -> FaultState:
    from koboshi.envs.scene import build_model

    return FaultState(make_backend("cpu", build_model(UNITREE_H1, env_cfg().sim), num_envs), UNITREE_H1, KINDS, DT)


@pytest.fixture(scope="module")
def faults() -> FaultState:
    return state_of(64)


def draw(faults: FaultState, schedule: FaultSchedule, seed: int = 0) -> None:
    everyone = torch.arange(len(faults.severity))
    faults.clear(everyone)
    faults.draw(everyone, schedule, torch.Generator().manual_seed(seed))


@st.composite
def schedules(make: st.DrawFn) -> FaultSchedule:
    pair = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted).map(tuple)
    joints = make(st.none() | st.lists(st.sampled_from(UNITREE_H1.joint_names), min_size=4, unique=True).map(tuple))
    return FaultSchedule(
        probability=make(st.sampled_from([0.0, 0.5, 1.0])),
        joints=joints,
        kinds=make(st.lists(st.sampled_from(KINDS), min_size=1, unique=True).map(tuple)),
        num_joints=make(st.tuples(st.integers(1, 4), st.integers(1, 4)).map(sorted).map(tuple)),
        severity=make(pair),
        onset_s=tuple(10 * t for t in make(pair)),
    )


@settings(max_examples=60, deadline=None)
@given(schedule=schedules(), seed=st.integers(0, 2**31))
def test_ranges_are_respected(faults: FaultState, schedule: FaultSchedule, seed: int) -> None:
    schedule.validate()
    draw(faults, schedule, seed)
    broken = faults.planned > 0
    low, high = schedule.severity
    assert (faults.planned[broken] >= low - 1e-6).all() and (faults.planned <= high + 1e-6).all()
    assert torch.equal(faults.onset < NEVER, broken)
    first, last = (round(t / DT) for t in schedule.onset_s)
    assert (faults.onset[broken] >= first).all() and (faults.onset[broken] <= last).all()
    assert {KINDS[k] for k in faults.kind[broken].tolist()} <= set(schedule.kinds)
    allowed = schedule.joints or UNITREE_H1.fault_candidates
    assert {UNITREE_H1.joint_names[j] for j in broken.nonzero()[:, 1].tolist()} <= set(allowed)
    number = broken.sum(1)
    if low > 0:
        assert ((number == 0) | ((number >= schedule.num_joints[0]) & (number <= schedule.num_joints[1]))).all()
        assert bool((number > 0).all()) or schedule.probability < 1
    if schedule.probability == 0:
        assert not broken.any()


def test_every_candidate_and_both_ends_occur(faults: FaultState) -> None:
    count, onsets, numbers = torch.zeros(J), set(), set()
    schedule = FaultSchedule(num_joints=(1, 3), onset_s=(1.0, 1.1), probability=0.5)
    for seed in range(10):
        draw(faults, schedule, seed)
        count += (faults.planned > 0).sum(0)
        onsets |= set(faults.onset[faults.onset < NEVER].tolist())
        numbers |= set((faults.planned > 0).sum(1).tolist())
    assert count[ANKLES].sum() == 0
    assert sorted(torch.nonzero(count).flatten().tolist()) == sorted(set(range(J)) - set(ANKLES))
    assert onsets == {50, 51, 52, 53, 54, 55}
    assert numbers == {0, 1, 2, 3}
    assert count.sum().item() == pytest.approx(640 * 0.5 * 2, rel=0.15)


def test_only_the_ids_are_drawn(faults: FaultState) -> None:
    faults.clear(torch.arange(64))
    faults.draw(torch.tensor([3, 9]), FaultSchedule(), torch.Generator().manual_seed(0))
    assert (faults.planned > 0).any(1).nonzero().flatten().tolist() == [3, 9]


def test_groups_follow_the_index() -> None:
    groups = (("left_knee", "right_knee"), ("torso",), ("left_elbow", "right_elbow", "left_ankle"))
    faults = state_of(12)
    schedule = FaultSchedule(groups=groups)
    draw(faults, schedule)
    expected = [groups[i // 4][i % len(groups[i // 4])] for i in range(12)]
    assert [UNITREE_H1.joint_names[j] for j in faults.planned.argmax(1).tolist()] == expected
    assert torch.equal(faults.planned.sum(1), torch.ones(12))
    faults.clear(torch.arange(12))
    faults.draw(torch.tensor([5, 10]), schedule, torch.Generator().manual_seed(1))
    assert faults.planned.nonzero().tolist() == [[i, UNITREE_H1.joint_id(expected[i])] for i in (5, 10)]
    with pytest.raises(KoboshiError, match="12 environments cannot be divided among 5 groups"):
        draw(faults, FaultSchedule(groups=(("torso",),) * 5))


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (FaultSchedule(probability=1.5), "probability is from 0 to 1, not 1.5"),
        (FaultSchedule(severity=(0.5, 0.2)), r"ascending, not \(0.5, 0.2\)"),
        (FaultSchedule(severity=(0.5, 2.0)), r"from 0 to 1, ascending, not \(0.5, 2.0\)"),
        (FaultSchedule(onset_s=(-1.0, 2.0)), "onsets are ≥ 0 s"),
        (FaultSchedule(onset_s=(3.0, 2.0)), "onsets are ≥ 0 s, ascending"),
        (FaultSchedule(num_joints=(0, 1)), "at least one joint"),
        (FaultSchedule(num_joints=(2, 1)), "ascending, not"),
        (FaultSchedule(kinds=("torque_los",)), "no fault kind 'torque_los'; did you mean 'torque_loss'"),
        (FaultSchedule(kinds=()), "kinds are at least one"),
        (FaultSchedule(joints=()), "joints are at least one"),
        (FaultSchedule(joints=("torso", "torso")), "joints are at least one and none twice"),
        (FaultSchedule(groups=()), "groups name at least one joint each"),
        (FaultSchedule(groups=(("torso",), ())), "groups name at least one joint each"),
    ],
)
def test_wrong_schedules_are_refused_before_anything_runs(schedule: FaultSchedule, message: str) -> None:
    with pytest.raises(KoboshiError, match=message):
        schedule.validate()
    event = EventTerm(events.change_joint_torque, params={"schedule": schedule})
    with pytest.raises(KoboshiError, match=message):
        Env(replace(env_cfg(), num_envs=2, events={"fault": event}))


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (FaultSchedule(joints=("left_kne",)), "no joint 'left_kne'; did you mean 'left_knee'"),
        (FaultSchedule(groups=(("torzo",),)), "no joint 'torzo'; did you mean 'torso'"),
        (FaultSchedule(joints=("torso",), num_joints=(1, 2)), "up to 2 joints of only 1 candidates"),
    ],
)
def test_joints_that_are_not_there(faults: FaultState, schedule: FaultSchedule, message: str) -> None:
    with pytest.raises(KoboshiError, match=message):
        draw(faults, schedule)
