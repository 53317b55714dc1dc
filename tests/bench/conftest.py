from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from koboshi.bench.rollout import Recording
from koboshi.faults import Scenario, Scenarios


@pytest.fixture
def recording() -> Callable[..., Recording]:
    """recording(joints, onset steps, rows, step_dt, **columns): T rows of robots that stand still and never fall."""

    def make(joints: list[str | None], onset: list[int], rows: int, step_dt: float, **columns: Any) -> Recording:
        n = len(joints)
        episodes = [
            Scenario(joint, "torque_loss", float(joint is not None), start * step_dt, (0.0, 0.0, 0.0))
            for joint, start in zip(joints, onset, strict=True)
        ]
        still = Recording(
            scenarios=Scenarios("unitree_h1", 0, tuple(episodes)),
            step_dt=step_dt,
            onset=torch.tensor(onset),
            end=torch.full((n,), rows),
            command=torch.zeros(n, 3),
            velocity=torch.zeros(rows, n, 3),
            contact=torch.zeros(rows, n, 2, dtype=torch.bool),
            joint=torch.full((rows, n), -1, dtype=torch.int8),
            probability=None,
            severity=None,
            qpos=torch.zeros(rows, 0, 26),
        )
        return replace(still, **columns)

    return make
