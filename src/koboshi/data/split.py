"""Which episodes are trained on, calibrated on, tested on: `split.json` beside the rows, and its digest."""

from __future__ import annotations

import hashlib
import json
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from koboshi.data.cache import Folder
from koboshi.data.sequences import PARTS, UNSPLIT
from koboshi.errors import KoboshiError
from koboshi.runs import read_json, write_json

if TYPE_CHECKING:
    from koboshi.data.dataset import Dataset

SPLIT_FILE = "split.json"


def draw_split(dataset: Dataset, calibrate: float, test: float, seed: int, redraw: bool = True) -> list[str]:
    """Draws each part's episodes and writes `split.json`; gives the names of the data sets that were split.

    `calibrate`, `test`: shares of the episodes; the rest is trained on. Without `redraw`, data sets that have a split
    keep it. KoboshiError where the shares leave a part without an episode.
    """
    if not (calibrate > 0 and test > 0 and calibrate + test < 1):
        raise KoboshiError(f"a split of {calibrate} calibrate and {test} test leaves a part empty; 0.15 0.15 is usual")
    drawn = []
    for folder in dataset.folders:
        if not redraw and load_split(folder) is not None:
            continue
        ids = np.unique(folder.columns(["episode"])["episode"].numpy())
        if len(ids) < len(PARTS):
            raise KoboshiError(f"data set {folder.path} has {len(ids)} episodes; a split needs at least {len(PARTS)}")
        counts = [min(max(round(share * len(ids)), 1), len(ids) - 2) for share in (calibrate, test)]
        counts[1] = min(counts[1], len(ids) - 1 - counts[0])
        order = np.random.default_rng(seed).permutation(ids)
        held_out = np.split(order, np.cumsum(counts))
        lists = {name: np.sort(held_out[i]).tolist() for name, i in (("calibrate", 0), ("test", 1), ("train", 2))}
        record = {"data": folder.card.content, "seed": seed, "shares": {"calibrate": calibrate, "test": test}}
        write_json(folder.path / SPLIT_FILE, {**record, **{name: lists[name] for name in PARTS}})
        drawn.append(str(folder.path))
    return drawn


def load_split(folder: Folder) -> dict[str, Any] | None:
    """The record in `split.json`, or None; KoboshiError where it is of other data or its parts mix."""
    path = folder.path / SPLIT_FILE
    if not path.exists():
        return None
    record = read_json(path)
    if not isinstance(record, dict) or not {"data", *PARTS} <= set(record):
        raise KoboshiError(f"{path} has not the lists {', '.join(PARTS)}; draw the split anew: koboshi data --split")
    if record["data"] != folder.card.content:
        raise KoboshiError(f"{path} is of other data ({record['data']}, not {folder.card.content}); draw it anew")
    for one, other in combinations(PARTS, 2):
        both = set(record[one]) & set(record[other])
        if both:
            raise KoboshiError(f"{path} mixes {one} and {other}: episodes {_some(both)} are in both")
    return record


def split_digest(record: dict[str, Any] | None) -> str | None:
    """A short hash of which episodes of which data are in which part."""
    if record is None:
        return None
    meaning = [record["data"], *(sorted(record[name]) for name in PARTS)]
    return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:16]


def part_of_rows(folder: Folder, episode: Tensor) -> Tensor:
    """(T, N) int8 index into PARTS of each row's episode; UNSPLIT all over where there is no split.

    KoboshiError where an episode is in no part.
    """
    record = load_split(folder)
    if record is None:
        return torch.full(episode.shape, UNSPLIT, dtype=torch.int8)
    ids = np.concatenate([np.asarray(record[name], dtype=np.int64) for name in PARTS])
    codes = np.concatenate([np.full(len(record[name]), i, dtype=np.int8) for i, name in enumerate(PARTS)])
    order = np.argsort(ids)
    ids, codes = ids[order], codes[order]
    found = []
    for row in episode.t().numpy():  # an environment at a time: its steps are neighbours on disk
        at = np.searchsorted(ids, row).clip(max=len(ids) - 1)
        stray = set(row[ids[at] != row].tolist())
        if stray:
            path = folder.path / SPLIT_FILE
            raise KoboshiError(f"{path} is of another data set: episodes {_some(stray)} are in no part")
        found.append(codes[at])
    return torch.from_numpy(np.stack(found)).t()


def _some(ids: set[int]) -> str:
    shown = sorted(ids)[:5]
    return ", ".join(map(str, shown)) + (" …" if len(ids) > 5 else "")
