"""A toy recording's card, as far as it does not depend on what was recorded."""

from __future__ import annotations

from typing import Any

from koboshi.data import DatasetCard


def toy_card(**fields: Any) -> DatasetCard:
    """`fields`: the robot's joints and law, columns and layouts, and whatever should differ."""
    common: dict[str, Any] = {
        "robot": "toy",
        "task": "toy-walk",
        "command": "koboshi collect toy-walk",
        "commit": "abc",
        "checkpoint": "runs/x.safetensors",
        "checkpoint_sha256": "00",
        "seed": 3,
        "control_dt": 0.02,
        "controller": "healthy",
    }
    return DatasetCard(**common | fields)
