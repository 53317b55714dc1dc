"""What all detectors share: the actuators' law, who may fail, and how they are asked."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from koboshi.data import OBS, PARTS, Sequences
from koboshi.detect.spec import GROUP, DetectorSpec, expected_torque
from koboshi.errors import KoboshiError

CLIP = 8.0
"""What is normalised is cut off beyond this many times the usual size: in falls."""
TORQUES = 5
"""Numbers of each joint's torque among the features: what was measured, expected and differs, the size of the measured
one, and which part of the expected one is missing."""
SILENT = -100.0
"""The logit of joints that cannot fail."""


class Reading(NamedTuple):
    """What a detector makes of rows (…, D)."""

    logit: Tensor
    """(…, J) of a fault in each joint."""
    kind: Tensor
    """(…, Q, J) logits of the Q kinds of `DetectorSpec.kinds`, were the joint broken; equal where it tells none."""
    severity: Tensor
    """(…, J) 0..1, were the joint broken; 1 where it measures none."""


class Detector(nn.Module):
    """Maps the senses of N robots, streamed or in sequences, to a `Reading`; J joints, D senses, S carried numbers."""

    cfg: Any
    """Its settings."""
    tells = False
    """Whether it tells kinds and severities."""
    law_matrix: Tensor
    law_offset: Tensor
    effort_limit: Tensor
    candidate: Tensor

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec
        self._torque, measured = spec.columns("joint_torque")
        if measured != list(range(len(spec.joint_names))):
            raise KoboshiError("term 'joint_torque' must have all joints in their order")
        matrix, offset = expected_torque(spec)
        self.register_buffer("law_matrix", matrix)
        self.register_buffer("law_offset", offset)
        self.register_buffer("effort_limit", torch.tensor(spec.law.effort_limit, dtype=torch.float32))
        candidate = torch.zeros(len(spec.joint_names), dtype=torch.bool)
        candidate[spec.candidate_ids] = True
        self.register_buffer("candidate", candidate)

    @property
    def device(self) -> torch.device:
        return self.law_matrix.device

    def torques(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D) senses -> (..., J) measured and expected torques, N·m."""
        asked = F.linear(obs, self.law_matrix, self.law_offset)
        return obs[..., self._torque], torch.clamp(asked, -self.effort_limit, self.effort_limit)

    def initial(self, num_envs: int) -> Tensor:
        """(N, S) what is carried before the first row."""
        raise NotImplementedError

    def forward(self, obs: Tensor, reset: Tensor, hidden: Tensor) -> tuple[Reading, Tensor]:
        """(T, N, D) senses, (T, N) bool resets, (N, S) carried -> a reading of (T, N, …), (N, S).

        What is carried into a row with reset does not count.
        """
        raise NotImplementedError

    def step(self, obs: Tensor, reset: Tensor | None, hidden: Tensor) -> tuple[Reading, Tensor]:
        """One row of `forward`: (N, D), (N,) bool or None for no reset, (N, S) -> a reading of (N, …), (N, S)."""
        if reset is None:
            reset = torch.zeros(len(obs), dtype=torch.bool, device=obs.device)
        reading, hidden = self(obs[None], reset[None], hidden)
        return Reading(*(part[0] for part in reading)), hidden

    def fit_scales(self, sequences: list[Sequences], rows: int = 100_000, seed: int = 0) -> None:
        """Sets what is not learnt by gradients from about `rows` rows of training episodes."""
        raise NotImplementedError

    def untold(self, logit: Tensor) -> Reading:
        """A reading that tells neither kinds nor severities."""
        shape = (*logit.shape[:-1], len(self.spec.kinds), logit.shape[-1])
        return Reading(logit, logit.new_zeros(1).expand(shape), logit.new_ones(1).expand(logit.shape))


class SampledRows(NamedTuple):
    """R rows of training episodes, none of them an episode's first."""

    obs: Tensor
    """(R, D) senses."""
    before: Tensor
    """(R, D) those of the row before."""
    severity: Tensor
    """(R, J)."""
    kind: Tensor
    """(R, J) indices into KINDS."""


def sample_rows(
    sequences: list[Sequences], rows: int, seed: int, device: torch.device | str | None = None
) -> SampledRows:
    """About `rows` random rows."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(seq.part.numel() for seq in sequences)
    found: list[tuple[Tensor, ...]] = []
    for seq in sequences:
        size = seq.part.numel()
        index = torch.randint(size, (min(size, max(1, rows * size // total)),), generator=generator)
        step, env = index // seq.num_envs, index % seq.num_envs
        chosen = (seq.part[step, env] == PARTS.index("train")) & (step > 0) & ~seq["reset"][step, env]
        step, env = step[chosen], env[chosen]
        senses = seq[OBS + GROUP]
        found.append((senses[step, env], senses[step - 1, env], seq["severity"][step, env], seq["kind"][step, env]))
    if not sum(len(part[0]) for part in found):
        raise KoboshiError("no training episodes: these data have no split, or one without them; koboshi data --split")
    return SampledRows(*(torch.cat(column).to(device) for column in zip(*found, strict=True)))


def median_of_row(x: Tensor) -> Tensor:
    """(…, n) -> (…, 1), the lower one of two in the middle. ONNX knows no median: what is exported sorts."""
    if torch.compiler.is_exporting():
        middle = (x.shape[-1] - 1) // 2
        return x.sort(dim=-1).values[..., middle : middle + 1]
    return x.median(-1, keepdim=True).values


def median_where(values: Tensor, where: Tensor) -> Tensor:
    """(J,) medians of the chosen entries of each column; NaN where none is chosen."""
    return values.masked_fill(~where, float("nan")).nanmedian(0).values
