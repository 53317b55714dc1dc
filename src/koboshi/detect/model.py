"""The fault detector: what the actuators should have done against what they did, one GRU, one logit a joint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter
from torch import Tensor, nn
from torch.nn import functional as F

from koboshi.data import OBS, PARTS, DatasetCard, LawCard, Sequences
from koboshi.detect.stream import OneRobot
from koboshi.errors import KoboshiError, unknown

GROUP = "detector"
"""The observation group that a detector listens to."""
MOST_EVIDENCE = 16.0
CLIP = 8.0
"""Normalised features beyond this many standard deviations (falls) are cut off."""
SILENT = -100.0
"""The logit of joints that cannot fail."""


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
    law: LawCard
    layout_hash: str
    term_joints: dict[str, list[str]] = field(default_factory=dict)
    """As in a data set's card: the joints of terms that do not list all in order (`joint_pos` without wheels)."""

    @classmethod
    def from_card(cls, card: DatasetCard) -> DetectorSpec:
        """KoboshiError where the data say nothing of the detector's observations or of the actuators, or scale them."""
        if card.law is None:
            raise KoboshiError(f"the data of task '{card.task}' have no actuators' law in their card")
        for name in card.scaled:
            if name.startswith(f"{GROUP}."):
                # The actuators' law speaks of rad, rad/s and N·m.
                raise KoboshiError(
                    f"a detector listens in SI units: observation '{name}' must have scale 1 and no clip"
                )
        return cls(
            card.robot,
            card.layouts.get(GROUP, []),
            card.joint_names,
            card.candidates,
            card.control_dt,
            card.law,
            card.layout_hash(GROUP),
            card.term_joints,
        )

    @classmethod
    def from_cards(cls, cards: Sequence[DatasetCard]) -> DetectorSpec:
        """What all of these data say; KoboshiError where they differ in what a detector is told or asked about."""
        spec = cls.from_card(cards[0])
        for card in cards[1:]:
            spec.check(card)
        return spec

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> DetectorSpec:
        return TypeAdapter(cls).validate_python(raw)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def check(self, card: DatasetCard) -> None:
        """KoboshiError where a detector of these data would be told other things, or asked about other joints."""
        theirs = DetectorSpec.from_card(card)
        for name in ("robot", "layout_hash", "control_dt", "law", "candidates"):
            wanted, found = getattr(self, name), getattr(theirs, name)
            if found != wanted:
                raise KoboshiError(f"data of task '{card.task}' have {name} {found}, and the detector's is {wanted}")

    @property
    def obs_dim(self) -> int:
        return sum(width for _, _, width in self.layout)

    @property
    def candidate_ids(self) -> list[int]:
        return [self.joint_names.index(name) for name in self.candidates]

    def columns(self, term: str) -> tuple[slice, list[int]]:
        """Where a term of a number a joint lies in an observation, and which joint each number is of."""
        for name, start, width in self.layout:
            if name == term:
                joints = self.term_joints.get(term, self.joint_names)
                if width != len(joints):
                    raise KoboshiError(f"term '{term}' has {width} numbers for {len(joints)} joints")
                return slice(start, start + width), [self.joint_names.index(joint) for joint in joints]
        raise unknown("observation term", term, [name for name, _, _ in self.layout])


def expected_torque(spec: DetectorSpec) -> tuple[Tensor, Tensor]:
    """(J, D) and (J,): an observation times the one plus the other is the torque asked for, before its limit.

    torque = control · (action_offset + action_scale · action) + position · (joint_pos + default_joint_pos)
    + velocity · joint_vel. KoboshiError where the law of a joint needs a term that does not have that joint.
    """
    law = {name: np.asarray(value) for name, value in asdict(spec.law).items()}
    # Torques are measured a little before positions are, where the joints stood lag · q̇ further back.
    lagged = law["velocity"] - law["position"] * spec.law.torque_lag_s
    coefficients = {
        "last_action": law["control"] * law["action_scale"],
        "joint_pos": law["position"],
        "joint_vel": lagged,
    }
    matrix = np.zeros((len(spec.joint_names), spec.obs_dim))
    for term, coefficient in coefficients.items():
        where, joints = spec.columns(term)
        blind = [name for j, name in enumerate(spec.joint_names) if j not in joints and coefficient[j] != 0]
        if blind:
            raise KoboshiError(
                f"the actuators of {', '.join(blind)} depend on '{term}' (coefficient "
                f"{coefficient[spec.joint_names.index(blind[0])]:g}), but that term does not have these joints"
            )
        matrix[joints, range(where.start, where.stop)] = coefficient[joints]
    offset = law["control"] * law["action_offset"] + law["position"] * law["default_joint_pos"]
    return torch.tensor(matrix, dtype=torch.float32), torch.tensor(offset, dtype=torch.float32)


class FaultDetector(nn.Module):
    """Maps the senses of N robots to J logits each: how likely has this joint failed.

    The actuators' law says which torque each joint should give, so the features beside the D normalised senses
    are, a joint: measured torque, expected torque, their difference (as asinh(x / scale), so that 0.2 and
    100 N·m both count), the measured torque's size over the noise and the missing part of the expected torque.

    A joint's logit is what the GRU says of it, plus evidence: one small network, the same for all joints,
    weighs a joint's own torques in each row, and what it says adds up between 0 and `MOST_EVIDENCE`, as in a
    CUSUM test (Page 1954). It learns from every fault on every joint, the GRU knows the gait.
    Joints that are no candidates have the logit `SILENT`, whatever is learnt.
    """

    mean: Tensor
    inv_std: Tensor
    law_matrix: Tensor
    law_offset: Tensor
    effort_limit: Tensor
    inv_scale: Tensor
    floor: Tensor
    candidate: Tensor

    def __init__(self, spec: DetectorSpec, cfg: DetectorCfg | None = None) -> None:
        super().__init__()
        self.spec, self.cfg = spec, cfg or DetectorCfg()
        joints, features = len(spec.joint_names), spec.obs_dim + 5 * len(spec.joint_names)
        self._torque, measured = spec.columns("joint_torque")
        if measured != list(range(joints)):
            raise KoboshiError("term 'joint_torque' must have all joints in their order")
        matrix, offset = expected_torque(spec)
        self.register_buffer("law_matrix", matrix)
        self.register_buffer("law_offset", offset)
        limit = torch.tensor(spec.law.effort_limit, dtype=torch.float32)
        self.register_buffer("effort_limit", limit)
        self.register_buffer("inv_scale", 1 / (0.005 * limit.repeat(3)))
        self.register_buffer("floor", (0.005 * limit) ** 2)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("inv_std", torch.ones(features))
        candidate = torch.zeros(joints, dtype=torch.bool)
        candidate[spec.candidate_ids] = True
        self.register_buffer("candidate", candidate)
        self.embed = nn.Linear(features, self.cfg.embed)
        self.gru = nn.GRUCell(self.cfg.embed, self.cfg.hidden)
        self.head = nn.Linear(self.cfg.hidden, joints)
        nn.init.constant_(self.head.bias, -5.0)  # faults are rare
        self.weigh_in, self.weigh_out = nn.Linear(5, self.cfg.evidence), nn.Linear(self.cfg.evidence, 1)
        self.gain = nn.Parameter(torch.ones(2))
        self._one_robot: OneRobot | None = None

    def initial(self, num_envs: int) -> Tensor:
        """(N, S) zero state: the GRU's and each joint's evidence."""
        return self.mean.new_zeros(num_envs, self.cfg.hidden + len(self.spec.joint_names))

    def torques(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D) senses -> (..., J) measured and expected torques, N·m."""
        asked = F.linear(obs, self.law_matrix, self.law_offset)
        return obs[..., self._torque], torch.clamp(asked, -self.effort_limit, self.effort_limit)

    def features(self, obs: Tensor) -> Tensor:
        """(..., D) senses -> (..., D + 5J) features, not normalised."""
        measured, expected = self.torques(obs)
        residual = expected - measured
        scaled = torch.cat((measured, expected, residual), -1) * self.inv_scale
        # Which part of the expected torque is missing: 0 where the joint obeys or rests, 1 where it is dead.
        missing = residual * expected / torch.addcmul(self.floor, expected, expected)
        # Near the noise floor, where an idle joint and a dead one must be told apart, on a linear scale.
        size, torques = scaled[..., : measured.shape[-1]].abs().clamp(max=CLIP), scaled.asinh()
        return torch.cat((obs, torques, size, missing.clamp(-3, 3)), -1)

    def _read(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D) -> (..., E) input of the GRU and (..., J) evidence of this row alone."""
        features, joints = self.features(obs), len(self.spec.joint_names)
        sizes, missing = features[..., -5 * joints :].split((4 * joints, joints), -1)
        # Left and right push in opposite directions, so signs mean nothing; those of the missing part do: a joint that
        # gives twice what is expected of it is not one that gives nothing.
        own = torch.cat((sizes.abs(), missing), -1).unflatten(-1, (5, joints)).mT
        row = self.weigh_out(F.elu(self.weigh_in(own)))
        normalised = ((features - self.mean) * self.inv_std).clamp(-CLIP, CLIP)
        return F.elu(self.embed(normalised)), row.squeeze(-1)

    def forward(self, obs: Tensor, reset: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(T, N, D) senses, (T, N) bool resets, (N, S) state -> (T, N, J) logits, (N, S).

        The state of a row with reset is zeroed before the row is read.
        """
        embedded, rows = self._read(obs)
        gru, keep = self._gru_weights(), (~reset).to(embedded.dtype).unsqueeze(-1)
        memory, evidence = hidden.split((self.cfg.hidden, rows.shape[-1]), -1)
        memories, sums = [], []
        # unbind, because the gradient of indexing would fill a (T, N, E) tensor with zeros at every step.
        for x, row, k in zip(embedded.unbind(0), rows.unbind(0), keep.unbind(0), strict=True):
            memory = torch.gru_cell(x, memory * k, *gru)
            evidence = (evidence * k + row).clamp(0.0, MOST_EVIDENCE)
            memories.append(memory)
            sums.append(evidence)
        logits = self._logits(torch.stack(memories), torch.stack(sums), rows)
        return logits, torch.cat((memory, evidence), -1)

    def _gru_weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.gru.weight_ih, self.gru.weight_hh, self.gru.bias_ih, self.gru.bias_hh

    def _logits(self, memory: Tensor, evidence: Tensor, row: Tensor) -> Tensor:
        # This row's own evidence too, for its gradient does not end where the sum is held at 0.
        logits = self.head(memory) + self.gain[0] * evidence + self.gain[1] * row
        return logits.masked_fill(~self.candidate, SILENT)

    def step(self, obs: Tensor, reset: Tensor | None, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One row of `forward`: (N, D), (N,) bool or None for no reset, (N, S) -> (N, J), (N, S)."""
        if reset is not None:
            hidden = hidden.masked_fill(reset.unsqueeze(-1), 0.0)
        if len(obs) == 1 and not self.training and obs.device.type == "cpu" and not torch.is_grad_enabled():
            return self._step_of_one(obs, hidden)
        embedded, row = self._read(obs)
        memory, evidence = hidden.split((self.cfg.hidden, row.shape[-1]), -1)
        memory = torch.gru_cell(embedded, memory, *self._gru_weights())
        evidence = (evidence + row).clamp(0.0, MOST_EVIDENCE)
        return self._logits(memory, evidence, row), torch.cat((memory, evidence), -1)

    def _step_of_one(self, obs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """For one robot most of a step's time would go into calling PyTorch; NumPy's calls cost a third."""
        if self._one_robot is None:
            weights = {name: value.numpy() for name, value in self.state_dict().items()}
            self._one_robot = OneRobot(weights, self._torque, CLIP, MOST_EVIDENCE, SILENT)
        logits, after = self._one_robot(obs.numpy()[0], hidden.numpy()[0])
        return torch.from_numpy(logits)[None], torch.from_numpy(after)[None]

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

        The scale of a measured torque is what a dead joint still reads (noise); that of expected torques
        and residuals is the median residual of a healthy joint, i.e. how wrong the law's forecast is.
        """
        obs, severity = (x.to(self.mean.device) for x in _sample(sequences, rows, seed))
        measured, expected = self.torques(obs)
        low, high = 1e-4 * self.effort_limit, 0.05 * self.effort_limit
        noise = _median(measured.abs(), severity >= 1).nan_to_num(0.0).clamp(low, high)
        forecast = _median((measured - expected).abs(), severity == 0).nan_to_num(0.0).clamp(low, high)
        self.inv_scale.copy_(1 / torch.cat((noise, forecast, forecast)))
        self.floor.copy_(forecast**2)
        features = self.features(obs)
        self.mean.copy_(features.mean(0))
        self.inv_std.copy_(1 / features.std(0).clamp_min(1e-3))
        self._one_robot = None


def _sample(sequences: list[Sequences], rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """(R, D) senses and (R, J) severities of random training rows."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(seq.part.numel() for seq in sequences)
    obs, severity = [], []
    for seq in sequences:
        size = seq.part.numel()
        index = torch.randint(size, (min(size, max(1, rows * size // total)),), generator=generator)
        step, env = index // seq.num_envs, index % seq.num_envs
        chosen = seq.part[step, env] == PARTS.index("train")
        step, env = step[chosen], env[chosen]
        obs.append(seq[OBS + GROUP][step, env])
        severity.append(seq["severity"][step, env])
    if not sum(map(len, obs)):
        raise KoboshiError("no training episodes: these data have no split, or one without them; koboshi data --split")
    return torch.cat(obs), torch.cat(severity)


def _median(values: Tensor, where: Tensor) -> Tensor:
    """(J,) medians of the chosen entries of each column; NaN where none is chosen."""
    return values.masked_fill(~where, float("nan")).nanmedian(0).values
