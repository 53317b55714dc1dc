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
        timed = [name for name, term in self._terms.items() if term.mode == "interval"]
        self._left = {name: torch.zeros(env.num_envs, device=env.device) for name in timed}

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
                term.func(self._env, mask, **term.params)
        self._env.fields.settle(mask)

    def interval(self, ended: Tensor) -> bool:
        """A control step has passed; nothing happens to environments in `ended` (N,). Whether something may have."""
        happened = torch.zeros_like(ended)
        for name, left in self._left.items():
            left -= self._env.step_dt
            due = (left <= 0) & ~ended
            if anyone(due):
                term = self._terms[name]
                term.func(self._env, due, **term.params)
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
        return {name: left.clone() for name, left in self._left.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, left in self._left.items():
            left.copy_(state[name])
