"""The learnt detector: what the actuators should have done against what they did, remembered, joint by joint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from koboshi.data import Sequences
from koboshi.detect.base import CLIP, SILENT, TORQUES, Detector, Reading, median_where, sample_rows
from koboshi.detect.joints import JointReader
from koboshi.detect.memories import build_memory
from koboshi.detect.spec import DetectorSpec
from koboshi.detect.stream import OneRobot
from koboshi.errors import KoboshiError
from koboshi.faults import KINDS
from koboshi.vec_env import reading_is_free

MOST_EVIDENCE = 16.0
SILENCING = ("torque_loss", "braking", "torque_sensor_loss")
"""Kinds of fault that, where they are whole, leave nothing to measure but noise."""


@dataclass(frozen=True)
class DetectorCfg:
    """Sizes of the network."""

    embed: int = 128
    """Width of the layer before the memory."""
    hidden: int = 128
    """Width of the memory."""
    evidence: int = 24
    """Hidden width of the small network, shared by all joints, that weighs one joint's torques in one row."""
    memory: Literal["gru", "tcn", "window"] = "gru"
    """A GRU, dilated convolutions, or one layer on the last rows."""
    span: int | None = None
    """Rows that convolutions or the layer look back on; a GRU has none."""
    joint: int = 24
    """Width of the memory that each joint has of its own, in data of several kinds or severities."""
    torque: bool = True
    """Whether it listens to measured torques; without, to what joints do of what they are asked."""

    def validate(self) -> None:
        if (self.memory == "gru") != (self.span is None):
            raise KoboshiError(f"a detector's span belongs to tcn and window, not to {self.memory}: {self.span}")
        if self.span is not None and self.span < 2:
            raise KoboshiError(f"a detector's span is at least 2 rows, not {self.span}")


class FaultDetector(Detector):
    """A network; see `Detector` for what it maps to what.

    The actuators' law says which torque each joint should give, so the features beside the D normalised senses
    are, a joint: measured torque, expected torque, their difference (as asinh(x / scale), so that 0.2 and
    100 N·m both count), the measured torque's size over the noise and the missing part of the expected torque.

    A joint's logit is what the memory of all senses says of it, plus evidence: one small network, the same for all
    joints, weighs a joint's own torques in each row, and what it says adds up between 0 and `MOST_EVIDENCE`, as in a
    CUSUM test (Page 1954). It learns from every fault on every joint, the memory knows the gait. Where faults
    are of several kinds or severities (`spec.graded`), what a `JointReader` says comes to that, and the rest of the
    reading is its own.
    Joints that are no candidates have the logit `SILENT`, whatever is learnt.
    """

    mean: Tensor
    inv_std: Tensor
    inv_scale: Tensor
    floor: Tensor

    def __init__(self, spec: DetectorSpec, cfg: DetectorCfg | None = None) -> None:
        super().__init__(spec)
        self.cfg = cfg or DetectorCfg()
        self.cfg.validate()
        joints, features = len(spec.joint_names), spec.obs_dim + TORQUES * len(spec.joint_names)
        limit = self.effort_limit
        self.register_buffer("inv_scale", 1 / (0.005 * limit.repeat(3)))
        self.register_buffer("floor", (0.005 * limit) ** 2)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("inv_std", torch.ones(features))
        self.embed = nn.Linear(features, self.cfg.embed)
        self.memory = build_memory(self.cfg.memory, self.cfg.embed, self.cfg.hidden, self.cfg.span or 0)
        self.head = nn.Linear(self.memory.width, joints)
        nn.init.constant_(self.head.bias, -5.0)  # faults are rare
        self.weigh_in, self.weigh_out = nn.Linear(TORQUES, self.cfg.evidence), nn.Linear(self.cfg.evidence, 1)
        self.gain = nn.Parameter(torch.ones(2))
        self.joints = JointReader(spec, self.cfg, self.memory.width) if spec.graded else None
        self.tells = self.joints is not None
        self._sizes = [self.memory.carried, joints, self.joints.carried if self.joints is not None else 0]
        self._one_robot: OneRobot | None = None

    def initial(self, num_envs: int) -> Tensor:
        """(N, S) zeros: the memory's, each joint's evidence, and the joints' memories."""
        return self.mean.new_zeros(num_envs, sum(self._sizes))

    def torques(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        measured, expected = super().torques(obs)
        return measured if self.cfg.torque else expected, expected

    def features(self, obs: Tensor) -> Tensor:
        """(..., D) senses -> (..., D + TORQUES · J) features, not normalised."""
        measured, expected = self.torques(obs)
        residual = expected - measured
        scaled = torch.cat((measured, expected, residual), -1) * self.inv_scale
        # Which part of the expected torque is missing: 0 where the joint obeys or rests, 1 where it is dead.
        missing = residual * expected / torch.addcmul(self.floor, expected, expected)
        # Near the noise floor, where an idle joint and a dead one must be told apart, on a linear scale.
        size, torques = scaled[..., : measured.shape[-1]].abs().clamp(max=CLIP), scaled.asinh()
        if not self.cfg.torque:
            obs = obs.clone()
            obs[..., self._torque] = 0.0
        return torch.cat((obs, torques, size, missing.clamp(-3, 3)), -1)

    def _read(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D) -> (..., F) normalised features and (..., J) evidence of this row alone."""
        features, joints = self.features(obs), len(self.spec.joint_names)
        sizes, missing = features[..., -TORQUES * joints :].split(((TORQUES - 1) * joints, joints), -1)
        # Left and right push in opposite directions, so signs mean nothing; those of the missing part do: a joint that
        # gives twice what is expected of it is not one that gives nothing.
        own = torch.cat((sizes.abs(), missing), -1).unflatten(-1, (TORQUES, joints)).mT
        row = self.weigh_out(F.elu(self.weigh_in(own)))
        return ((features - self.mean) * self.inv_std).clamp(-CLIP, CLIP), row.squeeze(-1)

    def forward(self, obs: Tensor, reset: Tensor, hidden: Tensor) -> tuple[Reading, Tensor]:
        features, rows = self._read(obs)
        keep = (~reset).to(features.dtype)
        memory, evidence, own = hidden.split(self._sizes, -1)
        remembered, memory = self.memory(F.elu(self.embed(features)), keep, memory)
        sums = []
        for row, k in zip(rows.unbind(0), keep.unbind(0), strict=True):
            evidence = (evidence * k[:, None] + row).clamp(0.0, MOST_EVIDENCE)
            sums.append(evidence)
        # This row's own evidence too, for its gradient does not end where the sum is held at 0.
        logit = self.head(remembered) + self.gain[0] * torch.stack(sums) + self.gain[1] * rows
        reading = self.untold(logit)
        if self.joints is not None:
            reading, own = self.joints(obs, features, remembered, keep, own)
            reading = reading._replace(logit=reading.logit + logit)
        silent = reading.logit.masked_fill(~self.candidate, SILENT)
        return reading._replace(logit=silent), torch.cat((memory, evidence, own), -1)

    def step(self, obs: Tensor, reset: Tensor | None, hidden: Tensor) -> tuple[Reading, Tensor]:
        alone = len(obs) == 1 and not self.training and reading_is_free(obs) and not torch.is_grad_enabled()
        if alone and self.cfg.memory == "gru" and self.cfg.torque:
            return self._step_of_one(obs, hidden if reset is None else hidden.masked_fill(reset[:, None], 0.0))
        return super().step(obs, reset, hidden)

    def _step_of_one(self, obs: Tensor, hidden: Tensor) -> tuple[Reading, Tensor]:
        """For one robot most of a step's time would go into calling PyTorch; NumPy's calls cost a third."""
        if self._one_robot is None:
            weights = {name: value.numpy() for name, value in self.state_dict().items()}
            self._one_robot = OneRobot(weights, self._torque, self.spec.control_dt, CLIP, MOST_EVIDENCE, SILENT)
            self._nothing = self.untold(torch.zeros(1, len(self.spec.joint_names)))
        row, after = self._one_robot(obs.numpy()[0], hidden.numpy()[0])
        told = {
            name: torch.from_numpy(part[None]) for name, part in zip(row._fields, row, strict=True) if part is not None
        }
        return self._nothing._replace(**told), torch.from_numpy(after[None])

    def __getstate__(self) -> dict[str, Any]:
        # Its arrays look into each other, which copies of them would not.
        return self.__dict__ | {"_one_robot": None}

    def train(self, mode: bool = True) -> FaultDetector:
        self._one_robot = None
        super().train(mode)
        return self

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._one_robot = None
        return super().load_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> FaultDetector:
        self._one_robot = None
        super()._apply(*args, **kwargs)
        return self

    @torch.no_grad()
    def fit_scales(self, sequences: list[Sequences], rows: int = 100_000, seed: int = 0) -> None:
        """Sets torque scales and the normaliser from about `rows` rows of training episodes.

        The scale of a measured torque is what a joint without torque still reads (noise); that of expected torques
        and residuals is the median residual of a healthy joint, i.e. how wrong the law's forecast is.
        """
        sampled = sample_rows(sequences, rows, seed, self.device)
        obs, severity = sampled.obs, sampled.severity
        measured, expected = self.torques(obs)
        low, high = 1e-4 * self.effort_limit, 0.05 * self.effort_limit
        silencing = torch.tensor([KINDS.index(kind) for kind in SILENCING], device=self.device)
        silent = torch.isin(sampled.kind, silencing) & (severity >= 1)
        noise = median_where(measured.abs(), silent).nan_to_num(0.0).clamp(low, high)
        forecast = median_where((measured - expected).abs(), severity == 0).nan_to_num(0.0).clamp(low, high)
        self.inv_scale.copy_(1 / torch.cat((noise, forecast, forecast)))
        self.floor.copy_(forecast**2)
        features = self.features(obs)
        self.mean.copy_(features.mean(0))
        self.inv_std.copy_(1 / features.std(0).clamp_min(1e-3))
        if self.joints is not None:
            self.joints.changes.fit(sampled.before, obs, severity == 0)
        self._one_robot = None
