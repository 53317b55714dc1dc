"""What happened in ended episodes, summed over all of them, and numbers that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.vec_env import reading_is_free


class EpisodeLog:
    """Sums over episodes that ended, and their number, until they are asked for: a mean weighs each episode alike."""

    def __init__(self, device: torch.device) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}
        """Names -> (names,): what is added together is summed together."""
        self._count = torch.zeros((), device=device)
        self._latest: dict[str, float] = {}

    def add(self, done: Tensor, values: dict[str, Tensor]) -> None:
        """values: name -> (N,) of each environment; only those in `done` (N,) count."""
        self._count = self._count + done.sum()
        names, totals = tuple(values), (torch.stack(tuple(values.values())) * done).sum(1)
        self._sums[names] = self._sums[names] + totals if names in self._sums else totals

    def note(self, name: str, value: float) -> None:
        """A number that is not an episode's: the latest counts."""
        self._latest[name] = value

    def pop(self, beside: Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """Means since the last call, nothing where no episode ended; and `beside`, name -> (), read with them."""
        found, given = dict(self._latest), beside or {}
        # One number read back after the other would make a GPU wait for each.
        row = [x.to(self._count.dtype)[None] for x in given.values()]
        count, *numbers = torch.cat([self._count[None], *row, *self._sums.values()]).cpu().tolist()
        found |= dict(zip(given, numbers, strict=False))
        totals = numbers[len(given) :]
        if count:
            names = (name for group in self._sums for name in group)
            found |= {name: total / count for name, total in zip(names, totals, strict=True)}
        self._sums.clear()
        self._latest.clear()
        self._count = torch.zeros_like(self._count)
        return found


class Guard:
    """Refuses numbers that are not finite: on the CPU at once; elsewhere, where that would wait, once an iteration."""

    def __init__(self) -> None:
        self._flags: dict[str, Tensor] = {}

    def check(self, what: str, value: Tensor, blame: Callable[[], str]) -> None:
        """KoboshiError '{what} … is not finite', with what `blame` finds, where a number of `value` is not."""
        total = value.sum()
        if reading_is_free(total):
            if not math.isfinite(total.item()):
                raise KoboshiError(f"{what} '{blame()}' is not finite")
            return
        bad = ~torch.isfinite(total)
        self._flags[what] = self._flags[what] | bad if what in self._flags else bad

    def settle(self) -> None:
        """Looks at what was only noted."""
        names, flags = list(self._flags), list(self._flags.values())
        self._flags.clear()
        for what, bad in zip(names, torch.stack(flags).cpu().tolist() if flags else (), strict=True):
            if bad:
                raise KoboshiError(f"a number of {what} is not finite")
