"""Recorded rows as time-major tensors, and where episodes and faults begin and end in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from koboshi.data.card import DatasetCard
from koboshi.errors import KoboshiError


@dataclass
class Sequences:
    """T control steps of N environments; the columns are those of `data.card.COLUMNS`."""

    card: DatasetCard
    obs: Tensor
    """(T, N, D) float32."""
    severity: Tensor
    """(T, N, J) float32."""
    episode: Tensor
    """(T, N) int64."""
    reset: Tensor
    """(T, N) bool."""
    member: Tensor
    """(T, N) int16."""
    test: Tensor
    """(T, N) bool: rows of test episodes."""

    @property
    def num_steps(self) -> int:
        return self.obs.shape[0]

    @property
    def num_envs(self) -> int:
        return self.obs.shape[1]


class Episodes(NamedTuple):
    """E stretches of rows between resets, by environment and time; the data may cut off the last of each."""

    env: np.ndarray
    """(E,) environment."""
    start: np.ndarray
    """(E,) first row."""
    end: np.ndarray
    """(E,) one past the last row."""
    id: np.ndarray
    """(E,) episode id."""


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


def find_episodes(reset: Tensor, episode: Tensor) -> Episodes:
    """Episodes of (T, N) `reset` and `episode`. A row where the id changes also starts one."""
    first = reset.t().clone()
    first[:, 0] = True
    ids = episode.t()
    first[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    env, start = (x.numpy() for x in first.nonzero(as_tuple=True))
    steps = reset.shape[0]
    last_of_env = np.append(env[1:] != env[:-1], True)
    end = np.where(last_of_env, steps, np.append(start[1:], steps))
    return Episodes(env, start, end, ids.numpy()[env, start])


def find_faults(severity: Tensor, episodes: Episodes, floor: float = 0.0) -> Faults:
    """Faults in (T, N, J) `severity`, by environment and onset; severities up to `floor` count as healthy."""
    faulty = severity.permute(1, 2, 0) > floor  # (N, J, T)
    steps = severity.shape[0]
    first = np.zeros((severity.shape[1], steps), dtype=bool)
    first[episodes.env, episodes.start] = True
    here = faulty.numpy()
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


def concatenate(parts: list[Sequences]) -> list[Sequences]:
    """Joins sequences of equal length along N; episode ids are made unique again."""
    by_length: dict[int, list[Sequences]] = {}
    offset = 0
    for part in parts:
        if part.card.layout_hash != parts[0].card.layout_hash or part.card.robot != parts[0].card.robot:
            raise KoboshiError(
                f"data sets of {parts[0].card.robot} (layout {parts[0].card.layout_hash}) and of "
                f"{part.card.robot} (layout {part.card.layout_hash}) cannot be joined"
            )
        moved = replace(part, episode=part.episode + offset)
        offset = int(moved.episode.max()) + 1
        by_length.setdefault(part.num_steps, []).append(moved)
    return [_join(group) for group in by_length.values()]


def _join(group: list[Sequences]) -> Sequences:
    if len(group) == 1:
        return group[0]
    names = ("obs", "severity", "episode", "reset", "member", "test")
    return Sequences(group[-1].card, *(torch.cat([getattr(part, name) for part in group], 1) for name in names))
