"""Stacked actors: K networks that turn observations and what they carry into outputs.

Each has `initial_state(batch)`, one step `forward`, and `sequence` over time, which give the same numbers.
Observations are float and flat, group -> (K, B, d) or (K, T, B, d), already normalised; `reset` (K, B) or
(K, T, B) bool says whose memory begins with this observation; what is carried leads with (K, B).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from koboshi.errors import at_least
from koboshi.nets.stack import StackedLinear, StackedMLP
from koboshi.vec_env import ObsSpec, State


class Actor(nn.Module):
    """What all actors share. `needs_next` and `loss_groups` say what a loss of its own reads besides.

    An actor may define `auxiliary_loss(batch) -> (K,)`: the learner adds it to its own, minibatch by minibatch.
    """

    auxiliary_loss: Callable[[Any], Tensor] | None = None

    carries = False
    """Whether it carries anything from step to step."""
    needs_next = False
    """Whether its loss reads the true next observations, `batch.next_obs`."""
    loss_groups: tuple[str, ...] = ()
    """Groups that only its loss reads."""

    def __init__(self, members: int, specs: Mapping[str, ObsSpec]) -> None:
        """`specs`: of the groups that it acts on, in order."""
        super().__init__()
        self.members, self.groups = members, tuple(specs)
        encoders = [encoder(members, spec) for spec in specs.values()]
        self.encoders = nn.ModuleList(encoders)
        self.features = sum(part.width for part in encoders)
        """Width of what the encoders make of all groups."""

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
        """T steps from `state`: (K, T, B, outputs), and what to carry on."""
        raise NotImplementedError


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


def _over_time(network: StackedMLP, x: Tensor) -> Tensor:
    """A network without memory on (K, T, B, d)."""
    return network(x.flatten(1, 2)).unflatten(1, x.shape[1:3])


class Mlp(Actor):
    """Acts on what it sees now."""

    def __init__(
        self, members: int, specs: Mapping[str, ObsSpec], hidden: Sequence[int], outputs: int, last_gain: float = 0.01
    ) -> None:
        super().__init__(members, specs)
        self.network = StackedMLP(members, self.features, hidden, outputs, last_gain)

    def forward(self, obs: Mapping[str, Tensor], state: State, reset: Tensor) -> tuple[Tensor, State]:
        return self.network(self.encode(obs)), ()

    def sequence(self, obs: Mapping[str, Tensor], state: State, reset: Tensor) -> tuple[Tensor, State]:
        return _over_time(self.network, self.encode(obs)), ()


class FrameStack(Actor):
    """Acts on the last `frames` observations, oldest first; where memory begins, all are the first."""

    carries = True

    def __init__(
        self, members: int, specs: Mapping[str, ObsSpec], frames: int, hidden: Sequence[int], outputs: int
    ) -> None:
        super().__init__(members, specs)
        self.frames = frames
        self.network = StackedMLP(members, frames * self.features, hidden, outputs, last_gain=0.01)

    def initial_state(self, batch: int) -> State:
        """(K, B, frames − 1, features): the frames before this one."""
        return next(self.parameters()).new_zeros(self.members, batch, self.frames - 1, self.features)

    def forward(self, obs: Mapping[str, Tensor], state: State, reset: Tensor) -> tuple[Tensor, State]:
        frames = self._frames(self.encode(obs), state, reset)
        return self.network(frames.flatten(2)), frames[:, :, 1:]

    def sequence(self, obs: Mapping[str, Tensor], state: State, reset: Tensor) -> tuple[Tensor, State]:
        rows = []
        for x, begins in zip(self.encode(obs).unbind(1), reset.unbind(1), strict=True):
            frames = self._frames(x, state, begins)
            state = frames[:, :, 1:]
            rows.append(frames.flatten(2))
        return _over_time(self.network, torch.stack(rows, dim=1)), state

    @staticmethod
    def _frames(x: Tensor, state: Tensor, reset: Tensor) -> Tensor:
        """(K, B, frames, features) up to the present one, x (K, B, features)."""
        newest = x.unsqueeze(2)
        return torch.cat((torch.where(reset[..., None, None], newest, state), newest), dim=2)


class Gru(Actor):
    """A gated recurrent unit (Cho et al. 2014, as in torch.nn.GRU), and a network on what it remembers."""

    carries = True

    def __init__(
        self, members: int, specs: Mapping[str, ObsSpec], units: int, hidden: Sequence[int], outputs: int
    ) -> None:
        super().__init__(members, specs)
        self.units = units
        self.inputs = StackedLinear(members, self.features, 3 * units)
        self.memory = StackedLinear(members, units, 3 * units)
        self.network = StackedMLP(members, units, hidden, outputs, last_gain=0.01)

    def initial_state(self, batch: int) -> State:
        """(K, B, units)."""
        return self.inputs.weight.new_zeros(self.members, batch, self.units)

    def forward(self, obs: Mapping[str, Tensor], state: State, reset: Tensor) -> tuple[Tensor, State]:
        state = self._remember(self.inputs(self.encode(obs)), state, reset)
        return self.network(state), state

    def sequence(self, obs: Mapping[str, Tensor], state: State, reset: Tensor) -> tuple[Tensor, State]:
        x = self.encode(obs)
        inputs = self.inputs(x.flatten(1, 2)).unflatten(1, x.shape[1:3])
        rows = []
        for row, begins in zip(inputs.unbind(1), reset.unbind(1), strict=True):
            state = self._remember(row, state, begins)
            rows.append(state)
        return _over_time(self.network, torch.stack(rows, dim=1)), state

    def _remember(self, inputs: Tensor, state: Tensor, reset: Tensor) -> Tensor:
        """The next (K, B, units) from the gates' inputs (K, B, 3 · units): reset, update, new."""
        state = state * ~reset.unsqueeze(2)
        r, z, n = inputs.chunk(3, dim=2)
        r_memory, z_memory, n_memory = self.memory(state).chunk(3, dim=2)
        new = torch.tanh(n + torch.sigmoid(r + r_memory) * n_memory)
        return torch.lerp(new, state, torch.sigmoid(z + z_memory))


class ActorCfg(Protocol):
    """The settings of an actor; those of another package work as well."""

    @property
    def groups(self) -> tuple[str, ...]:
        """The observation groups that it acts on."""
        ...

    def build(self, members: int, specs: Mapping[str, ObsSpec], outputs: int) -> Actor:
        """`members` of them, for those groups."""
        ...


@dataclass(frozen=True)
class MlpCfg:
    """A multi-layer perceptron with ELU, without memory."""

    groups: tuple[str, ...] = ("policy",)
    hidden: tuple[int, ...] = (128, 128, 128)
    kind: Literal["mlp"] = "mlp"

    def build(self, members: int, specs: Mapping[str, ObsSpec], outputs: int) -> Mlp:
        return Mlp(members, specs, self.hidden, outputs)


@dataclass(frozen=True)
class FrameStackCfg:
    """A multi-layer perceptron on the last frames."""

    groups: tuple[str, ...] = ("policy",)
    frames: int = 4
    """Observations that it sees at once, the present one included."""
    hidden: tuple[int, ...] = (128, 128, 128)
    kind: Literal["frame_stack"] = "frame_stack"

    def validate(self) -> None:
        at_least("actor.frames", self.frames, 1)

    def build(self, members: int, specs: Mapping[str, ObsSpec], outputs: int) -> FrameStack:
        return FrameStack(members, specs, self.frames, self.hidden, outputs)


@dataclass(frozen=True)
class GruCfg:
    """A gated recurrent unit and a multi-layer perceptron behind it."""

    groups: tuple[str, ...] = ("policy",)
    units: int = 128
    hidden: tuple[int, ...] = (128,)
    kind: Literal["gru"] = "gru"

    def validate(self) -> None:
        at_least("actor.units", self.units, 1)

    def build(self, members: int, specs: Mapping[str, ObsSpec], outputs: int) -> Gru:
        return Gru(members, specs, self.units, self.hidden, outputs)


AnyActorCfg = MlpCfg | FrameStackCfg | GruCfg
