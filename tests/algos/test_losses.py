"""PPO's losses, by hand."""

from __future__ import annotations

import pytest
import torch

from koboshi.algos.ppo import losses


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float32)


def test_masked_mean_ignores_what_is_not_valid_and_is_0_without_data() -> None:
    mask = torch.tensor([[True, False, True], [False, False, False]])
    x = torch.tensor([[1.0, 100.0, 3.0], [1.0, 2.0, 3.0]])
    assert losses.masked_mean(x, mask).tolist() == [2.0, 0.0]
    assert losses.masked_mean(x, None).tolist() == pytest.approx([104 / 3, 2.0])


def test_surrogate_clips_only_gains() -> None:
    # Ratios 1.5 and 0.5 for a good and a bad action each: min(1.5, 1.2), min(−1.5, −1.2), min(.5, .8), min(−.5, −.8).
    ratio, advantage = row(1.5, 1.5, 0.5, 0.5), row(1, -1, 1, -1)
    loss = losses.surrogate(ratio.log(), torch.zeros(1, 4), advantage, 0.2, None)
    assert loss.tolist() == pytest.approx([-(1.2 - 1.5 + 0.5 - 0.8) / 4])


def test_value_loss_takes_the_larger_error() -> None:
    # Moved from 0 to 1, held at 0.2; targets 1 and −1: max(0, 0.8²) and max(2², 1.2²).
    value, old, target = row(1, 1), row(0, 0), row(1, -1)
    assert losses.value_loss(value, old, target, 0.2, None).tolist() == pytest.approx([(0.64 + 4) / 2])
    assert losses.value_loss(value, old, target, None, None).tolist() == pytest.approx([2.0])


def test_mirror_loss_by_hand() -> None:
    # Swapping and a sign: M(1, 2) = (2, −1); the policy gave (2, 1) for the image, so (1 + 1)² = 4.
    ids, signs = torch.tensor([1, 0]), torch.tensor([1.0, -1.0])
    loss = losses.mirror_loss(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[2.0, 1.0]]]), ids, signs, None)
    assert loss.tolist() == [4.0]


def test_advantages_are_normalised_over_valid_samples_of_each_member() -> None:
    advantage = torch.tensor([[1.0, 3.0, 99.0], [10.0, 20.0, 30.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    out = losses.normalized_advantage(advantage, mask)
    assert out[0, :2].tolist() == pytest.approx([-1.0, 1.0])
    assert out[1].tolist() == pytest.approx([-(1.5**0.5), 0.0, 1.5**0.5])
