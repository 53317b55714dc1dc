"""What changed since the row before, by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch

from koboshi.detect.base import CLIP
from koboshi.detect.changes import Changes

DT = 0.02


def ears() -> Any:
    """Three joints, the last a wheel without an angle; senses: one other number, two angles, three speeds."""
    places = {"joint_pos": (1, 2, None), "joint_vel": (3, 4, 5)}

    def place(term: str, absent: int) -> torch.Tensor:
        return torch.tensor([absent if column is None else column for column in places[term]])

    return SimpleNamespace(joint_names=["a", "b", "wheel"], control_dt=DT, obs_dim=6, place=place)


def senses(*angles_and_speeds: tuple[float, ...]) -> torch.Tensor:
    """(T, 1, 6)."""
    return torch.tensor([[(9.0, *row)] for row in angles_and_speeds])


def test_a_jump_is_what_speeds_do_not_explain() -> None:
    """The first joint moves as its speed says, then its encoder jumps by 0.3 rad; the second stops dead."""
    obs = senses(
        (0.0, 1.0, 1.0, 2.0, 5.0), (0.02, 1.04, 1.0, 2.0, 5.0), (0.34, 1.04, 1.0, 0.0, 1.0), (0.36, 1.04, 1.0, 0.0, 1.0)
    )
    found, carried = Changes(ears())(obs, torch.ones(4, 1), torch.zeros(1, 7))
    jump, change = found[:, 0].unbind(1)
    expected = [[0, 0, 0], [0, 0, 0], [math.asinh(0.3), math.asinh(-0.02), 0], [0, 0, 0]]
    torch.testing.assert_close(jump, torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0)
    assert change.tolist() == [[0, 0, 0], [0, 0, 0], [0, -2, -4], [0, 0, 0]]
    torch.testing.assert_close(carried, torch.tensor([[0.36, 1.04, 0.0, 1.0, 0.0, 1.0, 1.0]]))


def test_chunks_give_the_same_and_an_episode_begins_without_a_change() -> None:
    torch.manual_seed(0)
    obs, keep, changes = torch.randn(12, 4, 6), (torch.rand(12, 4) > 0.3).float(), Changes(ears())
    changes.inv_scale.copy_(torch.rand(2, 3) + 0.5)
    whole, end = changes(obs, keep, torch.zeros(4, 7))
    first, state = changes(obs[:5], keep[:5], torch.zeros(4, 7))
    second, last = changes(obs[5:], keep[5:], state)
    assert torch.equal(torch.cat((first, second)), whole) and torch.equal(last, end)
    assert not whole[0].any() and not whole[keep == 0].any()
    assert whole[1:][keep[1:] == 1][:, 1].abs().min() > 0, "but every other row has one"


def test_changes_are_measured_by_what_is_usual_in_sound_joints() -> None:
    """Medians of 0.1, 0.2, 0.3 rad and rad/s; the broken joint's leaps do not count."""
    before = torch.zeros(5, 6)
    now = before.clone()
    now[:, 3] = torch.tensor([10.0, -20.0, 30.0, 900.0, 900.0])  # rad/s: a jump of half of that times Δt
    sound = torch.ones(5, 3, dtype=torch.bool)
    sound[3:, 0] = False
    changes = Changes(ears())
    changes.fit(before, now, sound)
    torch.testing.assert_close(1 / changes.inv_scale[:, 0], torch.tensor([0.2, 20.0]))
    rows, keep = torch.stack((before[:1], now[3:4])), torch.ones(2, 1)
    found, _ = changes(rows, keep, torch.zeros(1, 7))
    torch.testing.assert_close(found[1, 0, 0, 0], torch.tensor(math.asinh(-45.0)))
    assert found[1, 0, 1, 0] == CLIP
