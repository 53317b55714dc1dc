"""The one owner of model fields that differ between environments: nominal -> randomised -> faulted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from koboshi.errors import unknown
from koboshi.sim.backend import Backend

Overlay = Callable[[Tensor], Tensor]
"""(N, …) randomised values -> (N, …) what physics gets."""


class ModelFields:
    """Model fields of N simulations, each with three layers.

    *Nominal* is the model's own value. *Randomised* (N, …) is what startup, reset and interval events drew. What
    physics steps with is that under an *overlay*: the faults in force. A fault that ends gives back the randomised
    value, and a value that is drawn anew under a fault stays faulted.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._live: dict[str, Tensor] = {}
        self._nominal: dict[str, Tensor] = {}
        self._randomised: dict[str, Tensor] = {}
        self._overlays: dict[str, Overlay] = {}
        self._derives: set[str] = set()
        self._stale = False

    def expand(self, name: str, derives: bool = False) -> None:
        """Gives each environment its own value of a field; before the first step, for it costs time in every one.

        `derives`: other constants follow from it (masses, lengths), and `settle` computes them anew.
        """
        if derives:
            self._derives.add(name)
        if name not in self._live:
            self._live[name] = self._backend.expand(name)
            self._randomised[name] = self._live[name].clone()
            self._nominal[name] = self._live[name][0].clone()

    def nominal(self, name: str) -> Tensor:
        """(…) the model's own value."""
        return self._found(self._nominal, name)

    def randomised(self, name: str) -> Tensor:
        """(N, …) the value without faults; not to be written to."""
        return self._found(self._randomised, name)

    def live(self, name: str) -> Tensor:
        """(N, …) what physics steps with; not to be written to."""
        return self._found(self._live, name)

    def _found(self, table: dict[str, Tensor], name: str) -> Tensor:
        if name not in table:
            raise unknown("expanded model field", name, table)
        return table[name]

    def overlay(self, name: str, function: Overlay) -> None:
        """What `function` makes of the randomised values is what physics gets."""
        self._found(self._live, name)
        self._overlays[name] = function

    def randomise(self, name: str, mask: Tensor, value: Tensor) -> None:
        """Sets the randomised value of the environments in `mask` (N,) to their rows of `value` (N, …)."""
        field = self.randomised(name)
        field.copy_(torch.where(_like(mask, field), value.to(field.dtype), field))
        self.refresh(name)
        self._stale |= name in self._derives

    def refresh(self, name: str) -> None:
        """Puts the overlay, as it now is, over the randomised values."""
        value = self.randomised(name)
        self._live[name].copy_(self._overlays[name](value) if name in self._overlays else value)

    def restore_nominal(self) -> None:
        """Undoes all randomisation; overlays stay."""
        for name, value in self._randomised.items():
            value.copy_(self._nominal[name].expand_as(value))
            self.refresh(name)
        self._stale = bool(self._derives)

    def settle(self, mask: Tensor | None = None) -> None:
        """Computes the constants that follow from fields randomised since the last call."""
        if self._stale:
            self._backend.set_const(mask)
            self._stale = False

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._randomised.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes the randomised values back; overlays must have been restored before."""
        for name, value in self._randomised.items():
            value.copy_(state[name])
            self.refresh(name)
        self._stale = bool(self._derives)
        self.settle()


def _like(mask: Tensor, field: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (field.ndim - 1))
