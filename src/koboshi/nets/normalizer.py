"""Running mean and deviation, one of each for every member of a stack."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from koboshi.nets.distributed import sum_over_ranks


class Normalizer(nn.Module):
    """(K, B, d) -> (K, B, d) with mean 0 and deviation 1, clipped to ±`clip` (None: not at all)."""

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, members: int, dim: int, clip: float | None = 10.0) -> None:
        super().__init__()
        self._clip = clip
        self.register_buffer("mean", torch.zeros(members, 1, dim))
        self.register_buffer("var", torch.ones(members, 1, dim))
        self.register_buffer("count", torch.zeros(members, 1, 1))

    @property
    def deviation(self) -> Tensor:
        """(K, 1, d), bounded below so that a constant input stays finite."""
        return self.var.sqrt().clamp(min=1e-2)

    def forward(self, x: Tensor) -> Tensor:
        normal = (x - self.mean) / self.deviation
        return normal if self._clip is None else normal.clamp_(-self._clip, self._clip)

    def denormalize(self, x: Tensor) -> Tensor:
        """The inverse, without the clip."""
        return x * self.deviation + self.mean

    @torch.no_grad()
    def update(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Takes in a batch (K, B, d); `mask` (K, B) bool says which rows count (Chan et al. 1983)."""
        if mask is None:
            count = torch.full_like(self.count, x.shape[1])
            total, square = x.sum(1, keepdim=True), None
        else:
            weight = mask.unsqueeze(2).to(x.dtype)
            count = weight.sum(1, keepdim=True)
            total, square = (x * weight).sum(1, keepdim=True), weight
        count, total = sum_over_ranks(count), sum_over_ranks(total)
        mean = total / count.clamp(min=1)
        spread = (x - mean).square() if square is None else (x - mean).square() * square
        deviation = sum_over_ranks(spread.sum(1, keepdim=True))
        whole = self.count + count
        share = count / whole.clamp(min=1)
        delta = mean - self.mean
        moments = self.var * self.count + deviation + delta.square() * self.count * share
        self.var.copy_(torch.where(count > 0, moments / whole.clamp(min=1), self.var))
        self.mean += delta * share
        self.count.copy_(whole)

    @torch.no_grad()
    def symmetrize(self, ids: Tensor, signs: Tensor) -> None:
        """As if every row had come with its mirror image `signs * x[ids]`."""
        mirrored = self.mean[..., ids] * signs
        half = (self.mean - mirrored) / 2
        self.var.copy_((self.var + self.var[..., ids]) / 2 + half.square())
        self.mean.copy_((self.mean + mirrored) / 2)
