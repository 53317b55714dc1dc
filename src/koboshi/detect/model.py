"""The fault detector: PD residual features, one GRU, one logit a joint."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter
from torch import Tensor, nn
from torch.nn import functional as F

from koboshi.data import DatasetCard, PdCard, Sequences
from koboshi.errors import KoboshiError, unknown

SENSES = ("joint_pos", "joint_vel", "last_action", "joint_torque")
"""Observation terms of J numbers that the features are made of."""
MOST_EVIDENCE = 16.0
CLIP = 8.0
"""Normalised features beyond this many standard deviations (falls) are cut off."""


@dataclass(frozen=True)
class DetectorCfg:
    """Sizes of the network."""

    embed: int = 128
    """Width of the layer before the GRU."""
    hidden: int = 128
    """Width of the GRU."""
    evidence: int = 24
    """Hidden width of the small network, shared by all joints, that weighs one joint's torques in one row."""


@dataclass(frozen=True)
class DetectorSpec:
    """What a detector must know about the robot it listens to; it is saved with the weights."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    robot: str
    layout: list[tuple[str, int, int]]
    joint_names: list[str]
    candidates: list[str]
    control_dt: float
    pd: PdCard
    layout_hash: str

    @classmethod
    def from_card(cls, card: DatasetCard) -> DetectorSpec:
        return cls(
            card.robot,
            card.layout,
            card.joint_names,
            card.candidates,
            card.control_dt,
            card.pd,
            card.layout_hash,
        )

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> DetectorSpec:
        return TypeAdapter(cls).validate_python(raw)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def obs_dim(self) -> int:
        return sum(width for _, _, width in self.layout)

    @property
    def candidate_ids(self) -> list[int]:
        return [self.joint_names.index(name) for name in self.candidates]

    def columns(self, term: str) -> slice:
        """Where a term of J numbers lies in an observation."""
        for name, start, width in self.layout:
            if name == term:
                if width != len(self.joint_names):
                    raise KoboshiError(f"term '{term}' has {width} numbers for {len(self.joint_names)} joints")
                return slice(start, start + width)
        raise unknown("observation term", term, [name for name, _, _ in self.layout])


class FaultDetector(nn.Module):
    """Maps the senses of N robots to J logits each: how likely has this joint failed.

    The controller knows which torque its PD law asks for, so the features beside the D normalised senses
    are, a joint: measured torque, expected torque, their difference (as asinh(x / scale), so that 0.2 and
    100 N·m both count), the measured torque's size over the noise and the missing part of the expected torque.

    A joint's logit is what the GRU says of it, plus evidence: one small network, the same for all joints,
    weighs a joint's own torques in each row, and what it says adds up between 0 and `MOST_EVIDENCE`, as in a
    CUSUM test (Page 1954). It learns from every fault on every joint, the GRU knows the gait.
    Joints that are no candidates have a logit of less than -50.
    """

    mean: Tensor
    inv_std: Tensor
    pd_matrix: Tensor
    effort_limit: Tensor
    inv_scale: Tensor
    floor: Tensor

    def __init__(self, spec: DetectorSpec, cfg: DetectorCfg | None = None) -> None:
        super().__init__()
        self._by_name: dict[str, Tensor] | None = None
        self.spec, self.cfg = spec, cfg or DetectorCfg()
        joints, features = len(spec.joint_names), spec.obs_dim + 5 * len(spec.joint_names)
        self._torque = spec.columns("joint_torque")
        self.register_buffer("pd_matrix", _pd_matrix(spec))
        limit = torch.tensor(spec.pd.effort_limit, dtype=torch.float32)
        self.register_buffer("effort_limit", limit)
        self.register_buffer("inv_scale", 1 / (0.005 * limit.repeat(3)))
        self.register_buffer("floor", (0.005 * limit) ** 2)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("inv_std", torch.ones(features))
        self.embed = nn.Linear(features, self.cfg.embed)
        self.gru = nn.GRUCell(self.cfg.embed, self.cfg.hidden)
        self.head = nn.Linear(self.cfg.hidden, joints)
        self.weigh_in, self.weigh_out = nn.Linear(5, self.cfg.evidence), nn.Linear(self.cfg.evidence, 1)
        self.gain = nn.Parameter(torch.ones(2))
        self._silence_others()

    def _silence_others(self) -> None:
        """Begins with rare faults, and none ever where a joint is no candidate (nothing trains it)."""
        others = [j for j, name in enumerate(self.spec.joint_names) if name not in self.spec.candidates]
        with torch.no_grad():
            self.head.bias.fill_(-5.0)
            self.head.bias[others] = -100.0
            self.head.weight[others] = 0.0

    def initial(self, num_envs: int) -> Tensor:
        """(N, S) zero state: the GRU's and each joint's evidence."""
        return self.mean.new_zeros(num_envs, self.cfg.hidden + len(self.spec.joint_names))

    def features(self, obs: Tensor) -> Tensor:
        """(..., D) senses -> (..., D + 5J) features, not normalised."""
        w = self._tensors()
        measured = obs[..., self._torque]
        asked = F.linear(obs, w["pd_matrix"])
        expected = torch.clamp(asked, -w["effort_limit"], w["effort_limit"])
        residual = expected - measured
        scaled = torch.cat((measured, expected, residual), -1) * w["inv_scale"]
        # Which part of the expected torque is missing: 0 where the joint obeys or rests, 1 where it is dead.
        missing = residual * expected / torch.addcmul(w["floor"], expected, expected)
        # Near the noise floor, where an idle joint and a dead one must be told apart, on a linear scale.
        size, torques = scaled[..., : measured.shape[-1]].abs().clamp(max=CLIP), scaled.asinh()
        return torch.cat((obs, torques, size, missing.clamp(-3, 3)), -1)

    def _read(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D) -> (..., E) input of the GRU and (..., J) evidence of this row alone."""
        features = self.features(obs)
        w, joints = self._tensors(), len(self.spec.joint_names)
        own = features[..., -5 * joints :].abs().reshape(*obs.shape[:-1], 5, joints).mT
        inner = F.elu(F.linear(own, w["weigh_in.weight"], w["weigh_in.bias"]))
        row = F.linear(inner, w["weigh_out.weight"], w["weigh_out.bias"])
        normalised = ((features - w["mean"]) * w["inv_std"]).clamp(-CLIP, CLIP)
        return F.elu(F.linear(normalised, w["embed.weight"], w["embed.bias"])), row.squeeze(-1)

    def _tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by name: asking a module for each costs a fifth of a streamed step."""
        if self._by_name is None:
            self._by_name = dict(self.named_parameters()) | dict(self.named_buffers())
        return self._by_name

    def _apply(self, *args: Any, **kwargs: Any) -> FaultDetector:
        # Moving to a device replaces the buffers.
        self._by_name = None
        super()._apply(*args, **kwargs)
        return self

    def _gru_weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        w = self._tensors()
        return w["gru.weight_ih"], w["gru.weight_hh"], w["gru.bias_ih"], w["gru.bias_hh"]

    def forward(self, obs: Tensor, reset: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(T, N, D) senses, (T, N) bool resets, (N, S) state -> (T, N, J) logits, (N, S).

        The state of a row with reset is zeroed before the row is read.
        """
        embedded, rows = self._read(obs)
        weights, keep = self._gru_weights(), (~reset).to(embedded.dtype).unsqueeze(-1)
        memory, evidence = hidden.split((self.cfg.hidden, rows.shape[-1]), -1)
        memories, sums = [], []
        # unbind, because the gradient of indexing would fill a (T, N, E) tensor with zeros at every step.
        for x, row, k in zip(embedded.unbind(0), rows.unbind(0), keep.unbind(0), strict=True):
            memory = torch.gru_cell(x, memory * k, *weights)
            evidence = (evidence * k + row).clamp(0.0, MOST_EVIDENCE)
            memories.append(memory)
            sums.append(evidence)
        logits = self._logits(torch.stack(memories), torch.stack(sums), rows)
        return logits, torch.cat((memory, evidence), -1)

    def _logits(self, memory: Tensor, evidence: Tensor, row: Tensor) -> Tensor:
        # This row's own evidence too, for its gradient does not end where the sum is held at 0.
        w = self._tensors()
        heard, own = w["gain"].unbind()
        logits = F.linear(memory, w["head.weight"], w["head.bias"])
        return torch.addcmul(torch.addcmul(logits, heard, evidence), own, row)

    def step(self, obs: Tensor, reset: Tensor | None, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One row of `forward`: (N, D), (N,) bool or None for no reset, (N, S) -> (N, J), (N, S)."""
        if reset is not None:
            hidden = hidden.masked_fill(reset.unsqueeze(-1), 0.0)
        embedded, row = self._read(obs)
        memory, evidence = hidden.split((self.cfg.hidden, row.shape[-1]), -1)
        memory = torch.gru_cell(embedded, memory, *self._gru_weights())
        evidence = (evidence + row).clamp(0.0, MOST_EVIDENCE)
        return self._logits(memory, evidence, row), torch.cat((memory, evidence), -1)

    @torch.no_grad()
    def fit_scales(self, sequences: list[Sequences], rows: int = 100_000, seed: int = 0) -> None:
        """Sets torque scales and the normaliser from about `rows` rows of training episodes.

        The scale of a measured torque is what a dead joint still reads (noise); that of expected torques
        and residuals is the median residual of a healthy joint, i.e. how wrong the PD law's forecast is.
        """
        obs, severity = _sample(sequences, rows, seed)
        measured = obs[:, self._torque]
        expected = F.linear(obs, self.pd_matrix).clamp(-self.effort_limit, self.effort_limit)
        low, high = 1e-4 * self.effort_limit, 0.05 * self.effort_limit
        noise = _median(measured.abs(), severity >= 1).nan_to_num(0.0).clamp(low, high)
        forecast = _median((measured - expected).abs(), severity == 0).nan_to_num(0.0).clamp(low, high)
        self.inv_scale.copy_(1 / torch.cat((noise, forecast, forecast)))
        self.floor.copy_(forecast**2)
        features = self.features(obs)
        self.mean.copy_(features.mean(0))
        self.inv_std.copy_(1 / features.std(0).clamp_min(1e-3))


def _pd_matrix(spec: DetectorSpec) -> Tensor:
    """(J, D): an observation times this is kp (scale a - (q - default - lag q̇)) - kd q̇, before the limit."""
    matrix = torch.zeros(len(spec.joint_names), spec.obs_dim)
    kp, kd = torch.tensor(spec.pd.kp), torch.tensor(spec.pd.kd)
    matrix[:, spec.columns("last_action")] = torch.diag(spec.pd.action_scale * kp)
    matrix[:, spec.columns("joint_pos")] = -torch.diag(kp)
    # Torques are measured a little before positions are, where the joints stood lag · q̇ further back.
    matrix[:, spec.columns("joint_vel")] = torch.diag(kp * spec.pd.torque_lag_s - kd)
    return matrix


def _sample(sequences: list[Sequences], rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """(R, D) senses and (R, J) severities of random training rows."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(seq.reset.numel() for seq in sequences)
    obs, severity = [], []
    for seq in sequences:
        size = seq.reset.numel()
        index = torch.randint(size, (min(size, max(1, rows * size // total)),), generator=generator)
        index = index[~seq.test.flatten()[index]]
        obs.append(seq.obs.flatten(0, 1)[index])
        severity.append(seq.severity.flatten(0, 1)[index])
    if not sum(map(len, obs)):
        raise KoboshiError("no training rows: every episode is a test episode")
    return torch.cat(obs), torch.cat(severity)


def _median(values: Tensor, where: Tensor) -> Tensor:
    """(J,) medians of the chosen entries of each column; NaN where none is chosen."""
    return values.masked_fill(~where, float("nan")).nanmedian(0).values
