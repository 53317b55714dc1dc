"""The event manager: what happens once, at resets, and every few seconds of an episode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from koboshi.envs.cfg import EventTerm
from koboshi.errors import KoboshiError
from koboshi.sim import anyone

if TYPE_CHECKING:
    from koboshi.envs.env import Env


_GOLDEN = (5**0.5 - 1) / 2
_SHARE = "share of robots"


class EventManager:
    """Runs event terms; those that randomise model fields say which, and the fields are prepared at once."""

    def __init__(self, terms: dict[str, EventTerm | None], env: Env) -> None:
        self._env = env
        self._terms = {name: term for name, term in terms.items() if term is not None and term.active}
        for name, term in self._terms.items():
            if term.mode == "startup" and getattr(term.func, "of_an_episode", False):
                raise KoboshiError(f"event '{name}' is undone by every reset: its mode is reset or interval")
            for field, derives in getattr(term.func, "randomises", ()):
                env.fields.expand(field, derives)
        self.share = 1.0
        """Of the robots that are struck by what differs between worlds; a curriculum may raise it."""
        # Neighbours, which stand on the same kind of ground, are spread over all shares.
        self._rank = torch.arange(env.num_envs, dtype=torch.float64).mul(_GOLDEN).frac().to(env.device)
        timed = [name for name, term in self._terms.items() if term.mode == "interval"]
        self._left = {name: torch.zeros(env.num_envs, device=env.device) for name in timed}

    @property
    def differing(self) -> tuple[str, ...]:
        """Names of the events that make worlds differ after the startup; others only place robots."""
        return tuple(name for name, term in self._terms.items() if term.mode != "startup" and is_change(term))

    def _struck(self, term: EventTerm, mask: Tensor) -> Tensor:
        return mask & (self._rank < self.share) if self.share < 1 and is_change(term) else mask

    def startup(self) -> None:
        """Everything that happens once."""
        self._run("startup", torch.ones(self._env.num_envs, dtype=torch.bool, device=self._env.device))

    def reset(self, mask: Tensor) -> None:
        """New episodes; the clocks of what happens every few seconds start anew."""
        self._run("reset", mask)
        for name, left in self._left.items():
            left.copy_(torch.where(mask, self._interval(name), left))

    def _run(self, mode: str, mask: Tensor) -> None:
        for term in self._terms.values():
            if term.mode == mode:
                term.func(self._env, self._struck(term, mask), **term.params)
        self._env.fields.settle(mask)

    def interval(self, ended: Tensor) -> bool:
        """A control step has passed; nothing happens to environments in `ended` (N,). Whether something may have."""
        happened = torch.zeros_like(ended)
        for name, left in self._left.items():
            left -= self._env.step_dt
            due = (left <= 0) & ~ended
            if anyone(due):
                term = self._terms[name]
                term.func(self._env, self._struck(term, due), **term.params)
                left.copy_(torch.where(due, self._interval(name), left))
                happened |= due
        if anyone(happened):
            self._env.fields.settle(happened)
            return True
        return False

    def _interval(self, name: str) -> Tensor:
        """(N,) seconds until the next time."""
        return self._env.uniform(self._env.num_envs, *self._terms[name].interval_s)

    def state_dict(self) -> dict[str, Tensor]:
        share = {_SHARE: torch.tensor(self.share)} if self.share < 1 else {}
        return {name: left.clone() for name, left in self._left.items()} | share

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, left in self._left.items():
            left.copy_(state[name])
        self.share = float(state.get(_SHARE, 1.0))


def is_change(term: EventTerm) -> bool:
    """Whether an event makes worlds differ, and does more than to place a robot."""
    return term.mode == "interval" or hasattr(term.func, "randomises")
