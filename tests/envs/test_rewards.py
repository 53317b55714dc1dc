"""Reward shapes and terms, by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import worlds

from koboshi.envs import Env
from koboshi.envs.cfg import RewardTerm
from koboshi.envs.rewards import shaped
from koboshi.envs.terms import rewards


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("raw", -1.0),
        ("l1", 7.0),
        ("l2", 25.0),
        ("exp", math.exp(-25 / 4)),
        ("log", math.log(1 + 25 / 4)),
        ("tanh", math.tanh(3.5)),
    ],
)
def test_shapes(shape: str, expected: float) -> None:
    term = RewardTerm(rewards.alive, 1.0, shape=shape, scale=2.0)
    assert shaped(torch.tensor([[3.0, -4.0]]), term).item() == pytest.approx(expected)
    assert shaped(torch.tensor([2.0]), RewardTerm(rewards.alive, 1.0)).tolist() == [2.0]


def test_limits_begin_at_nine_tenths_of_the_range() -> None:
    pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.2, -0.5], [9.0, -0.95, 0.9]])
    limits = (torch.tensor([-1.0, -0.9, -0.4]), torch.tensor([1.0, 0.9, 0.4]))
    env = SimpleNamespace(state=SimpleNamespace(joint_pos=pos), soft_limits=limits, joint_ids=lambda names: [1, 2])
    assert rewards.joint_pos_limits(env, ("ankles",)).tolist() == pytest.approx([0, 0.3 + 0.1, 0.05 + 0.5])


def test_air_time_counts_the_shorter_clock_in_single_stance() -> None:
    contact = torch.tensor([[True, False], [True, True], [False, False], [False, True], [True, False]])
    air = torch.tensor([[0, 0.3], [0, 0], [0.2, 0.2], [0.7, 0], [0, 0.3]])
    stance = torch.tensor([[0.1, 0], [0.1, 0.1], [0, 0], [0, 0.6], [0.1, 0]])
    command = torch.tensor([[0.5, 0, 0]] * 4 + [[0.05, 0, 0]])
    state = SimpleNamespace(foot_contact=contact, air_time=air, contact_time=stance)
    env = SimpleNamespace(state=state, command=SimpleNamespace(value=command))
    value = rewards.feet_air_time_biped(env)
    assert value.tolist() == pytest.approx([0.1, 0, 0, 0.4, 0])


def test_trot_counts_where_one_pair_stands_and_the_other_swings() -> None:
    """Feet in order FL, FR, RL, RR. A trot; a bound; one leg up; a trot that stands still for too long; standing."""
    contact = torch.tensor([[1, 0, 0, 1], [1, 1, 0, 0], [1, 1, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0]]).bool()
    times = torch.tensor([[0.3, 0.2, 0.02, 0.5], [0.3] * 4, [0.3] * 4, [0.2, 0.2, 0.2, 0.6], [0.2] * 4])
    command = torch.tensor([[0.5, 0, 0]] * 4 + [[0.05, 0, 0]])
    state = SimpleNamespace(foot_contact=contact, air_time=times * ~contact, contact_time=times * contact)
    env = SimpleNamespace(
        foot_ids=lambda names: [["FL", "FR", "RL", "RR"].index(name) for name in names],
        state=state,
        command=SimpleNamespace(value=command),
    )
    value = rewards.trot(env, (("FL", "RR"), ("FR", "RL")))
    assert value.tolist() == pytest.approx([1, 0, 0.25, 0, 0])


def test_air_time_pays_at_the_landing() -> None:
    """Two feet that land after 0.7 and 0.4 s; one that landed a step ago; the landing of a robot told to stand."""
    contact = torch.tensor([[True, True], [True, False], [True, True]])
    stance = torch.tensor([[0.02, 0.02], [0.04, 0.0], [0.02, 0.02]])
    last = torch.tensor([[0.7, 0.4], [0.7, 0.2], [0.7, 0.4]])
    command = torch.tensor([[0.5, 0, 0], [0.5, 0, 0], [0.0, 0.05, 0]])
    state = SimpleNamespace(foot_contact=contact, contact_time=stance, last_air_time=last)
    env = SimpleNamespace(state=state, step_dt=0.02, command=SimpleNamespace(value=command))
    assert rewards.feet_air_time(env).tolist() == pytest.approx([0.2 - 0.1, 0, 0])


def test_clips_and_sums_start_anew() -> None:
    """What a term earns is clipped before its weight; a new episode starts from nothing."""
    terms = {
        "speed": RewardTerm(lambda env: torch.tensor([-3.0, -0.5, 0.5, 3.0]), 10.0, clip=(-1.0, 2.0)),
        "alive": RewardTerm(rewards.alive, 1.0),
    }
    env = Env(worlds.go2(rewards=terms))
    env.reset(0)
    for _ in range(2):
        step = env.step(worlds.zeros(env))
    expected = torch.tensor([-10.0, -5.0, 5.0, 20.0]) * 0.02
    torch.testing.assert_close(step.reward, expected + 0.02)
    torch.testing.assert_close(env.rewards.sums, torch.stack((2 * expected, torch.full((4,), 0.04))))
    env.episode_step[2] = env.cfg.max_episode_length - 1
    env.step(worlds.zeros(env))
    assert env.rewards.sums[:, 2].tolist() == [0.0, 0.0]
    torch.testing.assert_close(env.rewards.sums[1], torch.tensor([0.06, 0.06, 0.0, 0.06]))


def test_a_joint_without_a_range_has_no_limits() -> None:
    env = Env(worlds.endless(worlds.rover()))
    env.reset(0)
    env.qpos[:, env.joints.qpos] = torch.tensor([50.0, -50.0, 1.45, 9.0]).double()
    env.state.refresh_motion(torch.zeros(4, dtype=torch.bool))
    beyond = rewards.joint_pos_limits(env, (".*",))
    torch.testing.assert_close(beyond, torch.full((4,), 1.45 - 0.9 * 1.5), msg="the mast's alone")
