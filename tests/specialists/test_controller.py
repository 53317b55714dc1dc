"""Routers and the whole controller: delays to the step, hysteresis, streamed as batched."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from koboshi.algos.ppo import MirrorMap
from koboshi.detect import AlarmCfg, FaultDetector
from koboshi.robots import UNITREE_H1
from koboshi.specialists.assignment import assign
from koboshi.specialists.bank import SpecialistBank
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import NOBODY, DetectorRouter, HealthyRouter, OracleRouter

J = 19


def route_all(router: OracleRouter, severity: Tensor, reset: Tensor) -> Tensor:
    """(T, N, J) severities -> (T, N) joints."""
    state, joints = router.initial_state(severity.shape[1]), []
    for shown, first in zip(severity, reset, strict=True):
        route, state = router.route({"fault": shown}, first, state)
        assert torch.equal(route.probability, shown * (route.joint != NOBODY)[:, None])
        joints.append(route.joint)
    return torch.stack(joints)


@pytest.mark.parametrize(("delay_s", "steps"), [(0.0, 0), (0.06, 3), (0.2, 10)])
def test_oracle_delay_is_exact(delay_s: float, steps: int) -> None:
    severity, reset = torch.zeros(40, 3, J), torch.zeros(40, 3, dtype=torch.bool)
    severity[5:, 0, 7], severity[8:20, 1, 3] = 1.0, 0.4
    reset[0] = reset[20] = True
    severity[reset] = 0  # an episode's first observation shows no fault
    joints = route_all(OracleRouter(0.02, delay_s), severity, reset)
    for t in range(40):
        first = (5 if t < 20 else 21) + steps
        assert joints[t].tolist() == [7 if t >= first else -1, 3 if 8 + steps <= t < 20 else -1, -1]


def test_oracle_takes_the_worst_joint() -> None:
    severity = torch.zeros(3, 1, J)
    severity[:, 0, 4], severity[1:, 0, 9] = 0.5, 0.8
    assert route_all(OracleRouter(0.02), severity, torch.zeros(3, 1, dtype=torch.bool)).tolist() == [[4], [9], [9]]


def test_random_delays_are_drawn_for_each_episode() -> None:
    router, num_envs = OracleRouter(0.02, (0.04, 0.1)), 64
    severity, reset = torch.zeros(120, num_envs, J), torch.zeros(120, num_envs, dtype=torch.bool)
    severity[:, :, 2] = 1.0
    reset[::12], severity[::12] = True, 0.0
    joints = route_all(router, severity, reset)
    delays = (joints.view(10, 12, num_envs) == NOBODY).sum(1) - 1
    assert sorted(delays.unique().tolist()) == [2, 3, 4, 5]
    assert (delays[1:] != delays[:-1]).float().mean() > 0.5
    assert torch.equal(joints, route_all(router, severity, reset)), "a function of its state"


@dataclass
class Echo:
    """A detector that takes its observation for its answer."""

    spec: SimpleNamespace

    def initial(self, num_envs: int) -> Tensor:
        return torch.zeros(num_envs, 1)

    def step(self, obs: Tensor, reset: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return obs.logit(), hidden


def test_the_first_alarm_stays_in_charge_until_it_is_released() -> None:
    echo = Echo(SimpleNamespace(joint_names=["a", "b", "c"]))
    router = DetectorRouter(echo, AlarmCfg(threshold=0.8, persistence=2, release_threshold=0.3, release_steps=2))
    heard = [
        ([0.1, 0.9, 0.1], -1),
        ([0.1, 0.9, 0.1], 1),
        ([0.1, 0.9, 0.99], 1),
        ([0.1, 0.5, 0.99], 1),  # c is surer by now, but b was first
        ([0.1, 0.2, 0.99], 1),
        ([0.1, 0.2, 0.99], 2),
        ([0.1, 0.2, 0.99], 2),
        ([0.1, 0.2, 0.99], -1),  # a new episode
        ([0.9, 0.2, 0.99], 2),
    ]
    state = router.initial_state(1)
    for t, (probability, joint) in enumerate(heard):
        route, state = router.route({"detector": torch.tensor([probability])}, torch.tensor([t in (0, 7)]), state)
        assert route.joint.tolist() == [joint], t
        torch.testing.assert_close(route.probability, torch.tensor([probability]))


def test_streamed_equals_batched(make_policy, mirror: MirrorMap, detector: FaultDetector) -> None:
    steps, num_envs = 60, 5
    bank = SpecialistBank(make_policy(9), assign(UNITREE_H1, "mirrored_pair"), UNITREE_H1, mirror)
    generator = torch.Generator().manual_seed(0)
    seen = 2 * torch.randn(steps, num_envs, 88, generator=generator)
    reset = torch.rand(steps, num_envs, generator=generator) < 0.05
    reset[0] = True
    whole, _ = detector(seen, reset, detector.initial(num_envs))
    often, rarely = whole.sigmoid().amax(2).quantile(torch.tensor([0.4, 0.7])).tolist()
    alarm = AlarmCfg(threshold=rarely, persistence=2, release_threshold=often, release_steps=3)
    controller = Controller(make_policy(1, seed=5), bank, DetectorRouter(detector, alarm))

    def run(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        state, out = controller.initial_state(len(range(num_envs)[rows])), []
        for obs, first in zip(seen[:, rows], reset[:, rows], strict=True):
            decision, state = controller.act({"policy": obs[:, :69], "detector": obs}, first, state)
            out.append((decision.action, decision.route.joint, decision.route.probability))
        action, joint, probability = (torch.stack(x) for x in zip(*out, strict=True))
        return action, joint, probability

    action, joint, probability = run(slice(0, num_envs))
    assert len(joint.unique()) > 2, "hardly a switch: the test says little"
    torch.testing.assert_close(probability, whole.sigmoid(), atol=1e-5, rtol=0)
    for row in range(num_envs):
        alone = run(slice(row, row + 1))
        assert torch.equal(alone[1], joint[:, row : row + 1])
        torch.testing.assert_close(alone[0], action[:, row : row + 1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone[2], probability[:, row : row + 1], atol=1e-5, rtol=0)


def test_without_a_bank_the_healthy_policy_acts(make_policy) -> None:
    healthy = make_policy(1)
    obs = {"policy": torch.randn(3, 69), "fault": torch.ones(3, J)}
    for router in (HealthyRouter(), OracleRouter(0.02)):
        controller = Controller(healthy, None, router)
        decision, _ = controller.act(obs, torch.ones(3, dtype=torch.bool), controller.initial_state(3))
        assert torch.equal(decision.action, healthy.act(obs["policy"][None])[0])
