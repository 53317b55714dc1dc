"""`koboshi list ground`: a task's grid of sub-terrains from above, as a picture."""

from __future__ import annotations

from pathlib import Path

import torch

from koboshi.stages.ground_benchmark import ground_of
from koboshi.tasks import TaskCfg
from koboshi.view.ground import ground_map

STEP = 0.05
"""Between two points that are looked at, m."""


def picture(task: TaskCfg, folder: Path) -> Path:
    """Draws it, and says where. KoboshiError where the task's ground is no grid."""
    cfg = ground_of(task)
    grid = cfg.build()
    sides = (cfg.levels * cfg.size, cfg.columns * cfg.size)
    x, y = (torch.arange(-side / 2 + STEP / 2, side / 2, STEP) for side in sides)
    heights = grid.height(*torch.meshgrid(x, y, indexing="xy")).double().numpy()
    path = folder / f"{task.name}.png"
    ground_map(heights, sides, cfg.levels, grid.column_types, path)
    return path
