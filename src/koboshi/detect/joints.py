"""One network, the same for all joints, that follows each joint's own senses: broken, in which way, how much."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from koboshi.detect.base import TORQUES, Reading, median_of_row
from koboshi.detect.changes import ROWS, Changes
from koboshi.detect.memories import build_memory
from koboshi.detect.spec import DetectorSpec

CONTEXT = 16
"""Numbers about the whole robot that each joint's memory is told."""
TERMS = ("joint_pos", "joint_vel", "last_action")
"""Senses of a number a joint, beside `TORQUES`."""


class Sizes(Protocol):
    """What of a detector's settings it needs."""

    @property
    def memory(self) -> str: ...
    @property
    def span(self) -> int | None: ...
    @property
    def joint(self) -> int: ...


class JointReader(nn.Module):
    """What all joints show at once is the world, what one shows alone is a fault: beside its own normalised senses
    and torques, and what changed since the row before, a joint is told how much of the expected torque is missing
    beyond what is missing in the median joint.
    """

    place: Tensor

    def __init__(self, spec: DetectorSpec, cfg: Sizes, context: int) -> None:
        """`context`: width of what is told of the whole robot."""
        super().__init__()
        self._joints, self._kinds = len(spec.joint_names), len(spec.kinds)
        self.register_buffer("place", _places(spec))
        self.changes = Changes(spec)
        self.context = nn.Linear(context, CONTEXT)
        own = len(self.place) + 1 + 2 * ROWS
        self.embed = nn.Linear(own + CONTEXT, cfg.joint)
        self.memory = build_memory(cfg.memory, cfg.joint, cfg.joint, cfg.span or 0)
        self.head = nn.Linear(self.memory.width, 2 + self._kinds)
        self._sizes = [self._joints * self.memory.carried, self.changes.carried]
        self.carried = sum(self._sizes)

    def forward(
        self, obs: Tensor, features: Tensor, context: Tensor, keep: Tensor, state: Tensor
    ) -> tuple[Reading, Tensor]:
        """(T, N, D) senses, (T, N, F) features, normalised, (T, N, W) of the robot, (T, N) keep, (N, S) carried."""
        steps, envs = features.shape[:2]
        state, before = state.split(self._sizes, -1)
        changes, before = self.changes(obs, keep, before)
        own = F.pad(features, (0, 1))[..., self.place]  # (T, N, F', J), 0 where a joint lacks a term
        missing = own[..., -1:, :]
        beyond = missing - median_of_row(missing)
        # Sizes too: the side to which an angle jumps means little.
        own = torch.cat((own, beyond, changes, changes.abs()), -2).mT
        robot = self.context(context)[..., None, :].expand(-1, -1, self._joints, -1)
        rows = F.elu(self.embed(torch.cat((own, robot), -1)))
        carried = state.reshape(envs * self._joints, -1)
        remembered, carried = self.memory(rows.flatten(1, 2), keep.repeat_interleave(self._joints, 1), carried)
        logit, severity, *kinds = self.head(remembered).view(steps, envs, self._joints, -1).unbind(-1)
        reading = Reading(logit, torch.stack(kinds, -2), severity.sigmoid())
        return reading, torch.cat((carried.reshape(envs, -1), before), 1)


def _places(spec: DetectorSpec) -> Tensor:
    """(F', J) where among the features each joint's own lie; one past the last where it lacks the term."""
    joints, senses = len(spec.joint_names), spec.obs_dim
    torques = senses + torch.arange(TORQUES * joints).view(TORQUES, joints)
    return torch.stack([*(spec.place(term, senses + torques.numel()) for term in TERMS), *torques])
