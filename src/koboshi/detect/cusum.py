"""The simplest detector: a CUSUM test (Page 1954) on the actuators' residual, nothing learnt."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from koboshi.data import Sequences
from koboshi.detect.base import SILENT, Detector, Reading, median_of_row, median_where, sample_rows
from koboshi.detect.spec import DetectorSpec
from koboshi.errors import KoboshiError

NORMAL = 1.4826
"""A normal distribution's deviation over its median absolute deviation."""


@dataclass(frozen=True)
class CusumCfg:
    """A test of "the residual's deviation is σ" against "it is `ratio` · σ"."""

    ratio: float = 4.0
    most: float = 40.0
    """Evidence is kept between 0 and this."""
    level: float = 14.0
    """Evidence at which the probability is a half."""

    def validate(self) -> None:
        if not (self.ratio > 1 and 0 < self.level < self.most):
            raise KoboshiError(
                f"a CUSUM's ratio is above 1 and its level below most, not {self.ratio}, {self.level} and {self.most}"
            )


class ResidualCusum(Detector):
    """Adds up, a joint, the log-likelihood ratio z² (1 − 1/ratio²) / 2 − ln ratio of its torque's residual z · σ.

    σ is what healthy joints show, a joint. What all joints of a robot show at once is the world: a row's z are
    divided by their median size where that exceeds what a normal distribution has.
    """

    sigma: Tensor

    def __init__(self, spec: DetectorSpec, cfg: CusumCfg | None = None) -> None:
        super().__init__(spec)
        self.cfg = cfg or CusumCfg()
        self.cfg.validate()
        self.register_buffer("sigma", torch.ones(len(spec.joint_names)))

    def initial(self, num_envs: int) -> Tensor:
        """(N, J) evidence."""
        return self.sigma.new_zeros(num_envs, len(self.sigma))

    def forward(self, obs: Tensor, reset: Tensor, hidden: Tensor) -> tuple[Reading, Tensor]:
        measured, expected = self.torques(obs)
        z = ((expected - measured) / self.sigma).abs()
        z = z / (NORMAL * median_of_row(z)).clamp(min=1.0)
        gains = 0.5 * z.square() * (1 - self.cfg.ratio**-2) - math.log(self.cfg.ratio)
        rows = []
        for gain, first in zip(gains, reset, strict=True):
            hidden = (hidden.masked_fill(first[:, None], 0.0) + gain).clamp(0.0, self.cfg.most)
            rows.append(hidden)
        logit = torch.stack(rows) - self.cfg.level
        return self.untold(logit.masked_fill(~self.candidate, SILENT)), hidden

    @torch.no_grad()
    def fit_scales(self, sequences: list[Sequences], rows: int = 100_000, seed: int = 0) -> None:
        sampled = sample_rows(sequences, rows, seed, self.device)
        measured, expected = self.torques(sampled.obs)
        size = NORMAL * median_where((measured - expected).abs(), sampled.severity == 0).nan_to_num(0.0)
        self.sigma.copy_(size.clamp(min=1e-3 * self.effort_limit))
