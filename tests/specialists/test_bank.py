"""Each row is answered by the member in charge, through the mirror where it must be, with a memory of its own."""

from __future__ import annotations

import pytest
import torch
from bodies import GO2, alone, make_policies, mirrors
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.faults import KINDS
from koboshi.specialists import bank as banks
from koboshi.specialists.assignment import assign
from koboshi.specialists.bank import SpecialistBank
from koboshi.specialists.routing import Belief, Route

GROUPS = {"policy": 6, "feet": 4}
MIRROR = mirrors(GO2, GROUPS)
PAIRS = assign(GO2, "mirrored_pair")
K, A, N = 6, 12, 40


def route_to(member: Tensor, mirrored: Tensor) -> Route:
    return Route(
        member, mirrored & (member >= 0), Belief(*(torch.zeros(len(member), n) for n in (A, A, len(KINDS) * A)))
    )


def some_rows(generator: torch.Generator, rows: int = N) -> tuple[dict[str, Tensor], Route, Tensor]:
    obs = {group: torch.randn(rows, width, generator=generator) for group, width in GROUPS.items()}
    member = torch.randint(-1, K, (rows,), generator=generator)
    route = route_to(member, torch.rand(rows, generator=generator) < 0.5)
    return obs, route, torch.randn(rows, A, generator=generator)


def through_mirror(x: Tensor, group: str | None) -> Tensor:
    ids, signs = MIRROR.action if group is None else MIRROR.obs[group]
    return signs * x[..., ids]


def expected(policies, obs, route: Route, healthy: Tensor, reset: Tensor, memory: list, charge: list) -> Tensor:
    """Row by row, with a policy of its own for each; `memory` and `charge` are carried on."""
    out = healthy.clone()
    for row, (k, mirrored) in enumerate(zip(route.member.tolist(), route.mirrored.tolist(), strict=True)):
        if k >= 0:
            seen = {g: through_mirror(x[row : row + 1], g) if mirrored else x[row : row + 1] for g, x in obs.items()}
            policy, new = alone(policies, k), bool(reset[row]) or charge[row] != (k, mirrored)
            before = policy.initial_state(1, "cpu") if new else memory[row]
            answer, memory[row] = policy.act(seen, before, torch.tensor([new]))
            out[row] = through_mirror(answer[0], None) if mirrored else answer[0]
        charge[row] = (k, mirrored)
    return out


@pytest.fixture(params=["packed", "whole"])
def layout(request, monkeypatch) -> str:
    """`whole`: as on a device that must not be asked how many rows each member has."""
    if request.param == "whole":

        def all_rows(member: Tensor, acts: Tensor, members: int) -> banks.Slots:
            rows = torch.arange(len(member))
            return banks.Slots(rows, member.clamp(min=0) * len(member) + rows, members, len(member))

        monkeypatch.setattr(banks, "_slots", all_rows)
        monkeypatch.setattr(banks, "anyone", lambda mask: True)
    return request.param


@pytest.mark.parametrize("remembers", [False, True])
def test_each_row_by_its_member(layout: str, remembers: bool) -> None:
    policies = make_policies(K, GROUPS, A, remembers)
    bank, generator = SpecialistBank(policies, PAIRS, MIRROR), torch.Generator().manual_seed(0)
    state, memory, charge = bank.initial_state(N), [None] * N, [(-1, False)] * N
    route = some_rows(generator)[1]
    for _ in range(12):
        obs, drawn, healthy = some_rows(generator)
        # Most rows stay with whom they have, so that memories last.
        stay = torch.rand(N, generator=generator) < 0.8
        route = route_to(*(torch.where(stay, old, new) for old, new in zip(route[:2], drawn[:2], strict=True)))
        given = healthy.clone()
        reset = torch.rand(N, generator=generator) < 0.1
        action, state = bank.act(obs, route, healthy, reset, state)
        torch.testing.assert_close(action, expected(policies, obs, route, healthy, reset, memory, charge))
        assert torch.equal(healthy, given), "what was given stays as it was"


def test_a_mirrored_robot_gets_the_mirrored_action() -> None:
    bank = SpecialistBank(make_policies(K, GROUPS, A), PAIRS, MIRROR)
    obs = {group: torch.randn(8, width) for group, width in GROUPS.items()}
    member, reset = torch.full((8,), 3), torch.zeros(8, dtype=torch.bool)
    straight, mirrored = (route_to(member, torch.full((8,), seen)) for seen in (False, True))
    one, _ = bank.act(obs, straight, torch.zeros(8, A), reset, ())
    image = {group: through_mirror(x, group) for group, x in obs.items()}
    other, _ = bank.act(image, mirrored, torch.zeros(8, A), reset, ())
    torch.testing.assert_close(other, through_mirror(one, None))


def test_nobody_is_asked() -> None:
    bank = SpecialistBank(make_policies(12, GROUPS, A), assign(GO2, "joint"))
    healthy = torch.randn(4, A)
    route = route_to(torch.full((4,), -1), torch.zeros(4, dtype=torch.bool))
    assert bank.act({}, route, healthy, torch.zeros(4, dtype=torch.bool), ())[0] is healthy


def test_without_a_mirror_nothing_is_mirrored() -> None:
    policies = make_policies(12, GROUPS, A)
    bank = SpecialistBank(policies, assign(GO2, "joint"))
    obs, healthy = {group: torch.randn(12, width) for group, width in GROUPS.items()}, torch.zeros(12, A)
    route, reset = route_to(torch.arange(12), torch.zeros(12, dtype=torch.bool)), torch.zeros(12, dtype=torch.bool)
    action, _ = bank.act(obs, route, healthy, reset, ())
    for k in range(12):
        answer, _ = alone(policies, k).act({group: x[k : k + 1] for group, x in obs.items()}, (), reset)
        torch.testing.assert_close(action[k : k + 1], answer)


def test_banks_that_do_not_fit() -> None:
    with pytest.raises(KoboshiError, match="a bank of 4 policies cannot serve 6 members"):
        SpecialistBank(make_policies(4, GROUPS, A), PAIRS, MIRROR)
    with pytest.raises(KoboshiError, match="specialist 'F_hip_joint' sees the robot through the mirror"):
        SpecialistBank(make_policies(6, GROUPS, A), PAIRS)
    with pytest.raises(KoboshiError, match="observation group 'feet' has no mirror image; with one: policy"):
        SpecialistBank(make_policies(6, GROUPS, A), PAIRS, mirrors(GO2, {"policy": 6}))
