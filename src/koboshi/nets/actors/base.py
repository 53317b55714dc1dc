"""Stacked actors: K networks that turn observations and what they carry into outputs.

Each has `initial_state(batch)`, one step `forward`, and `sequence` over time, which give the same numbers.
Observations are float and flat, group -> (K, B, d) or (K, T, B, d), already normalised; `reset` (K, B) or
(K, T, B) bool says whose memory begins with this observation; what is carried leads with (K, B).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from koboshi.nets.stack import Part, StackedMLP
from koboshi.vec_env import Obs, ObsSpec, State


class LossBatch(Protocol):
    """What a loss of an actor's own reads, all (K, B, …) and normalised: B transitions a member."""

    @property
    def obs(self) -> Obs: ...
    @property
    def next_obs(self) -> Obs:
        """The true next observations, falls included, of the actor's `next_groups`."""
        ...

    @property
    def mask(self) -> Tensor | None:
        """(K, B) bool: which transitions teach; None: all."""
        ...


class Actor(nn.Module):
    """What all actors share.

    One may define `auxiliary_loss(batch) -> (K, B)`, a number a transition: beside each gradient step of its own the
    learner takes one against the mean of these over the transitions that teach.
    """

    auxiliary_loss: Callable[[LossBatch], Tensor] | None = None

    carries = False
    """Whether it carries anything from step to step."""
    next_groups: tuple[str, ...] = ()
    """Groups whose true next observations its loss reads."""
    generator: torch.Generator | None = None
    """What a loss that draws draws from: the learner's, which is saved with it."""
    own_rate = 1e-3
    """Learning rate of what is `apart`."""

    def __init__(self, members: int, specs: Mapping[str, ObsSpec]) -> None:
        """`specs`: of the groups that it acts on, in order."""
        super().__init__()
        self.members, self.groups = members, tuple(specs)
        encoders = [encoder(members, spec) for spec in specs.values()]
        self.encoders = nn.ModuleList(encoders)
        self.features = sum(part.width for part in encoders)
        """Width of what the encoders make of all groups."""

    @property
    def apart(self) -> tuple[Part, ...]:
        """What `auxiliary_loss` alone teaches, at `own_rate`: the rest sees what it gives without a gradient."""
        return ()

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        """(K, …, d) of each group -> (K, …, features)."""
        parts = [encode(obs[group]) for group, encode in zip(self.groups, self.encoders, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def initial_state(self, batch: int) -> State:
        """What is carried before the first step of `batch` environments a member."""
        return ()

    def forward(self, obs: Mapping[str, Tensor], state: State, reset: Tensor) -> tuple[Tensor, State]:
        """One step: (K, B, outputs), and what to carry on."""
        raise NotImplementedError

    def sequence(self, obs: Mapping[str, Tensor], state: State, reset: Tensor) -> tuple[Tensor, State]:
        """T steps from `state`: (K, T, B, outputs), and what to carry on. Of an actor that carries nothing, its
        `forward` of them all."""
        steps = reset.shape[1:3]
        output, _ = self({g: obs[g].flatten(1, 2) for g in self.groups}, (), reset.flatten(1, 2))
        return output.unflatten(1, steps), ()


class Flat(nn.Module):
    """The encoder that leaves a group's numbers as they are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x


def encoder(members: int, spec: ObsSpec) -> Flat:
    """What turns a group's numbers (K, …, d) into features (K, …, width): vectors and pictures alike flat."""
    return Flat(spec.width)


def over_time(network: StackedMLP, x: Tensor) -> Tensor:
    """A network without memory on (K, T, B, d)."""
    return network(x.flatten(1, 2)).unflatten(1, x.shape[1:3])


class ActorCfg(Protocol):
    """The settings of an actor; those of another package work as well."""

    @property
    def groups(self) -> tuple[str, ...]:
        """The observation groups that it acts on."""
        ...

    @property
    def loss_groups(self) -> tuple[str, ...]:
        """Groups that only its loss reads."""
        return ()

    def build(self, members: int, specs: Mapping[str, ObsSpec], outputs: int) -> Actor:
        """`members` of them; `specs` are of `groups` and then of `loss_groups`."""
        ...
