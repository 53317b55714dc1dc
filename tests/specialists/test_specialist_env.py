"""The masked environment, around one that only writes down what it is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.robots import UNITREE_H1
from koboshi.specialists.assignment import assign
from koboshi.specialists.env import FORGET, SpecialistEnv
from koboshi.specialists.routing import OracleRouter
from koboshi.vec_env import ActionSpace, Obs, Step

N, J = 4, 19
LEFT, RIGHT, TORSO = (UNITREE_H1.joint_id(name) for name in ("left_knee", "right_knee", "torso"))
ASSIGNMENT = assign(UNITREE_H1, "mirrored_pair", ("left_knee", "right_knee", "torso"))
"""Two members of two environments each: left knee, right knee (mirrored), torso, torso."""
MIRRORS = {
    "policy": (torch.tensor([1, 0, 2, 3]), torch.tensor([1.0, 1.0, -1.0, 1.0])),
    "critic": (torch.tensor([0, 2, 1]), torch.tensor([-1.0, 1.0, 1.0])),
    "action": (torch.from_numpy(UNITREE_H1.mirror_ids), torch.from_numpy(UNITREE_H1.mirror_signs).float()),
}


class Scripted:
    """A `VecEnv` whose faults and ends follow a script: step -> [(environment, joint, severity)]."""

    num_envs, device, action_space = N, torch.device("cpu"), ActionSpace(J)
    obs_dims = {"policy": 4, "critic": 3, "fault": J}

    def __init__(
        self, faults: dict[int, list[tuple[int, int, float]]], ends: dict[int, int], bad: dict[int, int]
    ) -> None:
        self.faults, self.ends, self.bad, self.t = faults, ends, bad, 0
        self.told: list[Tensor] = []
        self.shown: list[Obs] = []
        self.generator = torch.Generator().manual_seed(0)

    def _obs(self) -> Obs:
        obs = {n: torch.randn(N, d, generator=self.generator) for n, d in self.obs_dims.items() if n != "fault"}
        obs["fault"] = torch.zeros(N, J)
        for env, joint, severity in self.faults.get(self.t, []):
            obs["fault"][env, joint] = severity
        self.shown.append(obs)
        return obs

    def reset(self, seed: int) -> Obs:
        self.t = 0
        return self._obs()

    def step(self, action: Tensor) -> Step:
        self.told.append(action)
        self.t += 1
        final, obs = self._obs(), self._obs()
        terminated, valid = torch.zeros(N, dtype=torch.bool), torch.ones(N, dtype=torch.bool)
        if self.t in self.ends:
            terminated[self.ends[self.t]] = True
        if self.t in self.bad:
            valid[self.bad[self.t]] = False
        extras: dict[str, Any] = {"valid": valid, "other": 1} if self.bad else {}
        return Step(obs, torch.zeros(N), terminated, torch.zeros_like(terminated), final, extras)

    def pop_log(self) -> dict[str, float]:
        return {"from": 1.0}

    def state_dict(self) -> dict[str, Tensor]:
        return {"t": torch.tensor(self.t)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.t = int(state["t"])


def mirrored(x: Tensor, group: str) -> Tensor:
    """Row 1 (the right knee's) in the mirror."""
    ids, signs = MIRRORS[group]
    x = x.clone()
    x[1] = signs * x[1, ids]
    return x


def test_who_acts_what_is_seen_and_what_counts(make_policy) -> None:
    healthy = make_policy(1, 4, 3)
    own = [(0, LEFT, 1.0), (1, RIGHT, 0.5), (2, LEFT, 1.0), (3, TORSO, 1.0)]  # environment 2 shows another's fault
    faults = {1: own, 2: own, 3: [own[0], own[2], own[3]], 4: own}
    world = Scripted(faults, ends={3: 1}, bad={4: 3})
    env = SpecialistEnv(world, UNITREE_H1, healthy, ASSIGNMENT, OracleRouter(0.02), MIRRORS)
    obs = env.reset(0)
    acts = [[False] * 4, [True, True, False, True], [True, True, False, True], [True, False, False, True]]
    for t, expected in enumerate(acts):
        acted = torch.tensor(expected)
        assert set(obs) == {"policy", "critic"}
        assert all(torch.equal(obs[group], mirrored(world.shown[-1][group], group)) for group in obs)
        raw, action = world.shown[-1]["policy"], torch.randn(N, J)
        step = env.step(action)
        expected_action = torch.where(acted[:, None], mirrored(action, "action"), healthy.act(raw[None])[0])
        assert torch.equal(world.told[-1], expected_action)
        assert step.extras["valid"].tolist() == [e and not (t == 3 and i == 3) for i, e in enumerate(expected)]
        assert step.extras["other"] == 1
        final = world.shown[-2]
        assert all(torch.equal(step.final_obs[g], mirrored(final[g], g)) for g in ("policy", "critic"))
        obs = step.obs
    falls = env.falls_per_s(2, 0.02)
    assert falls.tolist() == pytest.approx([FORGET, 0.0]), "a fall one step ago, within less than a second"
    torch.testing.assert_close(env.survived[1, 0], torch.tensor(1 + FORGET + FORGET**2))
    env.reset(0)
    assert not env.survived.any()
    assert env.pop_log() == {"from": 1.0}


def test_a_reset_starts_the_router_anew(make_policy) -> None:
    faults = {t: [(0, LEFT, 1.0)] for t in range(12) if t not in (0, 5)}
    world = Scripted(faults, ends={5: 0}, bad={})
    env = SpecialistEnv(world, UNITREE_H1, make_policy(1, 4, 3), ASSIGNMENT, OracleRouter(0.02, 0.04), MIRRORS)
    env.reset(0)
    valid = [bool(env.step(torch.zeros(N, J)).extras["valid"][0]) for _ in range(9)]
    assert valid == [False, False, False, True, True, False, False, False, True]


def test_indivisible() -> None:
    assignment = assign(UNITREE_H1, "joint", ("left_knee", "right_knee", "torso"))
    world = Scripted({}, {}, {})
    with pytest.raises(KoboshiError, match="4 environments cannot be divided among 3 specialists"):
        SpecialistEnv(world, UNITREE_H1, None, assignment, OracleRouter(0.02), MIRRORS)
