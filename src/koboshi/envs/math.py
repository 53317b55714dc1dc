"""Rotations as MuJoCo writes them: unit quaternions (w, x, y, z), body to world; and angles."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rotation(quat: Tensor, table: Tensor) -> Tensor:
    """(N, 4) -> (N, 3, 3), body to world. `table` is `rotation_table` on the quaternions' device."""
    products = (quat[:, :, None] * quat[:, None]).flatten(1)
    return (products @ table).unflatten(1, (3, 3))


def rotation_table() -> Tensor:
    """(16, 9): all products of two of (w, x, y, z) to a rotation matrix by rows, as one matrix product."""
    w, x, y, z = range(4)
    terms = [
        [(1, w, w), (1, x, x), (-1, y, y), (-1, z, z)], [(2, x, y), (-2, w, z)], [(2, x, z), (2, w, y)],
        [(2, x, y), (2, w, z)], [(1, w, w), (-1, x, x), (1, y, y), (-1, z, z)], [(2, y, z), (-2, w, x)],
        [(2, x, z), (-2, w, y)], [(2, y, z), (2, w, x)], [(1, w, w), (-1, x, x), (-1, y, y), (1, z, z)],
    ]  # fmt: skip
    table = torch.zeros(4, 4, 9)
    for entry, sums in enumerate(terms):
        for factor, a, b in sums:
            table[a, b, entry] = factor
    return table.flatten(0, 1)


def wrapped(angle: Tensor) -> Tensor:
    """The same angles in [−π, π), rad."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def to_yaw_frame(forward: Tensor, vec: Tensor) -> Tensor:
    """World to yaw frame, horizontal part: vec (N, 3) -> (N, 2). forward (N, 2): the frame's x-axis, a unit vector."""
    c, s = forward.unbind(1)
    x, y, _ = vec.unbind(1)
    return torch.stack((c * x + s * y, c * y - s * x), dim=1)
