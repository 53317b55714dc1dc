"""What a policy's output means: a diagonal Gaussian, or one of several choices. Shapes lead with (K, B)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_LOG_2PI = math.log(2 * math.pi)


class Gaussian(NamedTuple):
    """Diagonal: mean (K, B, A), log_std (K, 1, A)."""

    mean: Tensor
    log_std: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device)
        return torch.addcmul(self.mean, noise, self.log_std.exp())

    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """(K, B)."""
        z = (action - self.mean) * (-self.log_std).exp()
        constant = self.log_std.sum(2) + 0.5 * _LOG_2PI * action.shape[2]
        return z.square().sum(2).mul(-0.5) - constant

    def entropy(self) -> Tensor:
        """(K, 1)."""
        return (self.log_std + 0.5 * (1 + _LOG_2PI)).sum(2)

    def kl(self, old: Gaussian) -> Tensor:
        """(K, B) KL(old ‖ self)."""
        ratio = (2 * (old.log_std - self.log_std)).exp()
        shift = (old.mean - self.mean).square() * (-2 * self.log_std).exp()
        return 0.5 * (shift.sum(2) + (ratio - 1).sum(2)) + (self.log_std - old.log_std).sum(2)


class Categorical(NamedTuple):
    """logits (K, B, A); actions are (K, B) int64."""

    logits: Tensor

    @property
    def log_probs(self) -> Tensor:
        return self.logits.log_softmax(2)

    def sample(self, generator: torch.Generator) -> Tensor:
        probs = self.log_probs.exp()
        return torch.multinomial(probs.flatten(0, 1), 1, generator=generator).view(probs.shape[:2])

    def mode(self) -> Tensor:
        return self.logits.argmax(2)

    def log_prob(self, action: Tensor) -> Tensor:
        return self.log_probs.gather(2, action.unsqueeze(2)).squeeze(2)

    def entropy(self) -> Tensor:
        """(K, B)."""
        log_probs = self.log_probs
        return -(log_probs.exp() * log_probs).sum(2)

    def kl(self, old: Categorical) -> Tensor:
        log_probs = old.log_probs
        return (log_probs.exp() * (log_probs - self.log_probs)).sum(2)


Distribution = Gaussian | Categorical
