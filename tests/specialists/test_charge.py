"""From a set of alarmed joints to who is in charge, held to a table by hand and to a plain rule in Python."""

from __future__ import annotations

import random

import pytest
import torch
from bodies import H1, TINY, Body, told

from koboshi.errors import KoboshiError
from koboshi.faults import KINDS
from koboshi.specialists.assignment import Assignment, Member, assign
from koboshi.specialists.charge import SeatTable, own_seats

LK, LH, RK, RH, T = range(5)
BANK = Assignment(
    (
        Member("knee", ("left_knee", "right_knee"), ("right_knee",)),
        Member("leg", ("left_knee", "left_hip", "torso", "right_knee", "right_hip"), ("right_knee", "right_hip")),
    )
)
"""A specialist for a knee, one for a whole leg and the torso, both for the right side through the mirror."""


def after(bank: Assignment, sets: list[set[int]], probability: list[float] | None = None) -> list[tuple[int, bool]]:
    """Who is in charge of a tiny robot after each of these sets of alarms."""
    table, seen = SeatTable(bank, TINY), []
    charge = table.initial(1, "cpu")
    belief = torch.tensor([probability or [0.9] * 5])
    for joints in sets:
        alarm = torch.zeros(1, 5, dtype=torch.bool)
        alarm[0, list(joints)] = True
        charge = table.take(told(alarm), told(belief), None, charge)
        seen.append((int(charge.member), bool(charge.mirrored)))
    return seen


@pytest.mark.parametrize(
    ("joints", "who"),
    [
        (set(), (-1, False)),
        ({LK}, (0, False)),
        ({RK}, (0, True)),
        ({LH}, (1, False)),
        ({LK, LH}, (1, False)),
        ({RK, RH}, (1, True)),
        ({T}, (1, False)),
        ({LK, T}, (1, False)),
        ({RH, T}, (1, True)),  # the torso is its own mirror image
    ],
)
def test_the_closest_member_that_serves_all(joints: set[int], who: tuple[int, bool]) -> None:
    assert after(BANK, [joints]) == [who]


def test_no_member_serves_both_sides() -> None:
    assert after(BANK, [{LK, RK}], [0.8, 0.1, 0.9, 0.1, 0.1]) == [(0, True)], "the most probable joint's member"
    assert after(BANK, [{LK, RK}], [0.9, 0.1, 0.8, 0.1, 0.1]) == [(0, False)]
    assert after(Assignment(BANK.members, "healthy"), [{LK}, {LK, RK}, {RK}]) == [(0, False), (-1, False), (0, True)]


def test_the_first_stays_in_charge_while_its_alarm_lasts() -> None:
    surest_right = [0.8, 0.1, 0.95, 0.1, 0.1]
    assert after(BANK, [{LK}, {LK, RK}, {LK}, {LK, RK}, {RK}, {LK, RK}, set()], surest_right) == [
        (0, False), (0, False), (0, False), (0, False), (0, True), (0, True), (-1, False),
    ]  # fmt: skip


def test_a_member_that_covers_the_grown_set_takes_over_and_stays() -> None:
    assert after(BANK, [{LK}, {LK, LH}, {LK}, set(), {LK}]) == [
        (0, False), (1, False), (1, False), (-1, False), (0, False),
    ]  # fmt: skip


def test_joints_that_nobody_serves() -> None:
    knee = Assignment((Member("knee", ("left_knee",)),))
    assert after(knee, [{RK}]) == [(-1, False)]
    assert after(knee, [{RK}, {RK, LK}, {RK}], [0.1, 0.1, 0.99, 0.1, 0.1]) == [(-1, False), (0, False), (-1, False)]


def test_a_new_episode_forgets_who_was_in_charge() -> None:
    table = SeatTable(assign(TINY, "joint"), TINY)
    alarm, belief = torch.zeros(2, 5, dtype=torch.bool), torch.full((2, 5), 0.5)
    alarm[:, LK] = True
    charge = table.take(told(alarm), told(belief), None, table.initial(2, "cpu"))
    alarm, belief[:, RH] = alarm.clone(), 0.9
    alarm[:, RH] = True
    for _ in range(2):  # also where the alarms are the same as before the reset
        charge = table.take(told(alarm), told(belief), torch.tensor([False, True]), charge)
        assert charge.member.tolist() == [LK, RH]


def by_rule(bank: Assignment, body: Body, alarmed: set[str], p: dict[str, float], before: tuple[int, bool]):
    """The rule of `SeatTable.take`, one robot at a time."""
    served = {(-1, False): set()}
    for k, m in enumerate(bank.members):
        served[k, False] = set(m.joints) - set(m.mirrored)
        if m.mirrored:
            own = {j for j in m.joints if body.mirror_ids[body.joint_id(j)] == body.joint_id(j)}
            served[k, True] = set(m.mirrored) | own
    holds = bool(served[before] & alarmed)
    if holds and alarmed <= served[before]:
        return before
    closest = sorted((s for s in served if alarmed <= served[s]), key=lambda s: len(served[s]))
    if closest:
        return closest[0]
    if bank.cover == "healthy":
        return -1, False
    if holds:
        return before
    able = [j for j in alarmed if any(j in joints for joints in served.values())]
    if not able:
        return -1, False
    strongest = max(able, key=lambda j: p[j])
    return min((s for s in served if strongest in served[s]), key=lambda s: len(served[s]))


@pytest.mark.parametrize("cover", ["strongest", "healthy"])
@pytest.mark.parametrize("kind", ["joint", "mirrored_pair", "limb", "overlapping"])
def test_batched_as_the_rule(kind: str, cover: str) -> None:
    body, draw, envs = (TINY if kind == "overlapping" else H1), random.Random(0), 12
    bank = Assignment(BANK.members, cover) if kind == "overlapping" else assign(body, kind, cover=cover)
    table, names = SeatTable(bank, body), body.joint_names
    alarmed: list[set[str]] = [set() for _ in range(envs)]
    who = [(-1, False)] * envs
    charge, seen = table.initial(envs, "cpu"), set()
    for _ in range(150):
        reset = torch.tensor([draw.random() < 0.02 for _ in range(envs)])
        belief = torch.tensor([[draw.random() for _ in names] for _ in range(envs)])
        for i in range(envs):
            if draw.random() < 0.3:
                alarmed[i] ^= {draw.choice(names)}
            if reset[i]:
                alarmed[i], who[i] = set(draw.sample(names, draw.randint(0, 2))), (-1, False)
            who[i] = by_rule(bank, body, alarmed[i], dict(zip(names, belief[i].tolist(), strict=True)), who[i])
        alarm = torch.tensor([[name in joints for name in names] for joints in alarmed])
        charge = table.take(told(alarm), told(belief), reset, charge)
        assert list(zip(charge.member.tolist(), charge.mirrored.tolist(), strict=True)) == who
        seen |= set(who)
    assert len(seen) > 3, "hardly a switch: the test says little"


def test_whose_environment_it_is() -> None:
    bank = assign(TINY, "mirrored_pair", ("left_knee", "right_knee", "torso"))
    member, mirrored = own_seats(bank, 6)
    assert member.tolist() == [0, 0, 0, 1, 1, 1]
    assert mirrored.tolist() == [False, True, False, False, False, False]


def test_unchanged_alarms_are_not_looked_at_again() -> None:
    table = SeatTable(assign(H1, "mirrored_pair"), H1)
    charge = table.initial(3, "cpu")
    nothing = told(torch.zeros(3, 19))
    assert table.take(nothing > 0, nothing, None, charge) is charge


def test_kinds_that_nobody_serves_are_left_to_the_healthy_policy() -> None:
    bank = assign(TINY, "joint", kinds=("locked", "torque_loss"))
    held = torch.zeros(3, len(KINDS), 5, dtype=torch.bool)
    held[0, KINDS.index("locked"), RK] = True
    held[1, KINDS.index("torque_sensor_loss"), RK] = True
    held[2, KINDS.index("torque_sensor_loss"), RK] = held[2, KINDS.index("torque_loss"), T] = True
    strength = held.float()
    strength[2, KINDS.index("torque_sensor_loss"), RK] = 2.0
    for cover in ("strongest", "healthy"):
        table = SeatTable(Assignment(bank.members, cover), TINY)
        charge = table.take(held.flatten(1), strength.flatten(1), None, table.initial(3, "cpu"))
        assert charge.member.tolist() == [RK, -1, T], cover


def test_kinds_apart_have_members_of_their_own() -> None:
    locked, dead = Member("locked", ("torso",), kinds=("locked",)), Member("dead", ("torso",), kinds=("torque_loss",))
    table = SeatTable(Assignment((locked, dead)), TINY)
    held = torch.zeros(2, len(KINDS), 5, dtype=torch.bool)
    held[0, KINDS.index("locked"), T] = held[1, KINDS.index("torque_loss"), T] = True
    charge = table.take(held.flatten(1), held.flatten(1).float(), None, table.initial(2, "cpu"))
    assert charge.member.tolist() == [0, 1]
    with pytest.raises(KoboshiError, match="did you mean 'locked'"):
        Assignment((Member("torso", ("torso",), kinds=("lockd",)),))
