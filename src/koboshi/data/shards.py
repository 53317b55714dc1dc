"""Parquet shards: each a span of time of all environments, written whole or not at all.

Rows are env-major (environment 0 steps t0 .. t0+C-1, then environment 1, ...), so a shard reshapes to
(N, C, ...) without a sort. The schema's metadata carries the robot, the layout's hash and a sha256 of the
columns' bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from koboshi.data.card import CARD_FILE, COLUMNS, DatasetCard
from koboshi.errors import KoboshiError
from koboshi.runs import atomic_path, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    import pyarrow as pa

RESUME_FILE = "resume.safetensors"
_TYPES = {"env": np.int32, "step": np.int64, "episode": np.int64, "reset": np.bool_, "member": np.int16}


@dataclass
class Chunk:
    """C control steps of N environments, as tensors."""

    obs: Tensor
    """(C, N, D) float."""
    severity: Tensor
    """(C, N, J) float; see `data.card.COLUMNS`."""
    episode: Tensor
    """(C, N) int."""
    reset: Tensor
    """(C, N) bool."""
    member: Tensor
    """(C, N) int."""
    step0: int
    """Control step of the first row, since the collection began."""


def shard_name(index: int) -> str:
    return f"shard-{index:05d}.parquet"


class ShardWriter:
    """Writes a data set's folder shard by shard; a kill loses at most the shard in hand.

    After each `append`, `save_state` stores whatever the collector needs to go on. On resume, shards that
    are younger than the stored state are deleted and `load_state` gives the state back.
    """

    def __init__(self, path: str | Path, card: DatasetCard, resume: bool = False) -> None:
        self.path, self.card = Path(path), replace(card, complete=False, shards={})
        self.next_shard = 0
        self._state: dict[str, Tensor] | None = None
        if (self.path / CARD_FILE).exists():
            if not resume:
                raise KoboshiError(f"{self.path} already holds a data set; resume it or choose another path")
            self._reopen()
        else:
            self.card.save(self.path)
            self._drop_shards_from(0)

    def _reopen(self) -> None:
        found = DatasetCard.load(self.path)
        mine, theirs = DatasetCard.from_dict(self.card.to_dict()).to_dict(), found.to_dict()
        # The commit may move on between a kill and its resume; what was measured may not.
        free = {"complete", "shards", "commit", "command"}
        differ = [k for k in mine if k not in free and mine[k] != theirs[k]]
        if differ:
            k = differ[0]
            raise KoboshiError(f"cannot resume {self.path}: its {k} is {theirs[k]!r}, not {mine[k]!r}")
        self.card = found
        if found.complete:
            self.next_shard = len(found.shards)
            return
        if (self.path / RESUME_FILE).exists():
            self._state, meta = load_checkpoint(self.path / RESUME_FILE)
            self.next_shard = int(meta["next_shard"])
        self._drop_shards_from(self.next_shard)

    @property
    def complete(self) -> bool:
        """Whether `finish` was called, perhaps by an earlier process."""
        return self.card.complete

    def append(self, chunk: Chunk) -> Path:
        """Writes one shard; KoboshiError where a shape does not fit the card."""
        if self.complete:
            raise KoboshiError(f"data set {self.path} is complete; nothing can be appended")
        path = self.path / shard_name(self.next_shard)
        _write_shard(path, chunk, self.card)
        self.next_shard += 1
        return path

    def save_state(self, tensors: dict[str, Tensor]) -> None:
        """Stores `tensors` and the number of shards written so far."""
        save_checkpoint(self.path / RESUME_FILE, tensors, {"next_shard": self.next_shard})

    def load_state(self) -> dict[str, Tensor] | None:
        """What the last `save_state` before the kill stored; None where there is nothing to resume."""
        return self._state

    def finish(self) -> None:
        """Marks the data set complete, with every shard's digest in the card, and drops the resume state."""
        if not self.complete:
            names = [shard_name(i) for i in range(self.next_shard)]
            digests = {name: read_meta(self.path / name)["sha256"] for name in names}
            self.card = replace(self.card, complete=True, shards=digests)
            self.card.save(self.path)
        (self.path / RESUME_FILE).unlink(missing_ok=True)

    def _drop_shards_from(self, index: int) -> None:
        for path in self.path.glob("shard-*.parquet"):
            if path.name >= shard_name(index):
                path.unlink()


def _columns(chunk: Chunk, card: DatasetCard) -> dict[str, np.ndarray]:
    """Env-major arrays of a chunk, in the order of COLUMNS."""
    steps, n = chunk.reset.shape
    wide = {"obs": card.obs_dim, "severity": len(card.joint_names)}
    arrays: dict[str, np.ndarray] = {}
    for name in COLUMNS:
        if name == "env":
            array = np.repeat(np.arange(n), steps)
        elif name == "step":
            array = np.tile(np.arange(chunk.step0, chunk.step0 + steps), n)
        else:
            value: Tensor = getattr(chunk, name)
            shape = (steps, card.num_envs, wide[name]) if name in wide else (steps, card.num_envs)
            if tuple(value.shape) != shape:
                raise KoboshiError(f"chunk.{name} has shape {tuple(value.shape)}, expected {shape}")
            array = value.detach().cpu().transpose(0, 1).contiguous().flatten(0, 1).numpy()
        arrays[name] = np.ascontiguousarray(array, dtype=_TYPES.get(name, np.float32))
    return arrays


def content_digest(arrays: dict[str, np.ndarray]) -> str:
    """sha256 over the columns' names, types, shapes and bytes."""
    sha = hashlib.sha256()
    for name in COLUMNS:
        sha.update(f"{name}|{arrays[name].dtype}|{arrays[name].shape}|".encode())
        sha.update(arrays[name].data)
    return sha.hexdigest()


def _write_shard(path: Path, chunk: Chunk, card: DatasetCard) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = _columns(chunk, card)
    steps, n = chunk.reset.shape
    meta = {
        "robot": card.robot,
        "layout": card.layout_hash,
        "sha256": content_digest(arrays),
        "steps": str(steps),
        "envs": str(n),
        "step0": str(chunk.step0),
    }
    columns = [_to_arrow(array) for array in arrays.values()]
    table = pa.table(columns, names=list(arrays)).replace_schema_metadata(meta)
    with atomic_path(path) as temporary:
        # Splitting floats by byte lets lz4 find something and costs nothing; measured against none and zstd.
        pq.write_table(
            table,
            temporary,
            compression="lz4",
            use_dictionary=["severity.list.element"],
            column_encoding={"obs.list.element": "BYTE_STREAM_SPLIT"},
            write_statistics=False,
        )


def _to_arrow(array: np.ndarray) -> pa.Array:
    import pyarrow as pa

    if array.ndim == 1:
        return pa.array(array)
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])


def _damaged(path: Path, why: object) -> KoboshiError:
    return KoboshiError(f"shard {path} is truncated or tampered with: {why}")


def read_meta(path: Path) -> dict[str, str]:
    """The schema metadata of a shard; KoboshiError where the file's footer is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        raw: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    meta = {key.decode(): value.decode() for key, value in raw.items()}
    missing = {"robot", "layout", "sha256", "steps", "envs", "step0"} - set(meta)
    if missing:
        raise KoboshiError(f"shard {path} was not written by koboshi (its schema has no {sorted(missing)[0]})")
    return meta


def read_shard(path: Path) -> Chunk:
    """A shard as tensors; KoboshiError naming it where its columns do not have the digest it carries."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    meta = read_meta(path)
    steps, n = int(meta["steps"]), int(meta["envs"])
    try:
        table = pq.ParquetFile(path).read()
        arrays = {name: _to_numpy(table[name], steps * n) for name in COLUMNS}
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error
    if content_digest(arrays) != meta["sha256"]:
        raise _damaged(path, "its columns do not have the digest it carries")

    def time_major(name: str) -> Tensor:
        array = arrays[name].reshape(n, steps, *arrays[name].shape[1:])
        return torch.from_numpy(array.copy() if not array.flags.writeable else array).transpose(0, 1)

    columns: dict[str, Any] = {k: time_major(k) for k in ("obs", "severity", "episode", "reset", "member")}
    return Chunk(**columns, step0=int(meta["step0"]))


def _to_numpy(column: pa.ChunkedArray, rows: int) -> np.ndarray:
    import pyarrow as pa

    array = column.combine_chunks()
    if column.null_count or len(array) != rows:
        raise ValueError(f"{len(array)} rows with {column.null_count} nulls, expected {rows}")
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy(zero_copy_only=False).reshape(rows, array.type.list_size)
    return np.ascontiguousarray(array.to_numpy(zero_copy_only=False))
