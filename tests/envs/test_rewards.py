"""Reward shapes and terms, by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

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
