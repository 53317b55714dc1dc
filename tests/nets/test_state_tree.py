"""Carried states as flat dictionaries and back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from koboshi.nets import state_tree


class Named(NamedTuple):
    a: Tensor
    b: tuple[Tensor, tuple[()]]


def test_there_and_back() -> None:
    state = (torch.ones(2), Named(torch.zeros(1), (torch.tensor([7]), ())), ())
    flat = state_tree.flatten(state, "x")
    assert list(flat) == ["x.0", "x.1", "x.2"]
    doubled = state_tree.map_state(lambda t: t * 2, state)
    back = state_tree.unflatten(doubled, flat, "x")
    assert isinstance(back[1], Named) and back[1].b[1] == () and back[2] == ()
    assert [leaf.tolist() for leaf in state_tree.leaves(back)] == [[1, 1], [0], [7]]
    assert [leaf.tolist() for leaf in state_tree.leaves(doubled)] == [[2, 2], [0], [14]]
    flat["x.0"] += 1
    assert back[0].tolist() == [1, 1]  # a copy
