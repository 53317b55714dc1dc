"""Ground: a shape for physics, its height under any point, and where environments begin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import mujoco
import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.robots.model import BODY, GROUND


class Ground(Protocol):
    """What a scene needs to know of its ground."""

    def add_to(self, spec: mujoco.MjSpec) -> None:
        """Adds its geoms, which collide with everything that asks to touch the ground."""
        ...

    def height(self, points: Tensor) -> Tensor:
        """(…, 2) world x, y -> (…) height of the ground there, m."""
        ...

    def origins(self, num_envs: int, device: torch.device) -> Tensor:
        """(N, 3) where each environment begins, on the ground, m."""
        ...


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
    """A `Ground` without end."""

    def __init__(self, cfg: PlaneCfg) -> None:
        self.cfg = cfg

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

    def height(self, points: Tensor) -> Tensor:
        return self.cfg.height + self.cfg.slope * points[..., 0]

    def origins(self, num_envs: int, device: torch.device) -> Tensor:
        place = torch.zeros(num_envs, 3, device=device)
        place[:, 2] = self.height(place[:, :2])
        return place
