"""Which faults are drawn more often: the odds by hand, never another member's, the same after a resume."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from bodies import TINY

from koboshi.errors import KoboshiError
from koboshi.faults import KINDS
from koboshi.specialists import focus as module
from koboshi.specialists.assignment import Assignment, Member, assign
from koboshi.specialists.charge import SeatTable, own_seats
from koboshi.specialists.focus import Focus

J = 5
DEAD, LOCKED = KINDS.index("torque_loss"), KINDS.index("locked")
LK, LH, RK, RH, T = range(J)


def layer(num_envs: int, joints: list[int]) -> SimpleNamespace:
    """What a `Focus` knows of faults: those of two kinds are drawn, each environment's first is a dead joint."""
    drawn = torch.zeros(len(KINDS), J, dtype=torch.bool)
    drawn[[DEAD, LOCKED]] = True
    which = torch.full((num_envs, 1), DEAD)
    return SimpleNamespace(
        severity=torch.zeros(num_envs, J), drawn=drawn, which=which, joint=torch.tensor(joints)[:, None], odds=None
    )


def focused(bank: Assignment, num_envs: int, joints: list[int], share: float) -> tuple[Focus, SimpleNamespace]:
    table, faults = SeatTable(bank, TINY), layer(num_envs, joints)
    return Focus(faults, table, table.seat_of(*own_seats(bank, num_envs)), share, step_dt=1.0), faults


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGET", 1.0)
    monkeypatch.setattr(module, "DOUBT_S", 10.0)


def seen(focus: Focus, falls: list[int], steps: int) -> None:
    """Robot i falls in the first falls[i] of so many steps."""
    for t in range(steps):
        acted = torch.ones(len(falls), dtype=torch.bool)
        focus.saw(focus.cell, torch.tensor([t < n for n in falls]), acted)


def test_odds_by_hand() -> None:
    focus, faults = focused(assign(TINY, "one"), 2, [LK, T], share=0.5)
    seen(focus, falls=[3, 0], steps=20)
    # 3 falls in 40 s are 0.075 a second: the knee (3 + 0.75) / 30, the torso 0.75 / 30, all others and the mean 0.075.
    expected = torch.zeros(len(KINDS), J)
    expected[[DEAD, LOCKED]] = 1.0
    expected[DEAD, LK] = 0.5 + 0.5 * 0.125 / 0.075
    expected[DEAD, T] = 0.5 + 0.5 * 0.025 / 0.075
    torch.testing.assert_close(faults.odds, expected.expand(2, -1, -1))


def test_a_member_that_did_not_act_is_not_to_blame() -> None:
    focus, _ = focused(assign(TINY, "one"), 2, [LK, T], share=0.5)
    focus.saw(focus.cell, torch.tensor([True, True]), torch.tensor([True, False]))
    assert (focus.falls.sum(), focus.steps.sum()) == (1.0, 1.0) and focus.falls[DEAD * J + LK] == 1.0


def test_everybody_keeps_to_the_faults_that_call_the_own_member_first() -> None:
    bank = assign(TINY, "mirrored_pair")  # knee, hip, torso
    focus, faults = focused(bank, 6, [LK, RK, LH, RH, T, T], share=1.0)
    seen(focus, falls=[2, 0, 0, 0, 0, 0], steps=5)
    own = [{LK}, {RK}, {LH}, {RH}, {T}, {T}]
    for row, joints in zip(faults.odds, own, strict=True):
        assert {int(j) for j in row.sum(0).nonzero()} == joints
        assert {int(k) for k in row.sum(1).nonzero()} == {DEAD, LOCKED}


def test_where_nobody_fell_all_are_alike() -> None:
    focus, faults = focused(assign(TINY, "one"), 2, [LK, T], share=1.0)
    seen(focus, falls=[0, 0], steps=1)
    assert faults.odds[:, [DEAD, LOCKED]].unique().tolist() == [1.0] and faults.odds.sum() == 2 * 2 * J


def test_the_same_odds_after_a_resume() -> None:
    one, faults = focused(assign(TINY, "one"), 2, [LK, T], share=0.5)
    seen(one, falls=[3, 0], steps=20)
    other, resumed = focused(assign(TINY, "one"), 2, [LK, T], share=0.5)
    other.load_state_dict(one.state_dict())
    assert torch.equal(resumed.odds, faults.odds)


def test_a_member_that_is_nobody_s_first_choice_is_refused() -> None:
    bank = Assignment((Member("knee", ("left_knee",)), Member("leg", ("left_knee",))))
    with pytest.raises(KoboshiError, match="each is the closest to some fault"):
        focused(bank, 2, [LK, LK], share=0.5)


def test_old_seconds_fade(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGET", 0.5)
    focus, _ = focused(assign(TINY, "one"), 1, [LK], share=0.5)
    seen(focus, falls=[1], steps=3)
    assert focus.falls[DEAD * J + LK] == 0.25 and focus.steps[DEAD * J + LK] == pytest.approx(1.75)
