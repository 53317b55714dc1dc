"""The card beside a data set: what was recorded, from which robot and controller, and how to read it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from koboshi.errors import KoboshiError, unknown
from koboshi.runs import read_json, write_json

CARD_FILE = "card.json"
OBS = "obs."
"""What the names of observation columns begin with; an observation group's name follows."""
DType = Literal["float32", "uint8", "bool", "int8", "int16", "int32", "int64"]


@dataclass(frozen=True)
class Column:
    """One column of a data set, a value a row."""

    dtype: DType
    shape: tuple[int, ...] = ()
    """Of one row's value; () for a number."""
    meaning: str = ""
    """What it is, and its unit."""

    @property
    def size(self) -> int:
        """Numbers in one row's value."""
        return math.prod(self.shape)


FRAME = {
    "env": Column("int32", (), "environment index"),
    "step": Column("int64", (), "control step since the recording began"),
    "episode": Column("int64", (), "episode id, unique in the data set"),
    "reset": Column("bool", (), "first row of an episode; carried states are zeroed before it"),
    "terminated": Column("bool", (), "the action ended the episode by the task (a fall); the value after it is 0"),
    "truncated": Column("bool", (), "the action's step was the last one in time; the value after it is the next one's"),
}
"""The columns that every data set has."""
COUNTED = ("env", "step")
"""Columns that follow from where a row lies; nobody hands them over and nobody reads them back."""


def transition_columns(
    obs: dict[str, Column], action: Column, labels: dict[str, Column] | None = None
) -> dict[str, Column]:
    """The columns of recorded transitions: `obs` by group name, the action taken, what came of it, and labels."""
    return {
        **FRAME,
        **{OBS + group: column for group, column in obs.items()},
        "action": action,
        "reward": Column("float32", (), "of the control step that the action began"),
        "valid": Column("bool", (), "whether the transition may be learnt from (physics stayed finite)"),
        **(labels or {}),
    }


@dataclass(frozen=True)
class LawCard:
    """The actuators' law, J numbers each in joint order: what torque an action should give.

    torque = clip(control · u + position · q + velocity · q̇, ±effort_limit), u = action_offset + action_scale · action,
    q = observed joint_pos + default_joint_pos. A position servo of stiffness kp and damping kd has (kp, -kp, -kd), a
    velocity servo (kd, 0, -kd), a torque-driven joint (1, 0, 0).
    """

    control: list[float]
    position: list[float]
    """N·m/rad."""
    velocity: list[float]
    """N·m·s/rad."""
    effort_limit: list[float]
    """N·m."""
    action_scale: list[float]
    action_offset: list[float]
    """u of the action 0: the default position of a position servo, 0 for wheels and torques."""
    default_joint_pos: list[float]
    """rad."""
    torque_lag_s: float = 0.0
    """How long before positions and velocities the torques were measured, s."""


@dataclass(frozen=True)
class DatasetCard:
    """Everything a reader needs beside the rows; `card.json`."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    robot: str
    task: str
    command: str
    """The command line that made the data set."""
    commit: str
    checkpoint: str
    checkpoint_sha256: str
    seed: int
    control_dt: float
    """s."""
    num_envs: int
    columns: dict[str, Column]
    layouts: dict[str, list[tuple[str, int, int]]]
    """Observation group -> (term, start, width) of each part of it; images and other groups without terms have none."""
    joint_names: list[str]
    controller: Literal["healthy", "switched"]
    round: int = 1
    faults: dict[str, Any] | None = None
    """The fault schedule; None where nothing was broken on purpose."""
    onset_s: tuple[float, float] | None = None
    """Earliest and latest onset after an episode's start, s."""
    candidates: list[str] = field(default_factory=list)
    """Joints that may fail."""
    law: LawCard | None = None
    term_joints: dict[str, list[str]] = field(default_factory=dict)
    """Term -> the joint of each of its numbers, for terms a joint that do not list all joints in their order."""
    scaled: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    """`group.term` -> (scale, clip), for terms that were scaled or clipped after they were measured."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What else the rows depend on: the environment's configuration and for how long it ran."""
    complete: bool = False
    shards: dict[str, str] = field(default_factory=dict)
    """File name -> digest of its content, once the data set is complete."""

    def __post_init__(self) -> None:
        for name in [*self.candidates, *(joint for joints in self.term_joints.values() for joint in joints)]:
            if name not in self.joint_names:
                raise unknown("joint", name, self.joint_names)
        for name, column in FRAME.items():
            found = self.columns.get(name)
            if found is None or (found.dtype, found.shape) != (column.dtype, column.shape):
                raise KoboshiError(f"a data set has a column '{name}' of one {column.dtype} a row")
        for group, layout in self.layouts.items():
            self._check_layout(group, layout)
        self._check_law()

    def _check_layout(self, group: str, layout: list[tuple[str, int, int]]) -> None:
        if OBS + group not in self.columns:
            raise unknown("observation group", group, self.groups)
        end = 0
        for term, start, width in layout:
            if start != end or width <= 0:
                raise KoboshiError(
                    f"{OBS}{group}: term '{term}' starts at {start}, not {end}, or is empty (width {width})"
                )
            end += width
        if self.columns[OBS + group].shape != (end,):
            raise KoboshiError(f"{OBS}{group} has shape {self.columns[OBS + group].shape}, its terms {end} numbers")

    def _check_law(self) -> None:
        for name, values in asdict(self.law).items() if self.law else ():
            if isinstance(values, list) and len(values) != len(self.joint_names):
                raise KoboshiError(f"law.{name} has {len(values)} numbers for {len(self.joint_names)} joints")

    @property
    def groups(self) -> list[str]:
        """The observation groups that were recorded."""
        return [name.removeprefix(OBS) for name in self.columns if name.startswith(OBS)]

    @property
    def schema_hash(self) -> str:
        """A short hash that two data sets share where their rows mean the same."""
        columns = {name: [column.dtype, list(column.shape)] for name, column in self.columns.items()}
        meaning = [columns, self.layouts, self.joint_names, self.term_joints, *([self.scaled] if self.scaled else [])]
        return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:16]

    @property
    def content(self) -> str:
        """A short hash of all rows of a complete data set."""
        return hashlib.sha256(json.dumps(self.shards, sort_keys=True).encode()).hexdigest()[:16]

    def layout_hash(self, group: str) -> str:
        """A short hash that two data sets share where this observation group means the same."""
        if group not in self.layouts:
            raise unknown("observation group with a layout", group, self.layouts)
        meaning: list[Any] = [[list(term) for term in self.layouts[group]], self.joint_names, self.term_joints]
        scaled = {name: how for name, how in self.scaled.items() if name.startswith(f"{group}.")}
        meaning += [scaled] if scaled else []
        return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:16]

    @property
    def candidate_ids(self) -> list[int]:
        """Indices of the candidates in `joint_names`."""
        return [self.joint_names.index(name) for name in self.candidates]

    def name_of(self, column: str, index: int) -> str:
        """What a number of a column is called, such as `joint_vel[3]` or `reward`."""
        for term, start, width in self.layouts.get(column.removeprefix(OBS), []):
            if column.startswith(OBS) and start <= index < start + width:
                return f"{term}[{index - start}]"
        return f"{column}[{index}]" if self.columns[column].shape else column

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any], where: str = CARD_FILE) -> DatasetCard:
        """The card in a dict; KoboshiError naming each wrong field and `where` it was read."""
        try:
            return TypeAdapter(cls).validate_python(raw)
        except ValidationError as error:
            wrong = [f"{'.'.join(str(p) for p in e['loc']) or 'card'}: {e['msg']}" for e in error.errors()]
            raise KoboshiError(f"{where} is not a data set's card: {'; '.join(wrong[:4])}") from error

    def save(self, folder: Path) -> None:
        write_json(folder / CARD_FILE, self.to_dict())

    @classmethod
    def load(cls, folder: Path) -> DatasetCard:
        path = folder / CARD_FILE
        if not path.is_file():
            raise KoboshiError(f"no data set at {folder} (it has no {CARD_FILE})")
        return cls.from_dict(read_json(path), str(path))
