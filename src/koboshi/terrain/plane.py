"""One plane under everything."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.robots.model import BODY, GROUND


@dataclass(frozen=True)
class PlaneCfg:
    """One plane under everything."""

    height: float = 0.0
    """At x = 0, m."""
    slope: float = 0.0
    """How far it rises per metre of x."""
    friction: float = 1.0

    def validate(self) -> None:
        if not all(map(math.isfinite, (self.height, self.slope))) or not self.friction >= 0:
            raise KoboshiError(f"env.scene.ground: height and slope are finite, friction at least 0, not {self}")

    def build(self) -> Plane:
        return Plane(self)


class Plane:
    """A `Ground` without end: one cell, which every environment holds."""

    windows = None
    first_level = 0
    column_types = ["plane"]

    def __init__(self, cfg: PlaneCfg) -> None:
        self.cfg = cfg
        self.starts = torch.tensor([[[0.0, 0.0, cfg.height]]])

    def tile_of(self, points: Tensor) -> Tensor:
        return torch.zeros(points.shape[:-1], dtype=torch.int64, device=points.device)

    def add_to(self, spec: mujoco.MjSpec) -> None:
        half = -math.atan(self.cfg.slope) / 2
        spec.worldbody.add_geom(
            name="ground",
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=(0, 0, 1),
            pos=(0, 0, self.cfg.height),
            quat=(math.cos(half), 0, math.sin(half), 0),
            friction=(self.cfg.friction, 0.005, 0.0001),
            contype=GROUND,
            conaffinity=BODY,
        )

    draw_on = add_to

    def height(self, x: Tensor, y: Tensor) -> Tensor:
        return self.cfg.height + self.cfg.slope * x
