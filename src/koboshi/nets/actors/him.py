"""HIM: the hybrid internal model (Long et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize

from koboshi.nets.actors.base import LossBatch
from koboshi.nets.actors.estimator import Estimator, EstimatorCfg, Truth
from koboshi.nets.stack import Part, StackedMLP
from koboshi.vec_env import ObsSpec

TEMPERATURE, EPSILON, ITERATIONS = 3.0, 0.05, 3
"""Of the softmax over prototypes and of Sinkhorn's assignment, as in the authors' settings."""


class Him(Estimator):
    """Guesses the next velocity, and a latent that says as much of the next step as that step itself does.

    The latents of both, of unit length, are told apart by prototypes, each by the assignment of the other (SwAV,
    Caron et al. 2020).
    """

    looks_ahead = True

    def __init__(
        self,
        members: int,
        specs: Mapping[str, ObsSpec],
        targets: Truth,
        after: Truth,
        latent: int,
        prototypes: int,
        encoder_hidden: Sequence[int],
        hidden: Sequence[int],
        outputs: int,
    ) -> None:
        super().__init__(members, specs, targets, latent, hidden, outputs)
        self._after = after
        self.next_groups = (targets.group,)
        self.encoder = StackedMLP(members, self.features, encoder_hidden, targets.width + latent)
        self.target = StackedMLP(members, after.width, encoder_hidden, latent)
        self.prototypes = nn.Parameter(normalize(torch.randn(members, prototypes, latent), dim=-1))

    @property
    def apart(self) -> tuple[Part, ...]:
        return (self.encoder, self.target, self.prototypes)

    def _encoded(self, obs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        whole = self.encoder(self.encode(obs))
        return whole[..., : self.targets.width], normalize(whole[..., self.targets.width :], dim=-1)

    def insight(self, obs: Mapping[str, Tensor]) -> Tensor:
        return torch.cat(self._encoded(obs), dim=-1)

    def estimates(self, obs: Mapping[str, Tensor]) -> Tensor:
        return self._encoded(obs)[0]

    def auxiliary_loss(self, batch: LossBatch) -> Tensor:
        guess, source = self._encoded(batch.obs)
        target = normalize(self.target(self._after.take(batch.next_obs)), dim=-1)
        error = (guess - self.truths(batch)).square().mean(-1)
        # The authors put the prototypes back to unit length after each step; here only their direction counts.
        directions = normalize(self.prototypes, dim=-1).transpose(1, 2)
        return error + swapped_prediction(source @ directions, target @ directions, batch.mask)


def swapped_prediction(a: Tensor, b: Tensor, mask: Tensor | None) -> Tensor:
    """(K, B) −½ (q_a · log p_b + q_b · log p_a) / P of two scores (K, B, P): each predicts the other's assignment."""
    with torch.no_grad():
        q_a, q_b = sinkhorn(a, mask), sinkhorn(b, mask)
    p_a, p_b = (log_softmax(x / TEMPERATURE, dim=-1) for x in (a, b))
    return -0.5 * (q_a * p_b + q_b * p_a).mean(-1)


def sinkhorn(scores: Tensor, mask: Tensor | None) -> Tensor:
    """(K, B, P) shares of the prototypes in each row: of scores (K, B, P), such that each prototype gets as much.

    Sinkhorn's algorithm with few iterations (Caron et al. 2020); rows outside `mask` (K, B) count for nothing.
    """
    q = (scores / EPSILON).exp()
    if mask is not None:
        q = q * mask[..., None]
    for _ in range(ITERATIONS):
        q = q / q.sum(1, keepdim=True).clamp(min=1e-30)
        q = q / q.sum(2, keepdim=True).clamp(min=1e-30)
    return q


@dataclass(frozen=True)
class HimCfg(EstimatorCfg):
    """A multi-layer perceptron on the present step, the velocity guessed at the next step and a latent (Long et al.
    2024)."""

    after: tuple[str, ...] = (
        "base_lin_vel",
        "base_ang_vel",
        "projected_gravity",
        "joint_pos",
        "joint_vel",
        "last_action",
    )
    """Terms that the latent foretells: one step without its command."""
    latent: int = 16
    prototypes: int = 32

    def build(self, members: int, specs: Mapping[str, ObsSpec], outputs: int) -> Him:
        targets, after = (self.truths(specs, names) for names in (self.targets, self.after))
        sizes = (self.latent, self.prototypes, self.encoder_hidden, self.hidden, outputs)
        return Him(members, self.acts_on(specs), targets, after, *sizes)
