"""Carried state as a flat dict and back."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.nets.state_tree import flatten, leaves, map_state, unflatten


class Memory(NamedTuple):
    cell: Tensor
    more: tuple[Tensor, ...]


STATE = (torch.arange(3), Memory(torch.ones(2, 2), (torch.tensor([True]),)), ())


def test_there_and_back() -> None:
    flat = flatten(STATE, "robot")
    assert list(flat) == ["robot.0", "robot.1", "robot.2"]
    template = map_state(torch.zeros_like, STATE)
    again = unflatten(template, flat, "robot")
    assert isinstance(again[1], Memory) and again[2] == ()
    assert all(torch.equal(a, b) for a, b in zip(leaves(again), leaves(STATE), strict=True))
    again[0][0] = 7
    assert STATE[0][0] == 0, "a copy"


def test_leaf_by_leaf() -> None:
    total = map_state(lambda a, b: a + b, STATE[:1], (torch.ones(3),))
    assert total[0].tolist() == [1, 2, 3]
    assert map_state(torch.zeros_like, ()) == ()


def test_what_does_not_fit() -> None:
    with pytest.raises(KoboshiError, match=r"carried state 'state.1' is missing"):
        unflatten(STATE, {"state.0": torch.arange(3)})
    with pytest.raises(KoboshiError, match=r"carried state 'state.0' has the shape \(2,\), not \(3,\)"):
        unflatten(STATE, {"state.0": torch.arange(2)})
