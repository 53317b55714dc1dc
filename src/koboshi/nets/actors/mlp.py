"""A multi-layer perceptron without memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from koboshi.nets.actors.base import Actor, ActorCfg
from koboshi.nets.stack import StackedMLP
from koboshi.vec_env import ObsSpec, State


class Mlp(Actor):
    """Acts on what it sees now."""

    def __init__(
        self, members: int, specs: Mapping[str, ObsSpec], hidden: Sequence[int], outputs: int, last_gain: float = 0.01
    ) -> None:
        super().__init__(members, specs)
        self.network = StackedMLP(members, self.features, hidden, outputs, last_gain)

    def forward(self, obs: Mapping[str, Tensor], state: State, reset: Tensor) -> tuple[Tensor, State]:
        return self.network(self.encode(obs)), ()


@dataclass(frozen=True)
class MlpCfg(ActorCfg):
    """A multi-layer perceptron with ELU, without memory."""

    groups: tuple[str, ...] = ("policy",)
    hidden: tuple[int, ...] = (128, 128, 128)
    kind: Literal["mlp"] = "mlp"

    def build(self, members: int, specs: Mapping[str, ObsSpec], outputs: int) -> Mlp:
        return Mlp(members, specs, self.hidden, outputs)
