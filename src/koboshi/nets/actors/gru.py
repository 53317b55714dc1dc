"""A gated recurrent unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from koboshi.errors import at_least
from koboshi.nets.actors.base import Actor, ActorCfg, over_time
from koboshi.nets.stack import StackedLinear, StackedMLP
from koboshi.vec_env import ObsSpec, State


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
        return over_time(self.network, torch.stack(rows, dim=1)), state

    def _remember(self, inputs: Tensor, state: Tensor, reset: Tensor) -> Tensor:
        """The next (K, B, units) from the gates' inputs (K, B, 3 · units): reset, update, new."""
        state = state * ~reset.unsqueeze(2)
        r, z, n = inputs.chunk(3, dim=2)
        r_memory, z_memory, n_memory = self.memory(state).chunk(3, dim=2)
        new = torch.tanh(n + torch.sigmoid(r + r_memory) * n_memory)
        return torch.lerp(new, state, torch.sigmoid(z + z_memory))


@dataclass(frozen=True)
class GruCfg(ActorCfg):
    """A gated recurrent unit and a multi-layer perceptron behind it."""

    groups: tuple[str, ...] = ("policy",)
    units: int = 128
    hidden: tuple[int, ...] = (128,)
    kind: Literal["gru"] = "gru"

    def validate(self) -> None:
        at_least("actor.units", self.units, 1)

    def build(self, members: int, specs: Mapping[str, ObsSpec], outputs: int) -> Gru:
        return Gru(members, specs, self.units, self.hidden, outputs)
