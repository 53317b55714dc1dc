from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from koboshi.bench.rollout import Recording
from koboshi.faults import Fault, Scenario, Scenarios


@pytest.fixture
def recording() -> Callable[..., Recording]:
    """recording(joints, onset steps, rows, step_dt, **columns): T rows of robots that stand still and never fall.

    Each of `joints` is the one that dies at the onset, None for no fault, or faults given outright.
    """

    def make(
        joints: Sequence[str | None | tuple[Fault, ...]], onset: list[int], rows: int, step_dt: float, **columns: Any
    ) -> Recording:
        n = len(joints)
        episodes = []
        for joint, start in zip(joints, onset, strict=True):
            faults = joint if isinstance(joint, tuple) else ()
            if isinstance(joint, str):
                faults = (Fault(joint, onset_s=start * step_dt),)
            episodes.append(Scenario(faults, (0.0, 0.0, 0.0), start * step_dt))
        still = Recording(
            scenarios=Scenarios("unitree_h1", 0, tuple(episodes)),
            step_dt=step_dt,
            onset=torch.tensor(onset),
            end=torch.full((n,), rows),
            command=torch.zeros(rows, n, 3),
            velocity=torch.zeros(rows, n, 3),
            pose=torch.zeros(rows, n, 3),
            target=torch.full((rows, n), math.nan),
            contact=torch.zeros(rows, n, 2, dtype=torch.bool),
            member=torch.full((rows, n), -1, dtype=torch.int16),
            qpos=torch.zeros(rows, 0, 26),
        )
        if "command" in columns:  # the same in every step
            columns["command"] = columns["command"].expand(rows, n, 3)
        return replace(still, **columns)

    return make


@pytest.fixture
def positive() -> Callable[..., bool]:
    """positive(figures, key, …): these are the figures, and all above 0."""
    return lambda figures, *keys: set(figures) == set(keys) and all(value > 0 for value in figures.values())
