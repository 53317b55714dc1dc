"""Recordings of a toy robot of three joints, small enough to know every number."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cards import toy_card
from koboshi.data import Chunk, Column, DatasetCard, Final, LawCard, ShardWriter, transition_columns

JOINTS = ["left_knee", "right_knee", "torso"]
STEPS, ENVS, LENGTH = 40, 6, 20


def make_law(joints: int = 3) -> LawCard:
    return LawCard([100.0] * joints, [-100.0] * joints, [-1.0] * joints, [50.0] * joints, [0.5] * joints,
                   [0.0] * joints, [0.0] * joints)  # fmt: skip


def make_card(**changes) -> DatasetCard:
    fields = {
        "num_envs": ENVS,
        "columns": transition_columns(
            {"detector": Column("float32", (6,)), "eye": Column("uint8", (3, 2, 2))},
            Column("float32", (3,)),
            {"severity": Column("float32", (3,)), "kind": Column("int8", (3,)), "member": Column("int16")},
        ),
        "layouts": {"detector": [("joint_pos", 0, 3), ("joint_torque", 3, 3)]},
        "joint_names": JOINTS,
        "faults": {"severity": [0.5, 1.0]},
        "onset_s": (0.1, 0.3),
        "candidates": ["left_knee", "right_knee"],
        "law": make_law(),
    }
    return toy_card(**fields | changes)


def make_chunk(step0: int = 0, steps: int = STEPS) -> Chunk:
    """Two episodes of 20 rows an environment; odd environments lose joint (env // 2) % 2 from row 10 on.

    Episodes of environment 0 end in a fall, the others in time; final observations are 1000 + 10 step + env.
    """
    row = torch.arange(step0, step0 + steps)[:, None].expand(steps, ENVS)
    env = torch.arange(ENVS).expand(steps, ENVS)
    severity = torch.zeros(steps, ENVS, 3)
    failing = (row % LENGTH >= 10) & (env % 2 == 1)
    severity.scatter_(2, ((env // 2) % 2)[..., None], failing.float()[..., None])
    generator = torch.Generator().manual_seed(step0)
    last = row % LENGTH == LENGTH - 1
    columns = {
        "episode": env + ENVS * (row // LENGTH),
        "reset": row % LENGTH == 0,
        "terminated": last & (env == 0),
        "truncated": last & (env != 0),
        "obs.detector": torch.randn(steps, ENVS, 6, generator=generator),
        "obs.eye": torch.randint(256, (steps, ENVS, 3, 2, 2), generator=generator, dtype=torch.uint8),
        "action": torch.randn(steps, ENVS, 3, generator=generator),
        "reward": torch.randn(steps, ENVS, generator=generator),
        "valid": torch.ones(steps, ENVS, dtype=torch.bool),
        "severity": severity,
        "kind": torch.where(severity > 0, 0, -1),
        "member": torch.full((steps, ENVS), -1),
    }
    step, where = last.nonzero(as_tuple=True)
    step = step + step0
    told = (1000.0 + 10 * step + where)[:, None].expand(-1, 6)
    eye = torch.full((len(step), 3, 2, 2), 7, dtype=torch.uint8)
    return Chunk(columns, Final(step, where, {"detector": told, "eye": eye}), step0)


def write(path: Path, card: DatasetCard | None = None, chunk: Chunk | None = None, **changes) -> Path:
    writer = ShardWriter(path, card or make_card(**changes))
    writer.append(chunk or make_chunk())
    writer.finish()
    return path


@pytest.fixture
def toy() -> SimpleNamespace:
    return SimpleNamespace(card=make_card, chunk=make_chunk, write=write, law=make_law)
