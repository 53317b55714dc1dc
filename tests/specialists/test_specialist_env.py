"""The masked environment, around one that only writes down what it is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bodies import TINY, make_policies, mirrors
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.faults import KINDS
from koboshi.specialists import env as specialist_env
from koboshi.specialists.assignment import assign
from koboshi.specialists.env import FORGET, SpecialistEnv
from koboshi.specialists.routing import OracleRouter
from koboshi.vec_env import ActionSpace, Obs, ObsSpec, Step

N, J = 4, 5
LEFT, RIGHT, TORSO = (TINY.joint_id(name) for name in ("left_knee", "right_knee", "torso"))
ASSIGNMENT = assign(TINY, "mirrored_pair", ("left_knee", "right_knee", "torso"))
"""Two members of two environments each: left knee, right knee (mirrored), torso, torso."""
GROUPS = {"policy": 4, "critic": 6}
MIRROR = mirrors(TINY, GROUPS)


class Scripted:
    """A `VecEnv` whose faults and ends follow a script: step -> [(environment, joint, severity)]."""

    num_envs, device, action_space = N, torch.device("cpu"), ActionSpace(J)
    obs_spec = {
        "policy": ObsSpec((4,)),
        "critic": ObsSpec((6,)),
        "belief": ObsSpec((len(KINDS) * J,)),
        "unused": ObsSpec((2,)),
    }

    def __init__(
        self,
        faults: dict[int, list[tuple[int, int, float]]],
        ends: dict[int, int],
        bad: dict[int, int] | None = None,
        cut: dict[int, int] | None = None,
    ) -> None:
        self.faults, self.ends, self.bad, self.cut, self.t = faults, ends, bad or {}, cut or {}, 0
        self.told: list[Tensor] = []
        self.shown: list[Obs] = []
        self.generator = torch.Generator().manual_seed(0)

    def _obs(self) -> Obs:
        obs = {n: torch.randn(N, *s.shape, generator=self.generator) for n, s in self.obs_spec.items()}
        obs["belief"] = torch.zeros(N, len(KINDS) * J)
        for env, joint, severity in self.faults.get(self.t, []):
            obs["belief"][env, joint] = severity
        self.shown.append({name: x.clone() for name, x in obs.items()})
        return obs

    def reset(self, seed: int) -> Obs:
        self.t = 0
        return self._obs()

    def step(self, action: Tensor) -> Step:
        self.told.append(action)
        self.t += 1
        final, obs = self._obs(), self._obs()
        terminated, valid = torch.zeros(N, dtype=torch.bool), torch.ones(N, dtype=torch.bool)
        truncated = torch.zeros_like(terminated)
        if self.t in self.cut:
            truncated[self.cut[self.t]] = True
        if self.t in self.ends:
            terminated[self.ends[self.t]] = True
        if self.t in self.bad:
            valid[self.bad[self.t]] = False
        extras: dict[str, Any] = {"valid": valid, "other": 1} if self.bad else {}
        return Step(obs, torch.zeros(N), terminated, truncated, final, extras)

    def pop_log(self) -> dict[str, float]:
        return {"from": 1.0}

    def state_dict(self) -> dict[str, Tensor]:
        return {"t": torch.tensor(self.t), "rng": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.t = int(state["t"])
        self.generator.set_state(state["rng"])


def around(world: Scripted, healthy=None, delay_s: Any = 0.0) -> SpecialistEnv:
    healthy = healthy or make_policies(1, {"policy": 4}, J).single()
    router = OracleRouter(ASSIGNMENT, TINY, 0.02, delay_s)
    return SpecialistEnv(world, healthy, ASSIGNMENT, router, tuple(GROUPS), MIRROR)


def mirrored(x: Tensor, mirror: tuple[Tensor, Tensor]) -> Tensor:
    """Row 1 (the right knee's) in the mirror."""
    ids, signs = mirror
    x = x.clone()
    x[1] = signs * x[1, ids]
    return x


@pytest.mark.parametrize("remembers", [False, True])
def test_who_acts_what_is_seen_and_what_counts(remembers: bool) -> None:
    own = [(0, LEFT, 1.0), (1, RIGHT, 0.5), (2, LEFT, 1.0), (3, TORSO, 1.0)]  # environment 2 shows another's fault
    faults = {1: own, 2: own, 3: [own[0], own[2], own[3]], 4: own, 5: [own[0]]}
    healthy = make_policies(1, {"policy": 4}, J, remembers).single()
    world = Scripted(faults, ends={3: 1}, bad={4: 3})
    env = around(world, healthy)
    obs, carried, first = env.reset(0), healthy.initial_state(N, "cpu"), torch.ones(N, dtype=torch.bool)
    assert set(env.obs_spec) == {"policy", "critic"}
    acts = [[False] * 4, [True, True, False, True], [True, True, False, True], [True, False, False, True]]
    for t, expected in enumerate(acts):
        acted = torch.tensor(expected)
        assert set(obs) == {"policy", "critic"}
        assert all(torch.equal(obs[group], mirrored(world.shown[-1][group], MIRROR.obs[group])) for group in obs)
        raw, action = world.shown[-1], torch.randn(N, J)
        step = env.step(action)
        answer, carried = healthy.act(raw, carried, first)
        first = step.terminated
        assert torch.equal(world.told[-1], torch.where(acted[:, None], mirrored(action, MIRROR.action), answer))
        assert step.extras["valid"].tolist() == [e and not (t == 3 and i == 3) for i, e in enumerate(expected)]
        if t < 3:
            charged = torch.tensor(acts[t + 1]) & ~acted
            assert torch.equal(step.extras["anew"], charged), "a member's memory begins as it takes charge"
        assert step.extras["other"] == 1
        final = world.shown[-2]
        assert all(torch.equal(step.final_obs[g], mirrored(final[g], MIRROR.obs[g])) for g in GROUPS)
        obs = step.obs
    falls = env.falls_per_s(0.02)
    assert falls.tolist() == pytest.approx([FORGET, 0.0]), "a fall one step ago, within less than a second"
    torch.testing.assert_close(env.survived[1, 0], torch.tensor(1 + FORGET + FORGET**2))
    env.reset(0)
    assert not env.survived.any()
    assert env.pop_log() == {"from": 1.0}


def test_broken_physics_is_nobodys_fall() -> None:
    faults = {t: [(2, TORSO, 1.0), (3, TORSO, 1.0)] for t in range(1, 9)}
    env = around(Scripted(faults, ends={4: 2, 6: 3}, bad={4: 2}))
    env.reset(0)
    for _ in range(5):
        env.step(torch.zeros(N, J))
    assert env.falls_per_s(0.02).tolist() == [torch.inf, 0.0], "member 0 has never acted; member 1 has not fallen"
    env.step(torch.zeros(N, J))
    assert env.survived[0].tolist() == [0, 0, 0, 1]
    # Steps since each in which it acted; after its reset environment 2's fault is noticed one step late.
    steps = [sum(FORGET**since for since in ago) for ago in ((4, 3, 0), (4, 3, 2, 1, 0))]
    assert env.survived[1].tolist() == pytest.approx([0, 0, *steps]), "nor a step of its time"


def test_processes_count_falls_together(monkeypatch: pytest.MonkeyPatch) -> None:
    env = around(Scripted({}, {}))
    env.survived = torch.tensor([[3.0, 1.0, 0.0, 0.0], [150.0, 50.0, 10.0, 10.0]])
    elsewhere = torch.tensor([[2.0, 5.0], [100.0, 480.0]])
    monkeypatch.setattr(specialist_env, "sum_over_ranks", lambda counts: counts + elsewhere)
    assert env.falls_per_s(0.02).tolist() == pytest.approx([6 / (300 * 0.02), 5 / (500 * 0.02)])


def test_the_healthy_policy_listens_on_while_all_members_act() -> None:
    own = [(0, LEFT, 1.0), (1, RIGHT, 0.5), (2, TORSO, 1.0), (3, TORSO, 1.0)]
    healthy = make_policies(1, {"policy": 4}, J, True).single()
    world = Scripted({2: own, 3: own, 4: own}, {})
    env = around(world, healthy)
    env.reset(0)
    carried, first = healthy.initial_state(N, "cpu"), torch.ones(N, dtype=torch.bool)
    for t in range(7):
        answer, carried = healthy.act(world.shown[-1], carried, first)
        first = torch.zeros_like(first)
        valid = env.step(torch.zeros(N, J)).extras["valid"]
        assert bool(valid.all()) == (2 <= t < 5) == bool(valid.any())
        assert valid.all() or torch.equal(world.told[-1], answer)


def test_falls_of_a_member_are_counted_over_its_own_time() -> None:
    env = around(Scripted({}, {}))
    env.survived = torch.tensor([[3.0, 1.0, 0.0, 1.0], [150.0, 50.0, 10.0, 10.0]])
    assert env.falls_per_s(0.02).tolist() == pytest.approx([4 / (200 * 0.02), 1.0]), "at least a second"


def test_the_other_side_of_a_pair_is_not_its_own_seat() -> None:
    env = around(Scripted({t: [(0, RIGHT, 1.0), (1, RIGHT, 1.0)] for t in range(1, 4)}, {}))
    env.reset(0)
    valid = [env.step(torch.zeros(N, J)).extras["valid"].tolist() for _ in range(3)]
    assert valid[1:] == [[False, True, False, False]] * 2


@pytest.mark.parametrize("end", ["ends", "cut"])
def test_a_reset_starts_the_router_anew(end: str) -> None:
    # The fault shows on through the reset.
    faults = {t: [(0, LEFT, 1.0)] for t in range(1, 12)}
    env = around(Scripted(faults, **{"ends": {}, end: {5: 0}}), delay_s=0.04)
    env.reset(0)
    valid = [bool(env.step(torch.zeros(N, J)).extras["valid"][0]) for _ in range(9)]
    assert valid == [False, False, False, True, True, False, False, False, True]


@pytest.mark.parametrize("steps", [0, 3])
def test_resume_is_exact(steps: int) -> None:
    faults = {t: [(0, LEFT, 1.0), (3, TORSO, 0.5)] for t in range(1, 20) if t != 6}

    def start() -> SpecialistEnv:
        healthy = make_policies(1, {"policy": 4}, J, True).single()
        return around(Scripted(faults, ends={6: 3}), healthy, (0.02, 0.1))

    def play(env: SpecialistEnv, count: int) -> list[Step]:
        return [env.step(torch.full((N, J), float(t))) for t in range(count)]

    one, other = start(), start()
    one.reset(0)
    play(one, steps)
    saved = one.state_dict()
    ahead = play(one, 8)
    other.load_state_dict(saved)
    for a, b in zip(ahead, play(other, 8), strict=True):
        assert torch.equal(a.extras["valid"], b.extras["valid"])
        assert all(torch.equal(a.obs[g], b.obs[g]) for g in a.obs)
    again, expected = other.state_dict(), one.state_dict()
    assert again.keys() == expected.keys() and all(torch.equal(again[n], expected[n]) for n in again)
    assert torch.equal(torch.stack(other._env.told[-8:]), torch.stack(one._env.told[-8:]))


def test_saved_before_its_first_reset() -> None:
    one, other = around(Scripted({}, {})), around(Scripted({}, {}))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.reset(3)["policy"], other.reset(3)["policy"])


def test_what_does_not_fit() -> None:
    world = Scripted({}, {})
    each = assign(TINY, "joint", ("left_knee", "right_knee", "torso"))
    with pytest.raises(KoboshiError, match="4 environments cannot be divided among 3 specialists"):
        SpecialistEnv(world, None, each, OracleRouter(each, TINY, 0.02), ("policy",))
    with pytest.raises(KoboshiError, match="share mirrored joints need a robot and a task with a mirror"):
        SpecialistEnv(world, None, ASSIGNMENT, OracleRouter(ASSIGNMENT, TINY, 0.02), ("policy",))
    with pytest.raises(KoboshiError, match="observation group 'critic' has no mirror image; with one: policy"):
        router, only = OracleRouter(ASSIGNMENT, TINY, 0.02), mirrors(TINY, {"policy": 4})
        SpecialistEnv(world, None, ASSIGNMENT, router, ("policy", "critic"), only)
