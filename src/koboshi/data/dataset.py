"""Opening data sets: whole, untouched, of the right robot, split by episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from koboshi.data.card import DatasetCard
from koboshi.data.sequences import Sequences, concatenate
from koboshi.data.shards import read_meta, read_shard
from koboshi.errors import KoboshiError
from koboshi.runs import read_json, write_json

SPLIT_FILE = "split.json"


@dataclass(frozen=True)
class Part:
    """One complete data set on disk."""

    path: Path
    card: DatasetCard
    shards: list[Path]
    steps: list[int]
    """Control steps a shard."""


class Dataset:
    """One or several complete data sets of one robot and one observation layout."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts

    @property
    def card(self) -> DatasetCard:
        """The card of the newest part, which speaks for robot, layout and PD law of all."""
        return self.parts[-1].card

    @classmethod
    def open(
        cls,
        path: str | Path | Sequence[str | Path],
        expect_robot: str | None = None,
        expect_layout: str | None = None,
    ) -> Dataset:
        """Reads cards and shard footers; the columns' digests are checked when `sequences` reads them.

        `expect_layout` is a card's `layout_hash`. KoboshiError where a data set is missing, empty, not
        finished, lacks a shard, has one that is truncated or exchanged, or is of something else.
        """
        paths = [path] if isinstance(path, str | Path) else list(path)
        if not paths:
            raise KoboshiError("no data set given")
        parts = [_open_part(Path(p)) for p in paths]
        robot, layout = expect_robot or parts[0].card.robot, expect_layout or parts[0].card.layout_hash
        for part in parts:
            if part.card.robot != robot:
                raise KoboshiError(f"data set {part.path} is of robot '{part.card.robot}', not of '{robot}'")
            if part.card.layout_hash != layout:
                raise KoboshiError(f"data set {part.path} has observation layout {part.card.layout_hash}, not {layout}")
        return cls(parts)

    def sequences(self) -> list[Sequences]:
        """All rows; parts of equal length are joined along N, so usually the list has one entry."""
        return concatenate([_read_part(part) for part in self.parts])


def _open_part(path: Path) -> Part:
    card = DatasetCard.load(path)
    if not card.complete:
        raise KoboshiError(f"data set {path} is not complete; to finish it, run again: {card.command}")
    if not card.shards:
        raise KoboshiError(f"data set {path} is empty")
    shards, steps = [], []
    expected = {"robot": card.robot, "layout": card.layout_hash, "envs": str(card.num_envs)}
    for name, digest in card.shards.items():
        if not (path / name).is_file():
            raise KoboshiError(f"data set {path} lacks {name}")
        meta = read_meta(path / name)
        for key, value in {**expected, "sha256": digest}.items():
            if meta[key] != value:
                raise KoboshiError(f"shard {path / name} has {key} {meta[key]}, its card says {value}")
        shards.append(path / name)
        steps.append(int(meta["steps"]))
    if not sum(steps):
        raise KoboshiError(f"data set {path} is empty")
    return Part(path, card, shards, steps)


def _read_part(part: Part) -> Sequences:
    total, n, card = sum(part.steps), part.card.num_envs, part.card
    columns = {
        "obs": torch.empty(total, n, card.obs_dim),
        "severity": torch.empty(total, n, len(card.joint_names)),
        "episode": torch.empty(total, n, dtype=torch.int64),
        "reset": torch.empty(total, n, dtype=torch.bool),
        "member": torch.empty(total, n, dtype=torch.int16),
    }
    at = 0
    for path, steps in zip(part.shards, part.steps, strict=True):
        chunk = read_shard(path)
        if chunk.step0 != at:
            raise KoboshiError(f"shard {path} starts at step {chunk.step0}, expected {at}")
        for name, column in columns.items():
            column[at : at + steps] = getattr(chunk, name)
        at += steps
    test = load_split(part, columns["episode"])
    return Sequences(card=card, **columns, test=test)


def split(dataset: Dataset, test_fraction: float, seed: int) -> list[Tensor]:
    """Draws test episodes and writes `split.json` beside each part; returns a (T, N) test mask a part."""
    if not 0 < test_fraction < 1:
        raise KoboshiError(f"--split {test_fraction} is not between 0 and 1")
    masks = []
    for part in dataset.parts:
        episode = _read_part(part).episode
        ids = np.unique(episode.numpy())
        if len(ids) < 2:
            raise KoboshiError(f"data set {part.path} has {len(ids)} episode; a split needs at least 2")
        count = min(max(round(test_fraction * len(ids)), 1), len(ids) - 1)
        test = np.sort(np.random.default_rng(seed).permutation(ids)[:count])
        train = np.setdiff1d(ids, test)
        lists = {"train": train.tolist(), "test": test.tolist()}
        write_json(part.path / SPLIT_FILE, {"seed": seed, "test_fraction": test_fraction, **lists})
        masks.append(torch.isin(episode, torch.from_numpy(test)))
    return masks


def load_split(part: Part, episode: Tensor) -> Tensor:
    """The (T, N) test mask of `split.json`, all false where there is none.

    KoboshiError where train and test mix or an episode is in neither.
    """
    path = part.path / SPLIT_FILE
    if not path.exists():
        return torch.zeros_like(episode, dtype=torch.bool)
    record = read_json(path)
    if not isinstance(record, dict) or not {"train", "test"} <= set(record):
        raise KoboshiError(f"{path} has no lists 'train' and 'test'")
    train, test = set(record["train"]), set(record["test"])
    present = set(np.unique(episode.numpy()).tolist())
    if train & test:
        raise KoboshiError(f"{path} mixes train and test: episodes {_some(train & test)} are in both")
    stray = present - train - test
    if stray:
        raise KoboshiError(f"{path} is of another data set: episodes {_some(stray)} are in neither list")
    return torch.isin(episode, torch.tensor(sorted(test), dtype=torch.int64))


def _some(ids: set[int]) -> str:
    shown = sorted(ids)[:5]
    return ", ".join(map(str, shown)) + (" …" if len(ids) > 5 else "")
