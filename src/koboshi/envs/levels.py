"""Where on the ground each environment begins its episodes, and the window of ground that it holds."""

from __future__ import annotations

import torch
from torch import Tensor

from koboshi.errors import KoboshiError, unknown
from koboshi.sim import Backend, anyone, rows_of
from koboshi.terrain import Ground, Windows


class Levels:
    """N environments on L levels of C columns: a column for good, a level that changes with what was reached.

    level, column: (N,) int64. origins: (N, 3) m, world.
    """

    def __init__(self, ground: Ground, num_envs: int, device: torch.device) -> None:
        self._starts, self._first = ground.starts.to(device), ground.first_level
        self.count, columns = self._starts.shape[:2]
        self._types = ground.column_types
        self.column = torch.arange(num_envs, device=device) * columns // num_envs
        self.level = torch.zeros_like(self.column)
        self._pinned = False

    @property
    def types(self) -> tuple[str, ...]:
        """Types of ground, each once, in the order of their columns."""
        return tuple(dict.fromkeys(self._types))

    def column_of(self, kind: str) -> int:
        """The first column of a type; KoboshiError where there is none."""
        if kind not in self._types:
            raise unknown("type of ground", kind, self.types, "types")
        return self._types.index(kind)

    @property
    def origins(self) -> Tensor:
        return self._starts[self.level, self.column]

    def pin(self, level: Tensor, column: Tensor) -> None:
        """(N,) int64 each: from the next reset on, and for good."""
        self.level, self.column = level.to(self.level.device), column.to(self.level.device)
        self._pinned = True

    def stand_on(self, kind: str, level: int) -> None:
        """Pins all to the first column of a type; KoboshiError where there is no such cell."""
        column = self.column_of(kind)
        if not 0 <= level < self.count:
            raise KoboshiError(f"the ground has levels from 0 to {self.count - 1}, not {level}")
        self.pin(torch.full_like(self.level, level), torch.full_like(self.column, column))

    def draw(self, generator: torch.Generator) -> None:
        """Random levels to begin with."""
        if self.count > 1 and not self._pinned:
            self.level = self._random(self._first + 1, generator)

    def _random(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(count, self.level.shape, generator=generator, device=self.level.device)

    def move(self, up: Tensor, down: Tensor, generator: torch.Generator) -> None:
        """(N,) bool each: a level harder, or easier; who is above the highest gets a random one. Not the pinned."""
        if self._pinned:
            return
        level = (self.level + up.long() - down.long()).clamp(min=0)
        self.level = torch.where(level < self.count, level, self._random(self.count, generator))

    def summary(self) -> dict[str, float]:
        """The mean level, and that of each type of ground that has environments; nothing where there is one level."""
        if self.count == 1:
            return {}
        level, found = self.level.float(), {}
        for name in dict.fromkeys(self._types):
            columns = torch.tensor([kind == name for kind in self._types], device=level.device)
            there = level[columns[self.column]]
            if len(there):
                found[f"terrain/level/{name}"] = float(there.mean())
        return {"terrain/level": float(level.mean()), **found}

    def state_dict(self) -> dict[str, Tensor]:
        return {"level": self.level.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.level = state["level"].to(self.level.device, copy=True)


class WindowView:
    """Puts the ground around each robot into its simulation, in place of what was there before."""

    def __init__(self, windows: Windows, backend: Backend) -> None:
        device, model = backend.device, backend.model
        boxes, size = [model.geom(name).id for name in windows.boxes], windows.size.to(device)
        ids = torch.tensor(boxes, device=device)
        aabb = torch.cat((torch.zeros_like(size), size), -1)
        sizes = {"geom_size": size, "geom_rbound": size.norm(dim=-1), "geom_aabb": aabb}
        self._tables = [(backend.expand(name), ids, rows) for name, rows in sizes.items()]
        pos = windows.pos.to(device)
        if windows.field_lift is not None:
            geom = model.geom(windows.field)
            place = torch.tensor(geom.pos, dtype=torch.float32, device=device).repeat(len(pos), 1, 1)
            place[..., 2] += windows.field_lift.to(device)[:, None]
            pos, ids = torch.cat((pos, place), 1), torch.tensor([*boxes, geom.id], device=device)
        self._tables += [(places, ids, pos) for places in backend.world_geom_pos()]
        self._tile = torch.full((backend.num_envs,), -1, device=device)

    def show(self, tile: Tensor, mask: Tensor | None = None) -> None:
        """tile: (N,) int64, of the environments in `mask` (N,) bool; None: of all."""
        moved = tile != self._tile if mask is None else (tile != self._tile) & mask
        if not anyone(moved):
            return
        self._tile = torch.where(moved, tile, self._tile)
        which = rows_of(moved)
        for live, ids, rows in self._tables:
            live[which[:, None], ids] = rows[self._tile[which]].to(live.dtype)

    def state_dict(self) -> dict[str, Tensor]:
        return {"tile": self._tile.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._tile = torch.full_like(self._tile, -1)
        self.show(state["tile"].to(self._tile.device))
