"""What a scene needs to know of its ground."""

from __future__ import annotations

from typing import Protocol

import mujoco
from torch import Tensor

from koboshi.terrain.windows import Windows


class Ground(Protocol):
    """A shape for physics, its height under any point, and where environments begin."""

    @property
    def starts(self) -> Tensor:
        """(L, C, 3) where environments begin, by level of difficulty and column, on the ground, m."""
        ...

    @property
    def first_level(self) -> int:
        """The highest level at which environments begin."""
        ...

    @property
    def column_types(self) -> list[str]:
        """The type of ground of each column."""
        ...

    @property
    def windows(self) -> Windows | None:
        """None where every environment's physics holds all of it."""
        ...

    def tile_of(self, points: Tensor) -> Tensor:
        """(…, ≥ 2) world points -> (…) int64, the row of `windows` that holds there."""
        ...

    def add_to(self, spec: mujoco.MjSpec) -> None:
        """Adds its geoms, which collide with everything that asks to touch the ground."""
        ...

    def draw_on(self, spec: mujoco.MjSpec) -> None:
        """Adds all of it, to look at."""
        ...

    def height(self, x: Tensor, y: Tensor) -> Tensor:
        """(…) world x and y -> (…) height of the ground there, m."""
        ...
