"""Parquet shards: each a span of time of all environments, written whole or not at all.

Rows are env-major (environment 0 steps t0 .. t0+C-1, then environment 1, ...), so a shard reshapes to
(N, C, ...) without a sort. A value of any shape lies in its column as one flat list.

**Next observations.** The next observation of a row is the observation of its environment's next row, except where
an episode ends (the next row is the first one after the reset) and in the recording's last row. Only for these rows
the true next observation lies in `final-00000.parquet` beside its shard: (step, env, obs.<group>), one row an episode
instead of one a transition. A second column of next observations would double the data to say what the next row says
in all but one row of some hundreds; files without it would lose the value of what was cut off by time.

A shard's metadata carry each column's type, shape and sha256 and the final file's; the card carries the digest of
these, so that some columns can be read, and verified, without the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from koboshi import config
from koboshi.data.card import CARD_FILE, COUNTED, OBS, Column, DatasetCard
from koboshi.errors import KoboshiError, unknown
from koboshi.runs import atomic_path, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    import pyarrow as pa

RESUME_FILE = "resume.safetensors"
_KEYS = {"robot", "schema", "columns", "final", "steps", "envs", "step0"}


@dataclass
class Final:
    """True observations after F rows whose next row is another episode's, or not recorded; by step, then env."""

    step: Tensor
    """(F,) int64: control step of the row, since the recording began."""
    env: Tensor
    """(F,) int64."""
    obs: dict[str, Tensor]
    """Group -> (F, *shape)."""


@dataclass
class Chunk:
    """C control steps of N environments, as tensors."""

    columns: dict[str, Tensor]
    """Name -> (C, N, *shape): all columns of the card but `env` and `step`."""
    final: Final
    """At least of every row that is terminated or truncated."""
    step0: int = 0
    """Control step of the first row, since the recording began."""


def shard_name(index: int) -> str:
    return f"shard-{index:05d}.parquet"


def final_name(shard: str) -> str:
    """The file of final observations that belongs to a shard."""
    return shard.replace("shard-", "final-")


class ShardWriter:
    """Writes a data set's folder shard by shard; a kill loses at most the shard in hand.

    After each `append`, `save_state` stores whatever the collector needs to resume. On resume, shards that
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
            lines = config.diff({k: theirs[k] for k in differ}, {k: mine[k] for k in differ})
            raise KoboshiError(f"cannot resume {self.path}, which holds other data: {'; '.join(lines[:4])}")
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
        """Writes one shard; KoboshiError where a column does not fit the card or an episode's end is not known."""
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
            digests = {name: read_meta(self.path / name).digest for name in names}
            self.card = replace(self.card, complete=True, shards=digests)
            self.card.save(self.path)
        (self.path / RESUME_FILE).unlink(missing_ok=True)

    def _drop_shards_from(self, index: int) -> None:
        for path in [*self.path.glob("shard-*.parquet"), *self.path.glob("final-*.parquet")]:
            if path.name.replace("final-", "shard-") >= shard_name(index):
                path.unlink()


def _as_numpy(name: str, value: Tensor, column: Column, rows: tuple[int, ...]) -> np.ndarray:
    """A tensor as the card declares it."""
    if tuple(value.shape) != (*rows, *column.shape):
        raise KoboshiError(f"chunk's {name} has shape {tuple(value.shape)}, expected {(*rows, *column.shape)}")
    array = value.detach().cpu().numpy()
    if not np.can_cast(array.dtype, column.dtype, "same_kind"):
        raise KoboshiError(f"chunk's {name} is {array.dtype}, expected {column.dtype}")
    return array


def _rows(chunk: Chunk, card: DatasetCard) -> dict[str, np.ndarray]:
    """Env-major arrays (N · C, …) of a chunk, in the order of the card's columns."""
    steps, n = chunk.columns["reset"].shape
    given = [name for name in card.columns if name not in COUNTED]
    for name in chunk.columns:
        if name not in given:
            raise unknown("column", name, given)
    arrays: dict[str, np.ndarray] = {}
    for name, column in card.columns.items():
        if name == "env":
            array = np.repeat(np.arange(n), steps)
        elif name == "step":
            array = np.tile(np.arange(chunk.step0, chunk.step0 + steps), n)
        elif name not in chunk.columns:
            raise KoboshiError(f"a chunk lacks column '{name}'")
        else:
            array = _as_numpy(name, chunk.columns[name], column, (steps, card.num_envs)).swapaxes(0, 1)
            array = array.reshape(-1, *column.shape)
        arrays[name] = np.ascontiguousarray(array, dtype=column.dtype)
    return arrays


def _final_rows(chunk: Chunk, card: DatasetCard) -> dict[str, np.ndarray]:
    """Arrays (F, …) of final observations, by step and environment; KoboshiError where one is missing."""
    step, env = (x.cpu().numpy().astype(np.int64) for x in (chunk.final.step, chunk.final.env))
    ended = (chunk.columns["terminated"] | chunk.columns["truncated"]).cpu().numpy()
    n = ended.shape[1]
    key = (step - chunk.step0) * n + env
    order = np.argsort(key, kind="stable")
    missing = np.setdiff1d(np.flatnonzero(ended), key)
    if len(missing):
        at = f"step {chunk.step0 + missing[0] // n} of environment {missing[0] % n}"
        raise KoboshiError(f"{len(missing)} episodes end without their true last observation, such as {at}")
    arrays: dict[str, np.ndarray] = {"step": step[order], "env": env[order].astype(np.int32)}
    for group in card.groups:
        if group not in chunk.final.obs:
            raise KoboshiError(f"a chunk's final observations lack group '{group}'")
        name = OBS + group
        array = _as_numpy(f"final {name}", chunk.final.obs[group], card.columns[name], (len(step),))
        arrays[name] = np.ascontiguousarray(array[order], dtype=card.columns[name].dtype)
    return arrays


def _digest(array: np.ndarray) -> str:
    """sha256 over an array's type, shape and bytes."""
    sha = hashlib.sha256(f"{array.dtype}|{array.shape}|".encode())
    sha.update(array.data)
    return sha.hexdigest()


def _described(arrays: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    """Column -> [shape of a row's value, sha256]."""
    return {name: [list(array.shape[1:]), _digest(array)] for name, array in arrays.items()}


def _write_shard(path: Path, chunk: Chunk, card: DatasetCard) -> None:
    arrays, final = _rows(chunk, card), _final_rows(chunk, card)
    steps, n = chunk.columns["reset"].shape
    meta = {"robot": card.robot, "schema": card.schema_hash, "steps": steps, "envs": n, "step0": chunk.step0}
    described = _described(final)
    # The shard comes last: where it is there, what belongs to it is.
    _write_table(path.with_name(final_name(path.name)), final, meta | {"columns": described, "final": {}})
    _write_table(path, arrays, meta | {"columns": _described(arrays), "final": described})


def _write_table(path: Path, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = {key: json.dumps(value, sort_keys=True) for key, value in meta.items()}
    columns = [_to_arrow(array) for array in arrays.values()]
    table = pa.table(columns, names=list(arrays)).replace_schema_metadata(written)
    measured = [n for n, a in arrays.items() if a.dtype == np.float32 and (n.startswith(OBS) or n == "action")]
    with atomic_path(path) as temporary:
        # Splitting floats by byte lets lz4 find something and costs nothing; measured against none and zstd.
        pq.write_table(
            table,
            temporary,
            compression="lz4",
            use_dictionary=[_leaf(name, array) for name, array in arrays.items() if name not in measured],
            column_encoding={_leaf(name, arrays[name]): "BYTE_STREAM_SPLIT" for name in measured},
            write_statistics=False,
        )


def _leaf(name: str, array: np.ndarray) -> str:
    return name if array.ndim == 1 else f"{name}.list.element"


def _to_arrow(array: np.ndarray) -> pa.Array:
    import pyarrow as pa

    if array.ndim == 1:
        return pa.array(array)
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), int(np.prod(array.shape[1:])))


def _damaged(path: Path, why: object) -> KoboshiError:
    return KoboshiError(f"shard {path} is truncated or tampered with: {why}")


@dataclass(frozen=True)
class ShardMeta:
    """What a shard says about itself."""

    robot: str
    schema: str
    columns: dict[str, list[Any]]
    """Column -> [shape of a row's value, sha256]."""
    final: dict[str, list[Any]] = field(repr=False)
    """The same of its file of final observations."""
    steps: int
    envs: int
    step0: int

    @property
    def digest(self) -> str:
        """sha256 over all of it, and so over all rows."""
        return hashlib.sha256(json.dumps(self.__dict__, sort_keys=True).encode()).hexdigest()


def read_meta(path: Path) -> ShardMeta:
    """The metadata of a shard; KoboshiError where the file's footer is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        raw: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
        found = {key.decode(): json.loads(value) for key, value in raw.items() if key.decode() in _KEYS}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    missing = _KEYS - set(found)
    if missing:
        raise KoboshiError(f"shard {path} was not written by koboshi (its schema has no {sorted(missing)[0]})")
    return ShardMeta(**found)


def read_columns(path: Path, names: Iterable[str], expected: dict[str, list[Any]]) -> dict[str, np.ndarray]:
    """Columns of a Parquet file, (rows, *shape); KoboshiError naming the file where one differs from `expected`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted, arrays = list(names), {}
    try:
        table = pq.ParquetFile(path).read(columns=wanted)
        for name in wanted:
            shape, sha256 = expected[name]
            arrays[name] = _to_numpy(table[name], tuple(shape))
            if _digest(arrays[name]) != sha256:
                raise _damaged(path, f"its column {name} does not have the digest it carries")
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error
    return arrays


def _to_numpy(column: pa.ChunkedArray, shape: tuple[int, ...]) -> np.ndarray:
    import pyarrow as pa

    array = column.combine_chunks()
    if column.null_count:
        raise ValueError(f"it has {column.null_count} nulls")
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), *shape)
    return np.ascontiguousarray(array.to_numpy(zero_copy_only=False))


def read_shard(path: Path) -> Chunk:
    """A whole shard as tensors; KoboshiError naming it where its rows do not have the digest it carries."""
    meta = read_meta(path)
    arrays = read_columns(path, meta.columns, meta.columns)
    final = read_columns(path.with_name(final_name(path.name)), meta.final, meta.final)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array if array.flags.writeable else array.copy())

    columns = {
        name: tensor(array).unflatten(0, (meta.envs, meta.steps)).transpose(0, 1)
        for name, array in arrays.items()
        if name not in COUNTED
    }
    obs = {name.removeprefix(OBS): tensor(array) for name, array in final.items() if name.startswith(OBS)}
    return Chunk(columns, Final(tensor(final["step"]), tensor(final["env"]).long(), obs), meta.step0)
