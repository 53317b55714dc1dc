"""PPO's losses, pure. Per-sample inputs (K, B); each gives one number a member, (K,)."""

from __future__ import annotations

import torch
from torch import Tensor

from koboshi.nets.distributed import mean_over_ranks_, share_of_ranks


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """(K,) means of (K, B) over valid samples; 0 for a member that has none."""
    if mask is None:
        return x.mean(1)
    return (x * mask).sum(1) / mask.sum(1).clamp(min=1)


def surrogate(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float, mask: Tensor | None) -> Tensor:
    """The clipped objective, negated (Schulman et al. 2017, eq. 7)."""
    ratio = (log_prob - old_log_prob).exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    return -masked_mean(gain, mask)


def value_loss(value: Tensor, old: Tensor, target: Tensor, clip: float | None, mask: Tensor | None) -> Tensor:
    """Squared error, the larger of clipped and unclipped, all in normalised units."""
    error = (value - target).square()
    if clip is not None:
        held = old + (value - old).clamp(-clip, clip)
        error = torch.maximum(error, (held - target).square())
    return masked_mean(error, mask)


def mirror_loss(output: Tensor, mirrored_output: Tensor, ids: Tensor, signs: Tensor, mask: Tensor | None) -> Tensor:
    """‖π(M o) − M π(o)‖², summed over actions (Yu et al. 2018, eq. 4)."""
    error = (mirrored_output - output[..., ids] * signs).square().sum(2)
    return masked_mean(error, mask)


def normalized_advantage(advantage: Tensor, mask: Tensor | None) -> Tensor:
    """(K, B) with mean 0 and deviation 1 over each member's valid samples, on all processes together."""
    share = 1 if mask is None else share_of_ranks(mask.sum(1))
    mean = mean_over_ranks_(masked_mean(advantage, mask) * share)[:, None]
    var = mean_over_ranks_(masked_mean((advantage - mean).square(), mask) * share)[:, None]
    return (advantage - mean) / (var.sqrt() + 1e-8)
