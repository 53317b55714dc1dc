"""What actors share that act on what they see now and on what they make of their history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.nets.actors.base import Actor, ActorCfg, LossBatch
from koboshi.nets.stack import StackedMLP
from koboshi.vec_env import ObsSpec, State


@dataclass(frozen=True)
class Truth:
    """Terms of a privileged group, taken by name: what an estimate is compared with."""

    group: str
    names: tuple[str, ...]
    places: tuple[slice, ...]

    @staticmethod
    def of(specs: Mapping[str, ObsSpec], group: str, names: Iterable[str]) -> Truth:
        """KoboshiError where the group has no term of such a name."""
        names = tuple(names)
        try:
            return Truth(group, names, tuple(specs[group].place(name) for name in names))
        except KoboshiError as error:
            raise KoboshiError(f"observation group '{group}': {error}") from error

    @property
    def width(self) -> int:
        return sum(place.stop - place.start for place in self.places)

    def take(self, obs: Mapping[str, Tensor]) -> Tensor:
        """(K, …, width): the terms beside each other."""
        return torch.cat([obs[self.group][..., place] for place in self.places], dim=-1)

    def split(self, x: Tensor) -> dict[str, Tensor]:
        """(K, …, width) as name -> (K, …, its width)."""
        parts = x.split([place.stop - place.start for place in self.places], dim=-1)
        return dict(zip(self.names, parts, strict=True))


class Present:
    """The part of groups that is of the present step."""

    def __init__(self, specs: Mapping[str, ObsSpec]) -> None:
        self._places = {group: spec.newest for group, spec in specs.items()}
        self.width = sum(place.stop - place.start for place in self._places.values())

    def __call__(self, obs: Mapping[str, Tensor]) -> Tensor:
        """(K, B, width) from (K, B, d) of each group."""
        return torch.cat([obs[group][..., place] for group, place in self._places.items()], dim=-1)


def check_history(specs: Mapping[str, ObsSpec]) -> None:
    """KoboshiError where groups whose numbers have names hold nothing of the past."""
    if all(spec.terms for spec in specs.values()) and not any(term.is_past for s in specs.values() for term in s.terms):
        names = ", ".join(specs)
        raise KoboshiError(
            f"an estimator looks at a history, and observation group {names} has none; "
            f"give env.observations.{next(iter(specs))}.history_length=6"
        )


class Estimator(Actor):
    """Acts on the present step of its groups and on `insight(everything in them)`, which passes no gradient on.

    It carries nothing: its groups have the history that it looks at (`ObsGroup.history_length`).
    """

    looks_ahead = False
    """Whether it guesses them at the next step."""

    def __init__(
        self,
        members: int,
        specs: Mapping[str, ObsSpec],
        targets: Truth,
        latent: int,
        hidden: Sequence[int],
        outputs: int,
    ) -> None:
        """`specs`: of the groups that it acts on; `targets`: what `estimates` guesses; `latent`: how many numbers
        `insight` gives besides."""
        super().__init__(members, specs)
        check_history(specs)
        self.targets, self._now = targets, Present(specs)
        width = self._now.width + targets.width + latent
        self.trunk = StackedMLP(members, width, hidden, outputs, last_gain=0.01)

    def insight(self, obs: Mapping[str, Tensor]) -> Tensor:
        """(K, B, targets.width + latent) from (K, B, d) of the groups that it acts on."""
        raise NotImplementedError

    def estimates(self, obs: Mapping[str, Tensor]) -> Tensor:
        """(K, B, targets.width), in the unit of the normalised targets."""
        raise NotImplementedError

    def truths(self, batch: LossBatch) -> Tensor:
        """(K, B, targets.width): what `estimates` should have been."""
        return self.targets.take(batch.next_obs if self.looks_ahead else batch.obs)

    def forward(self, obs: Mapping[str, Tensor], state: State, reset: Tensor) -> tuple[Tensor, State]:
        with torch.no_grad():
            insight = self.insight(obs)
        return self.trunk(torch.cat((insight, self._now(obs)), dim=-1)), ()


@dataclass(frozen=True)
class EstimatorCfg(ActorCfg):
    """What the settings of all estimators share."""

    groups: tuple[str, ...] = ("policy",)
    truth: str = "critic"
    """The group that the targets are in."""
    targets: tuple[str, ...] = ("base_lin_vel",)
    """Terms that are guessed."""
    encoder_hidden: tuple[int, ...] = (128, 64)
    hidden: tuple[int, ...] = (128, 128, 128)

    @property
    def loss_groups(self) -> tuple[str, ...]:
        return (self.truth,)

    def acts_on(self, specs: Mapping[str, ObsSpec]) -> dict[str, ObsSpec]:
        """Those of the groups that it acts on."""
        return {group: specs[group] for group in self.groups}

    def truths(self, specs: Mapping[str, ObsSpec], names: Iterable[str]) -> Truth:
        """Terms of the group `truth`; KoboshiError for one that it lacks."""
        return Truth.of(specs, self.truth, names)
