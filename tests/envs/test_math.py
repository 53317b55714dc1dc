"""Rotations against MuJoCo's own."""

from __future__ import annotations

import mujoco
import numpy as np
import torch

from koboshi.envs import math


def test_rotation_matrices_are_mujocos() -> None:
    quats = torch.nn.functional.normalize(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    expected = np.empty((50, 9))
    for quat, matrix in zip(quats.double().numpy(), expected, strict=True):
        mujoco.mju_quat2Mat(matrix, quat)
    found = math.rotation(quats, math.rotation_table()).flatten(1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_the_yaw_frame_by_hand() -> None:
    # Facing the world's y-axis, what moves along the world's x-axis moves to the right: v_y = -1.
    forward = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
    seen = math.to_yaw_frame(forward, torch.tensor([[1.0, 0.0, 5.0], [2.0, 3.0, 5.0], [0.6, 0.8, 5.0]]))
    torch.testing.assert_close(seen, torch.tensor([[0.0, -1.0], [2.0, 3.0], [1.0, 0.0]]))
