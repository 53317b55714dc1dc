"""Routers and the whole controller: delays to the step, hysteresis, streamed as batched."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from bodies import GO2, TINY, alone, ears_of, heard, make_policies, mirrors, told
from torch import Tensor

from koboshi.detect import AlarmCfg, Reading
from koboshi.faults import KINDS
from koboshi.nets.state_tree import leaves
from koboshi.specialists.assignment import Assignment, Member, assign
from koboshi.specialists.bank import SpecialistBank
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import (
    HEALTHY,
    Belief,
    DetectorRouter,
    HealthyRouter,
    OracleRouter,
    Route,
    Router,
    SplitRouter,
)
from koboshi.specialists.switching import faded, no_fade

J = 12
EACH = assign(GO2, "joint")


def route_all(router: Router, severity: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    """(T, N, J) severities -> (T, N) members and (T, N, J) alarms."""
    state, members, alarms = router.initial_state(severity.shape[1]), [], []
    for shown, first in zip(severity, reset, strict=True):
        route, state = router.route({"belief": told(shown)}, first, state)
        assert torch.equal(route.belief.probability, shown * route.belief.alarm)
        members.append(route.member)
        alarms.append(route.belief.alarm)
    return torch.stack(members), torch.stack(alarms)


@pytest.mark.parametrize(("delay_s", "steps"), [(0.0, 0), (0.06, 3), (0.2, 10)])
def test_oracle_delay_is_exact(delay_s: float, steps: int) -> None:
    severity, reset = torch.zeros(40, 3, J), torch.zeros(40, 3, dtype=torch.bool)
    severity[5:, 0, 7], severity[8:20, 1, 3] = 1.0, 0.4
    reset[0] = reset[20] = True
    severity[reset] = 0  # an episode's first observation shows no fault
    members, _ = route_all(OracleRouter(EACH, GO2, 0.02, delay_s), severity, reset)
    for t in range(40):
        first = (5 if t < 20 else 21) + steps
        assert members[t].tolist() == [7 if t >= first else -1, 3 if 8 + steps <= t < 20 else -1, -1]


def test_the_oracle_sees_each_of_several_faults_after_its_own_delay() -> None:
    both = Assignment((Member("a", (GO2.joint_names[4],)), Member("both", (GO2.joint_names[4], GO2.joint_names[9]))))
    severity = torch.zeros(9, 1, J)
    severity[1:7, 0, 4], severity[3:, 0, 9] = 0.5, 0.8
    members, alarms = route_all(OracleRouter(both, GO2, 0.02, 0.02), severity, torch.zeros(9, 1, dtype=torch.bool))
    assert alarms[:, 0, 4].tolist() == [2 <= t < 7 for t in range(9)]
    assert alarms[:, 0, 9].tolist() == [t >= 4 for t in range(9)]
    assert members[:, 0].tolist() == [-1, -1, 0, 0, 1, 1, 1, 1, 1]
    alone, _ = route_all(OracleRouter(EACH, GO2, 0.02, 0.02), severity, torch.zeros(9, 1, dtype=torch.bool))
    assert alone[:, 0].tolist() == [-1, -1, 4, 4, 4, 4, 4, 9, 9], "the first stays, though the other is worse"


def test_random_delays_are_drawn_for_each_episode() -> None:
    router, num_envs = OracleRouter(EACH, GO2, 0.02, (0.04, 0.1)), 64
    severity, reset = torch.zeros(120, num_envs, J), torch.zeros(120, num_envs, dtype=torch.bool)
    severity[:, :, 2] = 1.0
    reset[::12], severity[::12] = True, 0.0
    members, _ = route_all(router, severity, reset)
    delays = (members.view(10, 12, num_envs) == HEALTHY).sum(1) - 1
    assert sorted(delays.unique().tolist()) == [2, 3, 4, 5]
    assert (delays[1:] != delays[:-1]).float().mean() > 0.5
    noticed = (members.view(10, 12, num_envs) != HEALTHY).int()
    assert (noticed.diff(dim=1) >= 0).all(), "what was noticed is not forgotten within the episode"
    assert torch.equal(members, route_all(router, severity, reset)[0]), "a function of its state"
    other, _ = route_all(OracleRouter(EACH, GO2, 0.02, (0.04, 0.1), seed=1), severity, reset)
    assert not torch.equal(members, other), "another process draws other delays"


@dataclass
class Echo:
    """A detector that takes its observation for its answer, if it has been told the same before."""

    tells = False
    spec: SimpleNamespace

    def initial(self, num_envs: int) -> Tensor:
        return torch.zeros(num_envs, len(self.spec.joint_names))

    def step(self, obs: Tensor, reset: Tensor | None, hidden: Tensor) -> tuple[Reading, Tensor]:
        sound = 0.3 * (hidden if reset is None else hidden.masked_fill(reset[:, None], 0.0)) + 0.7 * obs
        return heard(sound.clamp(0.01, 0.99).logit()), sound


class Direct(Echo):
    """Takes its observation for its answer."""

    def step(self, obs: Tensor, reset: Tensor | None, hidden: Tensor) -> tuple[Reading, Tensor]:
        return heard(obs.logit()), hidden


def echo(body) -> Echo:
    return Echo(ears_of(body))


def test_alarms_and_who_is_in_charge() -> None:
    alarm = AlarmCfg(threshold=0.8, persistence=2, release_threshold=0.3, release_steps=2)
    detector = Direct(ears_of(TINY))
    router = DetectorRouter(detector, alarm, assign(TINY, "mirrored_pair"), TINY)
    # knee, hip, torso are members 0, 1, 2; the joints: left knee, left hip, right knee, right hip, torso
    sounds = [
        ([0.1, 0.9, 0.1, 0.1, 0.1], (-1, False), []),
        ([0.1, 0.9, 0.1, 0.1, 0.1], (1, False), [1]),
        ([0.1, 0.9, 0.99, 0.1, 0.1], (1, False), [1]),
        ([0.1, 0.5, 0.99, 0.1, 0.1], (1, False), [1, 2]),  # the knee is surer by now, but the hip was first
        ([0.1, 0.2, 0.99, 0.1, 0.1], (1, False), [1, 2]),
        ([0.1, 0.2, 0.99, 0.1, 0.1], (0, True), [2]),
        ([0.1, 0.2, 0.99, 0.1, 0.1], (0, True), [2]),
        ([0.1, 0.2, 0.99, 0.1, 0.1], (-1, False), []),  # a new episode
        ([0.9, 0.2, 0.99, 0.1, 0.1], (0, True), [2]),
    ]
    state = router.initial_state(1)
    for t, (probability, who, alarmed) in enumerate(sounds):
        route, state = router.route({"detector": torch.tensor([probability])}, torch.tensor([t in (0, 7)]), state)
        assert (int(route.member), bool(route.mirrored)) == who, t
        assert route.belief.alarm[0].nonzero().squeeze(1).tolist() == alarmed
        torch.testing.assert_close(route.belief.probability, torch.tensor([probability]))


def test_who_took_charge_keeps_it_for_the_dwell() -> None:
    alarm = AlarmCfg(threshold=0.8, persistence=1, release_threshold=0.3, release_steps=1)
    router = DetectorRouter(Direct(ears_of(TINY)), alarm, assign(TINY, "joint"), TINY, dwell_steps=4)
    knee, hip, none, both = ([0.9, 0.1], [0.1, 0.9], [0.1, 0.1], [0.85, 0.9])
    # The first of an episode takes charge at once; then the alarm moves on, ends, and comes back.
    rows = [none, knee, hip, hip, none, none, none, hip, both, both, none, knee, knee]
    who = [-1, 0, 0, 0, 0, -1, -1, -1, -1, 1, 1]
    state, seen = router.initial_state(2), []
    for t, loud in enumerate(rows):
        obs = torch.tensor([[*loud, 0.1, 0.1, 0.1]] * 2)
        # The second robot begins an episode at step 11, with nobody in charge.
        route, state = router.route({"detector": obs}, torch.tensor([t == 0, t in (0, 11)]), state)
        seen.append(route.member.tolist())
    assert [one for one, _ in seen[:11]] == who == [other for _, other in seen[:11]]
    assert seen[11:] == [[1, 0], [1, 0]]


def test_without_a_dwell_charge_follows_the_alarm() -> None:
    alarm = AlarmCfg(threshold=0.8, persistence=1, release_threshold=0.3, release_steps=1)
    router = DetectorRouter(Direct(ears_of(TINY)), alarm, assign(TINY, "joint"), TINY)
    state = router.initial_state(1)
    for t, (joint, who) in enumerate([(0, 0), (1, 1), (None, -1), (1, 1)]):
        obs = torch.full((1, 5), 0.1)
        obs[0, [] if joint is None else joint] = 0.9
        route, state = router.route({"detector": obs}, torch.tensor([t == 0]), state)
        assert int(route.member) == who


def test_a_fault_that_gets_worse_is_told_so() -> None:
    """The alarm stands and stays as it is: only what members are told of it changes."""

    class Graded(Direct):
        tells = True

        def step(self, obs: Tensor, reset: Tensor | None, hidden: Tensor) -> tuple[Reading, Tensor]:
            return heard(torch.where(obs > 0.5, 0.99, 0.01).logit())._replace(severity=obs), hidden

    router = DetectorRouter(Graded(ears_of(TINY)), AlarmCfg(persistence=1), assign(TINY, "joint"), TINY)
    state, levels = router.initial_state(1), []
    for t, severity in enumerate((0.1, 0.6, 0.7, 0.9)):
        obs = torch.tensor([[0.1, severity, 0.1, 0.1, 0.1]])
        route, state = router.route({"detector": obs}, torch.tensor([t == 0]), state)
        levels.append(route.belief.levels[0, 1])
    torch.testing.assert_close(torch.stack(levels), torch.tensor([0.0, 0.6, 0.7, 0.9]))


def test_a_severity_is_shared_out_among_the_likely_kinds() -> None:
    """By hand: of 0.7, 0.25 and 0.05 the first two count; of seven equal ones, none above 0.2, all do."""
    kinds = ["torque_loss", "locked", "torque_sensor_loss"]

    class Unsure(Direct):
        tells = True

        def step(self, obs: Tensor, reset: Tensor | None, hidden: Tensor) -> tuple[Reading, Tensor]:
            shares = torch.tensor([0.25, 0.05, 0.7]) if self.spec.kinds == kinds else torch.ones(len(KINDS))
            kind = shares.log()[None, :, None].expand(-1, -1, 5)
            return Reading(heard(obs.logit()).logit, kind, torch.full((1, 5), 0.8)), hidden

    found = []
    for names in (kinds, KINDS):
        ears = SimpleNamespace(joint_names=list(TINY.joint_names), kinds=list(names))
        router = DetectorRouter(Unsure(ears), AlarmCfg(persistence=1), assign(TINY, "joint"), TINY)
        obs = torch.tensor([[0.1, 0.99, 0.1, 0.1, 0.1]])
        route, _ = router.route({"detector": obs}, torch.tensor([True]), router.initial_state(1))
        found.append(route.belief.levels.view(len(KINDS), 5))
    expected = torch.zeros(len(KINDS), 5)
    expected[KINDS.index("torque_loss"), 1], expected[KINDS.index("torque_sensor_loss"), 1] = 0.2, 0.56
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found[1][:, 1], torch.full((len(KINDS),), 0.8 / len(KINDS)))


def test_each_of_two_routers_has_its_rows() -> None:
    shown = torch.zeros(3, 4, J)
    shown[1:, :, 5] = 1.0
    of_second, reset = torch.tensor([False, True, True, False]), torch.zeros(4, dtype=torch.bool)
    split = SplitRouter(OracleRouter(EACH, GO2, 0.02), OracleRouter(EACH, GO2, 0.02, 0.02), of_second)
    members, alarms = route_all(split, shown, reset.expand(3, 4))
    assert members.tolist() == [[-1] * 4, [5, -1, -1, 5], [5] * 4]
    assert alarms[1, :, 5].tolist() == [True, False, False, True]


def test_a_jump_of_the_action_fades_out() -> None:
    """By hand: healthy gives 1, the member 4; three steps of blending after each switch."""
    who = [-1, -1, 0, 0, 0, 0, 0, -1, 0, 0, 0, 0]
    expected = [1, 1, 4 - 3 * 3 / 4, 4 - 3 * 2 / 4, 4 - 3 * 1 / 4, 4, 4]
    back = 1 + 3 * 3 / 4  # from 4 towards 1
    again = 4 + (back - 4) * 3 / 4
    expected += [back, again, 4 + (back - 4) * 2 / 4, 4]  # in the last row an episode begins, and nothing is left over
    fade, seen = no_fade(1, 1, "cpu"), []
    for t, member in enumerate(who[:-1]):
        belief = Belief(torch.zeros(1, J), torch.zeros(1, J, dtype=torch.bool), torch.zeros(1, J))
        route = Route(torch.tensor([member]), torch.zeros(1, dtype=torch.bool), belief)
        action, fade = faded(
            3, torch.tensor([[1.0 if member == HEALTHY else 4.0]]), route, torch.tensor([t == 10]), fade
        )
        seen.append(float(action))
    assert seen == pytest.approx(expected)


@pytest.mark.parametrize("remembers", [False, True])
def test_streamed_equals_batched(remembers: bool) -> None:
    steps, num_envs, generator = 80, 5, torch.Generator().manual_seed(0)
    bank = SpecialistBank(
        make_policies(6, {"policy": 6}, J, remembers), assign(GO2, "mirrored_pair"), mirrors(GO2, {"policy": 6})
    )
    seen = torch.randn(steps, num_envs, 6, generator=generator)
    # Now one joint is loud, now another.
    loud = torch.rand(steps // 5, num_envs, J, generator=generator).repeat_interleave(5, 0) ** 4
    reset = torch.rand(steps, num_envs, generator=generator) < 0.05
    reset[0] = True
    alarm = AlarmCfg(threshold=0.6, persistence=2, release_threshold=0.3, release_steps=3)
    healthy = make_policies(1, {"policy": 6}, J, remembers, seed=5).single()
    controller = Controller(healthy, bank, DetectorRouter(echo(GO2), alarm, bank.assignment, GO2, 2), blend_steps=3)

    def run(rows: slice) -> list[Tensor]:
        state, out = controller.initial_state(len(range(num_envs)[rows])), []
        for t, first in enumerate(reset[:, rows]):
            obs = {"policy": seen[t, rows], "detector": loud[t, rows]}
            decision, state = controller.act(obs, first, state)
            assert all(len(leaf) == len(first) for leaf in leaves(state)), "each robot carries its own"
            out.append(tuple(leaves(decision)))
        return [torch.stack(x) for x in zip(*out, strict=True)]

    whole = run(slice(0, num_envs))
    assert len(whole[1].unique()) > 4 and len(whole[2].unique()) == 2, "hardly a switch: the test says little"
    for row in range(num_envs):
        for one, all_rows in zip(run(slice(row, row + 1)), whole, strict=True):
            torch.testing.assert_close(one, all_rows[:, row : row + 1], atol=1e-5, rtol=1e-5)


def test_the_healthy_policy_listens_on_while_a_member_acts_which_begins_anew() -> None:
    healthy, bank = make_policies(1, {"policy": 6}, J, True).single(), make_policies(12, {"policy": 6}, J, True)
    controller = Controller(healthy, SpecialistBank(bank, EACH), OracleRouter(EACH, GO2, 0.02))
    state, own = controller.initial_state(1), healthy.initial_state(1, "cpu")
    member = alone(bank, 4)
    memory = member.initial_state(1, "cpu")
    for t in range(9):
        severity, first = torch.zeros(1, J), torch.tensor([t == 0])
        severity[0, 4] = float(2 <= t < 6)
        obs = {"policy": torch.randn(1, 6), "belief": told(severity)}
        decision, state = controller.act(obs, first, state)
        action, own = healthy.act(obs, own, first)
        if 2 <= t < 6:
            action, memory = member.act(obs, memory, torch.tensor([False]))
        torch.testing.assert_close(decision.action, action)


def test_without_a_bank_the_healthy_policy_acts() -> None:
    healthy = make_policies(1, {"policy": 6}, J).single()
    obs, first = {"policy": torch.randn(3, 6), "belief": told(torch.ones(3, J))}, torch.ones(3, dtype=torch.bool)
    for router in (HealthyRouter(J), OracleRouter(EACH, GO2, 0.02)):
        controller = Controller(healthy, None, router)
        decision, _ = controller.act(obs, first, controller.initial_state(3))
        assert torch.equal(decision.action, healthy.act(obs, (), first)[0])


def test_the_healthy_router_asks_for_nothing() -> None:
    router = HealthyRouter(J)
    route, state = router.route({}, torch.tensor([True, False]), router.initial_state(2))
    assert route.member.tolist() == [HEALTHY] * 2 and not route.mirrored.any() and state == ()
    assert route.belief.probability.shape == route.belief.alarm.shape == (2, J)
    assert not route.belief.probability.any() and route.belief.alarm.dtype == torch.bool
