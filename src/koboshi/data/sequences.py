"""Recorded rows as time-major tensors, and where episodes and faults begin and end in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from koboshi.data.card import OBS, DatasetCard
from koboshi.data.shards import Final
from koboshi.errors import KoboshiError, unknown

PARTS = ("train", "calibrate", "test")
UNSPLIT, PADDING = -1, -2
"""In `Sequences.part`: rows of a data set without a split, and rows that stand for nothing."""
BLOCK = 64
"""Environments that are looked at together where a data set is gone through from end to end."""


@dataclass
class Sequences:
    """T control steps of N environments; the columns may be memory-mapped, so index them rather than copy them."""

    card: DatasetCard
    columns: dict[str, Tensor]
    """Name -> (T, N, *shape)."""
    part: Tensor
    """(T, N) int8: index into PARTS of the row's episode, UNSPLIT, or PADDING."""
    final: Final | None = None
    """True observations where the next row does not have them; None where they were not asked for."""

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.columns:
            raise unknown("column", name, self.columns)
        return self.columns[name]

    @property
    def num_steps(self) -> int:
        return self.part.shape[0]

    @property
    def num_envs(self) -> int:
        return self.part.shape[1]

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[int, Sequences]]:
        """(first environment, its and the next `size` - 1 environments' rows), views of these."""
        for start in range(0, self.num_envs, size):
            span = slice(start, start + size)
            columns = {name: column[:, span] for name, column in self.columns.items()}
            yield start, Sequences(self.card, columns, self.part[:, span])

    def next_obs(self, group: str, step: Tensor, env: Tensor) -> Tensor:
        """(B, *shape) the true observation after each of the rows (step, env), each (B,) int64.

        KoboshiError where that of the last row of an environment was not recorded.
        """
        if self.final is None or group not in self.final.obs:
            raise KoboshiError(f"final observations of group '{group}' were not asked for when the data were read")
        known = self._final_index(step, env)
        ended = self["terminated"][step, env] | self["truncated"][step, env]
        lost = (known < 0) & (ended | (step == self.num_steps - 1))
        if bool(lost.any()):
            i = int(lost.nonzero()[0])
            raise KoboshiError(f"no observation after step {int(step[i])} of environment {int(env[i])} was recorded")
        following = self[OBS + group][(step + 1).clamp(max=self.num_steps - 1), env].clone()
        following[known >= 0] = self.final.obs[group][known[known >= 0]]
        return following

    def _final_index(self, step: Tensor, env: Tensor) -> Tensor:
        """(B,) where in `final` these rows are; -1 nowhere."""
        assert self.final is not None
        if not len(self.final.step):
            return torch.full_like(step, -1)
        keys, wanted = self.final.step * self.num_envs + self.final.env, step * self.num_envs + env
        at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return torch.where(keys[at] == wanted, at, -1)


class Episodes(NamedTuple):
    """E stretches of rows between resets, by environment and time."""

    env: np.ndarray
    """(E,) environment."""
    start: np.ndarray
    """(E,) first row."""
    end: np.ndarray
    """(E,) one past the last row."""
    id: np.ndarray
    """(E,) episode id."""
    cut: np.ndarray
    """(E,) bool: the recording ends before the episode does."""


class Faults(NamedTuple):
    """F times a joint fails: rows onset .. end-1 of an environment have severity above the floor."""

    env: np.ndarray
    joint: np.ndarray
    onset: np.ndarray
    end: np.ndarray
    start: np.ndarray
    """(F,) first row of the episode it happens in."""
    episode: np.ndarray
    """(F,) index into Episodes."""


def find_episodes(sequence: Sequences) -> Episodes:
    """The episodes of all rows but padding. A row where the id changes also starts one."""
    first = sequence["reset"].t().clone()
    first[:, 0] = True
    ids, padding = sequence["episode"].t(), sequence.part.t() == PADDING
    first[:, 1:] |= (ids[:, 1:] != ids[:, :-1]) | padding[:, 1:]
    env, start = (x.numpy() for x in first.nonzero(as_tuple=True))
    last_of_env = np.append(env[1:] != env[:-1], True)
    end = np.where(last_of_env, sequence.num_steps, np.append(start[1:], sequence.num_steps))
    ended = (sequence["terminated"][end - 1, env] | sequence["truncated"][end - 1, env]).numpy()
    found = Episodes(env, start, end, ids.numpy()[env, start], ~ended)
    return Episodes(*(column[~padding.numpy()[env, start]] for column in found))


def find_faults(sequence: Sequences, episodes: Episodes, floor: float = 0.0) -> Faults:
    """Faults of `find_episodes`' episodes by environment and onset; severities up to `floor` count as healthy."""
    parts = []
    for first_env, block in sequence.blocks():
        inside = np.flatnonzero((episodes.env >= first_env) & (episodes.env < first_env + block.num_envs))
        mine = Episodes(*(column[inside] for column in episodes))._replace(env=episodes.env[inside] - first_env)
        faults = _faults_of_block(block["severity"].permute(1, 2, 0) > floor, mine)
        parts.append(faults._replace(env=faults.env + first_env, episode=inside[faults.episode]))
    return Faults(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _faults_of_block(faulty: Tensor, episodes: Episodes) -> Faults:
    """Faults in (N, J, T) bool."""
    here, steps = faulty.numpy(), faulty.shape[-1]
    first = np.zeros((len(here), steps), dtype=bool)
    first[episodes.env, episodes.start] = True
    rises = here.copy()
    rises[:, :, 1:] &= ~here[:, :, :-1] | first[:, None, 1:]
    env, joint, onset = np.nonzero(rises)
    order = np.lexsort((joint, onset, env))
    env, joint, onset = env[order], joint[order], onset[order]
    index = np.searchsorted(episodes.env * steps + episodes.start, env * steps + onset, "right") - 1
    end = np.empty_like(onset)
    for i, (n, j, t, e) in enumerate(zip(env, joint, onset, index, strict=True)):
        healed = np.flatnonzero(~here[n, j, t : episodes.end[e]])
        end[i] = t + healed[0] if len(healed) else episodes.end[e]
    return Faults(env, joint, onset, end, episodes.start[index], index)


def side_by_side(sequence: Sequences, episodes: Episodes) -> Sequences:
    """Some episodes as environments of their own, each from step 0 on, the shorter ones padded at their ends.

    Copies these rows; what an episode's rows say does not depend on the others, so they can be judged alone.
    """
    length = torch.from_numpy(episodes.end - episodes.start)
    row = torch.arange(int(length.max()))[:, None]
    padding = row >= length
    source = torch.from_numpy(episodes.start) + torch.minimum(row, length - 1)
    env = torch.from_numpy(episodes.env).expand_as(source)
    columns = {name: column[source, env] for name, column in sequence.columns.items()}
    if "severity" in columns:
        columns["severity"][padding] = 0.0
    card = replace(sequence.card, num_envs=len(episodes.env))
    return Sequences(card, columns, sequence.part[source, env].masked_fill(padding, PADDING))
