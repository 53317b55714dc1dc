"""What a fault detector must know about the robot it listens to, and what its actuators are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter
from torch import Tensor

from koboshi.data import DatasetCard, LawCard
from koboshi.errors import KoboshiError, unknown
from koboshi.faults import KINDS

GROUP = "detector"
"""The observation group that a detector listens to."""


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
    kinds: list[str] = field(default_factory=lambda: ["torque_loss"])
    """Kinds of fault that it has seen."""
    graded: bool = False
    """Whether there is anything to tell of a broken joint: its kind, its severity."""

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
            *_seen_faults(card),
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
        for name in ("robot", "layout_hash", "control_dt", "law", "candidates", "kinds", "graded"):
            wanted, found = getattr(self, name), getattr(theirs, name)
            if found != wanted:
                raise KoboshiError(f"data of task '{card.task}' have {name} {found}, and the detector's is {wanted}")

    @property
    def obs_dim(self) -> int:
        return sum(width for _, _, width in self.layout)

    @property
    def candidate_ids(self) -> list[int]:
        return [self.joint_names.index(name) for name in self.candidates]

    @property
    def place_of_kinds(self) -> list[int]:
        """Of each of `KINDS` its place in `kinds`, −1 where it was not seen."""
        return [self.kinds.index(kind) if kind in self.kinds else -1 for kind in KINDS]

    def columns(self, term: str) -> tuple[slice, list[int]]:
        """Where a term of a number a joint lies in an observation, and which joint each number is of."""
        for name, start, width in self.layout:
            if name == term:
                joints = self.term_joints.get(term, self.joint_names)
                if width != len(joints):
                    raise KoboshiError(f"term '{term}' has {width} numbers for {len(joints)} joints")
                return slice(start, start + width), [self.joint_names.index(joint) for joint in joints]
        raise unknown("observation term", term, [name for name, _, _ in self.layout])

    def place(self, term: str, absent: int) -> Tensor:
        """(J,) int64 where each joint's number of a term lies in an observation; `absent` where it has none."""
        where, joints = self.columns(term)
        place = torch.full((len(self.joint_names),), absent)
        place[joints] = torch.arange(where.start, where.stop)
        return place


def _seen_faults(card: DatasetCard) -> tuple[list[str], bool]:
    """Kinds, and whether there are several of them or of severities, in the schedule that a card tells of."""
    faults = (card.faults or {}).get("faults")
    if faults is None:
        return ["torque_loss"], False
    least, most = faults["severity"]
    return list(faults["kinds"]), len(faults["kinds"]) > 1 or least < most


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
