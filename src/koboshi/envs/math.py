"""Rotations as MuJoCo writes them: unit quaternions (w, x, y, z), body to world."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate_inverse(quat: Tensor, vec: Tensor) -> Tensor:
    """World to body frame. quat (N, 4), vec (N, 3) -> (N, 3)."""
    w, xyz = quat[:, :1], quat[:, 1:]
    t = 2.0 * torch.linalg.cross(xyz, vec)
    return vec - w * t + torch.linalg.cross(xyz, t)


def projected_gravity(quat: Tensor) -> Tensor:
    """(N, 3) the direction of gravity in the body frame; (0, 0, −1) upright. Minus the rotation's last row."""
    w, x, y, z = quat.unbind(1)
    return torch.stack((2 * (w * y - x * z), -2 * (w * x + y * z), 2 * (x * x + y * y) - 1), dim=1)


def yaw(quat: Tensor) -> Tensor:
    """(N,) heading about the world's vertical, rad."""
    w, x, y, z = quat.unbind(1)
    return torch.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def to_yaw_frame(heading: Tensor, vec: Tensor) -> Tensor:
    """World to yaw frame, horizontal part. heading (N,), vec (N, ≥2) -> (N, 2)."""
    c, s = heading.cos(), heading.sin()
    x, y = vec[:, 0], vec[:, 1]
    return torch.stack((c * x + s * y, c * y - s * x), dim=1)
