"""The card beside a data set: what was recorded, from which robot and controller, and how to read it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from koboshi.errors import KoboshiError, unknown
from koboshi.runs import read_json, write_json

CARD_FILE = "card.json"
COLUMNS = {
    "env": "int32: environment index",
    "step": "int64: control step since the collection began",
    "episode": "int64: episode id, unique in the data set",
    "reset": "bool: first row of an episode; hidden states are zeroed before it",
    "severity": "float32[joints]: true severity in force when obs was measured; 0 healthy, 1 dead",
    "obs": "float32[layout]: detector senses in SI units (m/s, rad/s, rad, N·m), noisy",
    "member": "int16: the specialist that acted; -1 healthy policy",
}


@dataclass(frozen=True)
class PdCard:
    """The PD law behind the torques: target = default_joint_pos + action_scale * action; J joints each."""

    action_scale: float
    kp: list[float]
    """N·m/rad."""
    kd: list[float]
    """N·m·s/rad."""
    effort_limit: list[float]
    """N·m."""
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
    faults: dict[str, Any]
    """The fault schedule."""
    onset_s: tuple[float, float]
    """Earliest and latest onset after an episode's start, s."""
    control_dt: float
    """s."""
    layout: list[tuple[str, int, int]]
    """(term, start, width) of each part of `obs`."""
    joint_names: list[str]
    candidates: list[str]
    """Joints that may fail."""
    pd: PdCard
    num_envs: int
    controller: Literal["healthy", "switched"]
    round: int
    columns: dict[str, str] = field(default_factory=lambda: dict(COLUMNS))
    complete: bool = False
    shards: dict[str, str] = field(default_factory=dict)
    """File name -> digest of its columns, once the data set is complete."""

    def __post_init__(self) -> None:
        for name in self.candidates:
            if name not in self.joint_names:
                raise unknown("joint", name, self.joint_names)
        end = 0
        for term, start, width in self.layout:
            if start != end or width <= 0:
                raise KoboshiError(f"layout term '{term}' starts at {start}, not {end}, or is empty (width {width})")
            end += width
        for name in ("kp", "kd", "effort_limit", "default_joint_pos"):
            if len(getattr(self.pd, name)) != len(self.joint_names):
                raise KoboshiError(
                    f"pd.{name} has {len(getattr(self.pd, name))} numbers for {len(self.joint_names)} joints"
                )

    @property
    def obs_dim(self) -> int:
        """D, the width of `obs`."""
        return sum(width for _, _, width in self.layout)

    @property
    def layout_hash(self) -> str:
        """A short hash that two data sets share where their observations mean the same."""
        meaning = [[list(term) for term in self.layout], self.joint_names]
        return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:16]

    @property
    def candidate_ids(self) -> list[int]:
        """Indices of the candidates in `joint_names`."""
        return [self.joint_names.index(name) for name in self.candidates]

    def term_of(self, column: int) -> str:
        """The name of a number in `obs`, such as `joint_vel[3]`."""
        for term, start, width in self.layout:
            if start <= column < start + width:
                return f"{term}[{column - start}]"
        raise KoboshiError(f"no column {column} in an observation of {self.obs_dim}")

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
