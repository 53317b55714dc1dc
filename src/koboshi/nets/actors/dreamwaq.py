"""DreamWaQ: a β-variational autoencoder as context estimator (Nahrendra et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from koboshi.nets.actors.base import LossBatch
from koboshi.nets.actors.estimator import Estimator, EstimatorCfg, Truth
from koboshi.nets.stack import Part, StackedMLP
from koboshi.vec_env import ObsSpec


class DreamWaq(Estimator):
    """Guesses the velocity, and a latent of which, with it, the next step can be decoded.

    It acts on the latent's mean; the authors draw it while they train.
    """

    def __init__(
        self,
        members: int,
        specs: Mapping[str, ObsSpec],
        targets: Truth,
        after: Truth,
        latent: int,
        beta: float,
        encoder_hidden: Sequence[int],
        hidden: Sequence[int],
        outputs: int,
    ) -> None:
        super().__init__(members, specs, targets, latent, hidden, outputs)
        self._after, self._beta = after, beta
        self._widths = [targets.width, latent, latent]
        self.next_groups = (after.group,)
        self.encoder = StackedMLP(members, self.features, encoder_hidden, sum(self._widths))
        self.decoder = StackedMLP(members, targets.width + latent, encoder_hidden[::-1], after.width)

    @property
    def apart(self) -> tuple[Part, ...]:
        return (self.encoder, self.decoder)

    def _encoded(self, obs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Estimates, and the latent's mean and log-variance."""
        guess, mean, log_var = self.encoder(self.encode(obs)).split(self._widths, dim=-1)
        return guess, mean, log_var.clamp(-10, 4)

    def insight(self, obs: Mapping[str, Tensor]) -> Tensor:
        return torch.cat(self._encoded(obs)[:2], dim=-1)

    def estimates(self, obs: Mapping[str, Tensor]) -> Tensor:
        return self._encoded(obs)[0]

    def auxiliary_loss(self, batch: LossBatch) -> Tensor:
        guess, mean, log_var = self._encoded(batch.obs)
        drawn = mean + (0.5 * log_var).exp() * torch.randn(mean.shape, generator=self.generator, device=mean.device)
        decoded = self.decoder(torch.cat((guess, drawn), dim=-1))
        error = (guess - self.truths(batch)).square().mean(-1)
        ahead = (decoded - self._after.take(batch.next_obs)).square().mean(-1)
        return error + ahead + self._beta * divergence(mean, log_var)


def divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """(…) KL(N(mean, e^log_var) ‖ N(0, 1)), the mean over the last dimension (Kingma & Welling 2014, eq. 10)."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).mean(-1)


@dataclass(frozen=True)
class DreamWaqCfg(EstimatorCfg):
    """A multi-layer perceptron on the present step, the guessed velocity and a context (Nahrendra et al. 2023).

    The decoder is as wide as the encoder, the last layer first.
    """

    after: tuple[str, ...] = ("base_ang_vel", "projected_gravity", "joint_pos", "joint_vel", "last_action")
    """Terms of the next step that are decoded."""
    latent: int = 16
    beta: float = 1.0
    """Weight of the latent's divergence from a standard normal one."""

    def build(self, members: int, specs: Mapping[str, ObsSpec], outputs: int) -> DreamWaq:
        targets, after = (self.truths(specs, names) for names in (self.targets, self.after))
        sizes = (self.latent, self.beta, self.encoder_hidden, self.hidden, outputs)
        return DreamWaq(members, self.acts_on(specs), targets, after, *sizes)
