"""Columns of a data set decoded once into memory-mapped files, so that nobody needs all of them in memory.

A column lies in `cache/<content>/<column>.npy` as (N, T, *shape): an environment's steps are neighbours, as training
on sequences reads them. Each is decoded when it is first asked for, from shards whose digests are verified on the
way, and written whole or not at all; it takes as much disk as the column has bytes. Where a shard was touched since,
it is decoded and verified anew. A cache may be deleted at any time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from koboshi.data.card import COUNTED, OBS, DatasetCard
from koboshi.data.shards import Final, final_name, read_columns, read_meta
from koboshi.errors import KoboshiError, unknown
from koboshi.runs import atomic_path


@dataclass(frozen=True)
class Folder:
    """One complete data set on disk."""

    path: Path
    card: DatasetCard
    shards: list[Path]
    steps: list[int]
    """Control steps a shard."""

    def columns(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Name -> (T, N, *shape) memory-mapped: index them, a copy of the whole may not fit.

        KoboshiError naming the shard where rows do not have the digest that the card gives them.
        """
        readable = [name for name in self.card.columns if name not in COUNTED]
        for name in names:
            if name not in readable:
                raise unknown("column", name, readable)
        shapes = {n: (self.card.num_envs, sum(self.steps), *self.card.columns[n].shape) for n in names}
        missing = [name for name in names if not self._is_fresh(name, shapes[name])]
        if missing:
            self._decode(missing, shapes)
        return {name: self._mapped(name, shapes[name]).transpose(0, 1) for name in names}

    def final(self, groups: Sequence[str]) -> Final:
        """The true observations after each row whose next row is another episode's, or not recorded."""
        parts = []
        for shard in self.shards:
            names = ["step", "env", *(OBS + group for group in groups)]
            parts.append(read_columns(shard.with_name(final_name(shard.name)), names, read_meta(shard).final))
        joined = {name: torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in parts[0]}
        return Final(joined["step"], joined["env"].long(), {group: joined[OBS + group] for group in groups})

    def _file(self, name: str) -> Path:
        return self.path / "cache" / self.card.content / f"{name}.npy"

    def _is_fresh(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether the file of a column is there, whole, and younger than all shards."""
        try:
            decoded = self._file(name).stat().st_mtime_ns
        except OSError:
            return False
        touched = any(shard.stat().st_mtime_ns >= decoded for shard in self.shards)
        return not touched and self._load(name, shape) is not None

    def _load(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """The mapped file of a column; None where it is missing or damaged."""
        try:
            # Copy-on-write: nothing that is done to the tensor reaches the file.
            array = np.load(self._file(name), mmap_mode="c")
        except (OSError, ValueError):
            return None
        return array if (array.shape, array.dtype) == (shape, self.card.columns[name].dtype) else None

    def _mapped(self, name: str, shape: tuple[int, ...]) -> Tensor:
        array = self._load(name, shape)
        if array is None:
            raise KoboshiError(f"{self._file(name)} vanished or changed while it was read; is another process at work?")
        return torch.from_numpy(array)

    def _decode(self, names: list[str], shapes: dict[str, tuple[int, ...]]) -> None:
        """Writes the files of some columns, one shard in memory at a time."""
        with ExitStack() as stack:
            arrays = {}
            for name in names:
                temporary = stack.enter_context(atomic_path(self._file(name)))
                arrays[name] = _mapped_file(temporary, self.card.columns[name].dtype, shapes[name])
            at = 0
            for shard, steps in zip(self.shards, self.steps, strict=True):
                # Environment and step are only verified: the order of rows tells them.
                found = read_columns(shard, [*COUNTED, *names], read_meta(shard).columns)
                for name, array in arrays.items():
                    array[:, at : at + steps] = found[name].reshape(len(array), steps, *array.shape[2:])
                at += steps
            for array in arrays.values():
                array.flush()


def _mapped_file(path: Path, dtype: str, shape: tuple[int, ...]) -> np.memmap:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    # Writing to a mapped file on a full disk would kill the process; asking for the room first raises instead.
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
