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


class ValueStatistics:
    """Means, deviations and greatest magnitudes of every term's shaped value, before its clip and its weight."""

    def __init__(self, names: tuple[str, ...], device: torch.device) -> None:
        self._names, self._count = names, 0
        self._sums = torch.zeros(3, len(names), device=device)

    def add(self, values: Tensor) -> None:
        """values: (terms, N) of one step."""
        total, square, most = self._sums
        total += values.sum(1)
        square += values.square().sum(1)
        torch.maximum(most, values.abs().amax(1), out=most)
        self._count += values.shape[1]

    def pop(self) -> dict[str, Tensor]:
        """`value/<term>/mean`, `/std` and `/most`, () each, of all steps since the last call; nothing without any."""
        if not self._count:
            return {}
        total, square, most = self._sums.double()
        mean = total / self._count
        deviation = (square / self._count - mean.square()).clamp(min=0).sqrt()
        self.clear()
        kinds = {"mean": mean, "std": deviation, "most": most}
        return {f"value/{n}/{kind}": x for kind, row in kinds.items() for n, x in zip(self._names, row, strict=True)}

    def clear(self) -> None:
        self._sums.zero_()
        self._count = 0


class RewardManager:
    """Sums terms into a reward and keeps each term's sum over the episode."""

    def __init__(self, terms: dict[str, RewardTerm | None], env: Env) -> None:
        self._env = env
        self._terms = {name: term for name, term in terms.items() if term is not None}
        if not self._terms:
            raise KoboshiError("env.rewards holds no term")
        present, device = self._terms.values(), env.device
        self._weights = torch.tensor([t.weight for t in present], device=device) * env.step_dt
        self._bounds = None
        if any(t.clip for t in present):
            bounds = [t.clip or (-torch.inf, torch.inf) for t in present]
            self._bounds = [torch.tensor(side, device=device)[:, None] for side in zip(*bounds, strict=True)]
        self.sums = torch.zeros(len(self._terms), env.num_envs, device=device)
        self.values = ValueStatistics(tuple(self._terms), device)

    def compute(self, bad: Tensor) -> Tensor:
        """(N,) reward of this control step; 0, and nothing for the sums, where physics failed (`bad` (N,))."""
        values = torch.stack([self._value(name, term) for name, term in self._terms.items()])
        if anyone(bad):
            values.masked_fill_(bad, 0.0)
        self.values.add(values)
        if self._bounds is not None:
            values = values.clamp(*self._bounds)
        values *= self._weights[:, None]
        self.sums += values
        return values.sum(0)

    def _value(self, name: str, term: RewardTerm) -> Tensor:
        value = shaped(term.func(self._env, **term.params), term)
        if value.shape != (self._env.num_envs,):
            raise KoboshiError(f"reward '{name}' has shape {tuple(value.shape)}, not ({self._env.num_envs},)")
        return value

    def blame(self) -> str:
        """The first term whose sum is not finite."""
        bad = ~torch.isfinite(self.sums).all(1)
        return next((n for n, b in zip(self._terms, bad.tolist(), strict=True) if b), "(none)")

    def pop(self, done: Tensor, seconds: Tensor) -> dict[str, Tensor]:
        """Name -> (N,) what each term earned in each of `seconds` (N,); sums of `done` (N,) start again."""
        earned = (self.sums / seconds).unbind()
        self.sums.masked_fill_(done, 0.0)
        return {f"reward/{name}": value for name, value in zip(self._terms, earned, strict=True)}
