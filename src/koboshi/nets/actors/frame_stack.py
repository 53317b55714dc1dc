"""A multi-layer perceptron on the last frames, which it keeps itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from koboshi.errors import at_least
from koboshi.nets.actors.base import Actor, ActorCfg, over_time
from koboshi.nets.stack import StackedMLP
from koboshi.vec_env import ObsSpec, State


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
        return over_time(self.network, torch.stack(rows, dim=1)), state

    @staticmethod
    def _frames(x: Tensor, state: Tensor, reset: Tensor) -> Tensor:
        """(K, B, frames, features) up to the present one, x (K, B, features)."""
        newest = x.unsqueeze(2)
        return torch.cat((torch.where(reset[..., None, None], newest, state), newest), dim=2)


@dataclass(frozen=True)
class FrameStackCfg(ActorCfg):
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
