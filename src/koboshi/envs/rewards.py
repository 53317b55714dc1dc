"""The reward manager: shapes, clips, weights, and a separate log for each term."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from koboshi.envs.cfg import RewardTerm
from koboshi.errors import KoboshiError
from koboshi.sim import anyone

if TYPE_CHECKING:
    from koboshi.envs.env import Env


def shaped(value: Tensor, term: RewardTerm) -> Tensor:
    """(N,) the term's shape of a value (N,) or (N, d); see `RewardTerm`."""
    match term.shape:
        case "raw":
            return _total(value)
        case "l1":
            return _total(value.abs())
        case "l2":
            return _total(value.square())
        case "exp":
            return (_total(value.square()) * (-1.0 / term.scale**2)).exp()
        case "log":
            return (_total(value.square()) / term.scale**2).log1p()
        case "tanh":
            return (_total(value.abs()) / term.scale).tanh()


def _total(value: Tensor) -> Tensor:
    return value if value.ndim == 1 else value.sum(1)


class RewardManager:
    """Sums terms into a reward and keeps each term's sum over the episode."""

    def __init__(self, terms: dict[str, RewardTerm | None], env: Env) -> None:
        self._env = env
        self._terms = {name: term for name, term in terms.items() if term is not None}
        if not self._terms:
            raise KoboshiError("env.rewards holds no term")
        self._weights = torch.tensor([t.weight for t in self._terms.values()], device=env.device) * env.step_dt
        self.sums = torch.zeros(len(self._terms), env.num_envs, device=env.device)

    def compute(self, bad: Tensor) -> Tensor:
        """(N,) reward of this control step; 0, and nothing for the sums, where physics failed (`bad` (N,))."""
        values = torch.stack([self._value(name, term) for name, term in self._terms.items()])
        values *= self._weights[:, None]
        if anyone(bad):
            values.masked_fill_(bad, 0.0)
        self.sums += values
        return values.sum(0)

    def _value(self, name: str, term: RewardTerm) -> Tensor:
        value = shaped(term.func(self._env, **term.params), term)
        if value.shape != (self._env.num_envs,):
            raise KoboshiError(f"reward '{name}' has shape {tuple(value.shape)}, not ({self._env.num_envs},)")
        return value if term.clip is None else value.clamp(*term.clip)

    def blame(self) -> str:
        """The first term whose sum is not finite."""
        bad = ~torch.isfinite(self.sums).all(1)
        return next((n for n, b in zip(self._terms, bad.tolist(), strict=True) if b), "(none)")

    def pop(self, done: Tensor, seconds: float) -> dict[str, Tensor]:
        """Name -> (N,) what each term earned per second of a full episode; sums of `done` (N,) start again."""
        earned = (self.sums / seconds).unbind()
        self.sums.masked_fill_(done, 0.0)
        return {f"reward/{name}": value for name, value in zip(self._terms, earned, strict=True)}
