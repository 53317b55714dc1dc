"""Which faults make robots fall, from what happens in training: those are drawn more often."""

from __future__ import annotations

import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.faults import KINDS, FaultLayer
from koboshi.specialists.charge import SeatTable

FORGET = 0.9995
"""A step's weight in the rates of falls fades by this with every later one: the last 40 s count most."""
DOUBT_S = 30.0
"""A fault under which robots have walked for so long counts half by its own rate of falls, half by that of all."""


class Focus:
    """Draws the first fault of each environment: a share of them by the rate of falls under faults of that kind on that
    joint, the rest evenly.

    An environment's faults stay among those that call its own member first, through the mirror or not as its index
    asks. `falls` and `steps` (K·J,) are what was seen of each fault, column kind · J + joint, fading.
    """

    def __init__(self, faults: FaultLayer, table: SeatTable, seat: Tensor, share: float, step_dt: float) -> None:
        """`seat` (N,): each environment's, row of `table`. KoboshiError where one is nobody's first choice."""
        self._faults, self._share, self._step_dt = faults, share, step_dt
        self._own = (table.of_fault == seat[:, None]) & faults.drawn.flatten()
        if not bool(self._own.any(1).all()):
            raise KoboshiError("specialists.focus needs members of which each is the closest to some fault")
        self._drawn = self._own.any(0)
        self.falls, self.steps = (torch.zeros(self._own.shape[1], device=seat.device) for _ in range(2))

    @property
    def cell(self) -> Tensor:
        """(N,) the column of each environment's first fault; to be asked for before the step that may end it."""
        joints = self._faults.severity.shape[1]
        return self._faults.which[:, 0] * joints + self._faults.joint[:, 0]

    @property
    def alone(self) -> Tensor:
        """(N,) bool: it alone is in force, so that a fall now tells of it; to be asked for with `cell`."""
        return self._faults.first_alone

    def saw(self, cell: Tensor, fell: Tensor, acted: Tensor) -> None:
        """(N,) each, of a step: the fault, whether the robot fell, and whether its own member acted under it alone."""
        for seen, now in ((self.falls, fell & acted), (self.steps, acted)):
            seen.mul_(FORGET).index_add_(0, cell, now.to(seen.dtype))
        self._faults.odds = self._odds()

    def _odds(self) -> Tensor:
        """(N, K, J) up to a factor."""
        seconds = self.steps * self._step_dt
        mean = self.falls.sum() / seconds.sum().clamp(min=1.0)
        rate = (self.falls + mean * DOUBT_S) / (seconds + DOUBT_S)
        common = (rate * self._drawn).sum() / self._drawn.sum()
        # Where nobody has fallen yet all are alike.
        odds = torch.where(common > 0, 1 - self._share + self._share * rate / common.clamp(min=1e-12), 1.0)
        return (self._own * odds).unflatten(1, (len(KINDS), -1))

    def state_dict(self) -> dict[str, Tensor]:
        return {"falls": self.falls.clone(), "steps": self.steps.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.falls.copy_(state["falls"])
        self.steps.copy_(state["steps"])
        self._faults.odds = self._odds()
