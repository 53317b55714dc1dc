"""Distributions against torch.distributions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributions as reference

from koboshi.nets.distributions import Categorical, Gaussian


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_gaussian() -> None:
    new, old = (Gaussian(randn(2, 5, 3, seed=i), 0.5 * randn(2, 1, 3, seed=i + 2)) for i in range(2))
    action = randn(2, 5, 3, seed=9)
    a, b = (reference.Independent(reference.Normal(d.mean, d.log_std.exp()), 1) for d in (new, old))
    torch.testing.assert_close(new.log_prob(action), a.log_prob(action))
    torch.testing.assert_close(new.entropy().expand(2, 5), a.entropy())
    torch.testing.assert_close(new.kl(old), reference.kl_divergence(b, a))
    assert torch.equal(new.mode(), new.mean)


def test_categorical() -> None:
    new, old = (Categorical(randn(2, 5, 4, seed=i)) for i in range(2))
    action = torch.tensor([[0, 1, 2, 3, 0], [3, 3, 2, 1, 0]])
    a, b = (reference.Categorical(logits=d.logits) for d in (new, old))
    torch.testing.assert_close(new.log_prob(action), a.log_prob(action))
    torch.testing.assert_close(new.entropy(), a.entropy())
    torch.testing.assert_close(new.kl(old), reference.kl_divergence(b, a))
    assert torch.equal(new.mode(), a.probs.argmax(2))


def test_samples_have_the_right_moments_and_follow_the_generator() -> None:
    def draw(distribution: Gaussian | Categorical) -> Tensor:
        return distribution.sample(torch.Generator().manual_seed(3))

    gaussian = Gaussian(torch.tensor([1.0, -2.0]).expand(1, 20000, 2), torch.tensor([[[0.5, 2.0]]]).log())
    sample = draw(gaussian)
    assert torch.equal(sample, draw(gaussian))
    torch.testing.assert_close(sample.mean((0, 1)), torch.tensor([1.0, -2.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(sample.std((0, 1)), torch.tensor([0.5, 2.0]), atol=0.05, rtol=0)

    probabilities = torch.tensor([0.1, 0.6, 0.3])
    choices = draw(Categorical(probabilities.log().expand(1, 20000, 3)))
    assert choices.shape == (1, 20000)
    torch.testing.assert_close(choices[0].bincount(minlength=3) / 20000, probabilities, atol=0.02, rtol=0)
