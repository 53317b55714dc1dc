"""How good a detector is: delay, misses, false alarms, isolation.

Definitions
- A **fault** is a stretch of rows of one joint in one episode with severity above `min_severity`. One that
  the recording cuts off less than `WINDOW_S` after its onset is left out: nobody knows how it would end.
- **Delay**: control periods from the onset up to and including the first row with an alarm on that joint, so
  that an alarm on the first row that shows the fault counts one period (20 ms). Misses are infinite.
- **False alarm**: an alarm raised (rising edge) while no joint of that robot is faulty, over the hours
  in which none is. **Wrong alarm**: one raised on a healthy joint while another is faulty, over those hours.
- **Isolation**: the joint of the first alarm within `WINDOW_S` after an episode's first onset (of two at once
  the more probable), or none; for a healthy episode the joint of its first alarm, or none. Macro-F1 is the
  mean over the joints that fail.
- Where nothing was measured (no fault, no alarm, no hour) a figure is None.

`first_named`, `delays_ms`, `noticed`, `confusion_matrix`, `macro_f1` and `quantile` work on plain arrays, so that
whoever records alarms in another way counts them in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from koboshi.data import OBS, PADDING, PARTS, Episodes, Faults, Sequences, find_episodes, find_faults, side_by_side
from koboshi.detect.alarms import AlarmCfg, alarms_over_time
from koboshi.detect.base import Detector, Reading
from koboshi.detect.spec import GROUP
from koboshi.errors import KoboshiError

WINDOW_S = 1.0
COLUMNS = (OBS + GROUP, "severity", "kind")
"""Columns of a data set that training and judging a detector read, beside those of every data set."""
TOGETHER = 256
"""Episodes that are judged together; bounds the memory."""


def first_named(alarms: np.ndarray, env: np.ndarray, onset: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(F, J) float: the first row of onset .. end-1 of `env` with an alarm on each joint; inf where there is none.

    `alarms`: (T, N, J) bool; `env`, `onset`, `end`: (F,) int.
    """
    named = np.full((len(env), alarms.shape[2]), np.inf)
    for i, (n, start, stop) in enumerate(zip(env, onset, end, strict=True)):
        rows = alarms[start:stop, n]
        if len(rows):
            named[i] = np.where(rows.any(0), start + rows.argmax(0), np.inf)
    return named


def delays_ms(named: np.ndarray, joint: np.ndarray, onset: np.ndarray, dt: float) -> np.ndarray:
    """(F,) ms from each onset up to and including the first row that names the joint that failed; inf if none does.

    `named`: (F, J) of `first_named`; `joint`: (F,) true joint; `onset`: (F,) first row that can show the fault.
    """
    right = named[np.arange(len(joint)), joint]
    return (right - onset + 1) * dt * 1000


def noticed(
    named: np.ndarray, onset: np.ndarray, window: float = math.inf, strength: np.ndarray | None = None
) -> np.ndarray:
    """(F,) the joint that is named first, less than `window` rows after the onset; J for none.

    Of several at once the one of the greatest `strength` (F, J), else the one with the lowest index.
    """
    in_time = np.where(named - onset[:, None] < window, named, np.inf)
    first = in_time.min(1, keepdims=True)
    score = np.where(in_time == first, 1.0 if strength is None else strength, -np.inf)
    return np.where(np.isfinite(first[:, 0]), score.argmax(1), named.shape[1])


def confusion_matrix(true: np.ndarray, found: np.ndarray, joints: int) -> np.ndarray:
    """(J + 1, J + 1) counts by true and noticed joint, each (F,); the last row and column (joint J) are 'none'."""
    matrix = np.zeros((joints + 1, joints + 1), dtype=np.int64)
    np.add.at(matrix, (true, found), 1)
    return matrix


def macro_f1(matrix: np.ndarray) -> float | None:
    """Mean F1 over the joints that fail at least once, of a `confusion_matrix`; None where none does."""
    hits = np.diag(matrix)[:-1]
    true, found = matrix.sum(1)[:-1], matrix.sum(0)[:-1]
    f1 = 2 * hits / np.maximum(true + found, 1)
    return float(f1[true > 0].mean()) if (true > 0).any() else None


def quantile(delay: np.ndarray, q: float) -> float | None:
    """A quantile of delays without interpolation, since misses are infinite; None if it is one, or there are none."""
    value = float(np.quantile(delay, q, method="higher")) if len(delay) else math.inf
    return None if math.isinf(value) else value


@dataclass
class Judged:
    """Probabilities of T steps of N robots, C candidate joints, with the truth they are judged by."""

    prob: Tensor
    """(T, N, C)."""
    reset: Tensor
    """(T, N) bool."""
    faulty: Tensor
    """(T, N, C) bool."""
    considered: Tensor
    """(T, N) bool: rows that count."""
    episodes: Episodes
    faults: Faults
    """Those that count; `joint` indexes `names`, `episode` indexes `episodes`."""
    names: list[str]
    dt: float


@torch.inference_mode()
def predict(model: Detector, sequence: Sequences, chunk: int = 64) -> Tensor:
    """(T, N, C) probabilities of the candidates on the CPU, computed `chunk` steps at a time on the model's device."""
    model.eval()
    ids = torch.tensor(model.spec.candidate_ids, device=model.device)
    return torch.cat([reading.logit[..., ids].sigmoid().cpu() for reading in readings(model, sequence, chunk)])


def readings(model: Detector, sequence: Sequences, chunk: int = 64) -> Iterator[Reading]:
    """What a detector makes of a sequence, `chunk` steps at a time, on the model's device."""
    hidden = model.initial(sequence.num_envs)
    for t in range(0, sequence.num_steps, chunk):
        span = slice(t, t + chunk)
        obs, reset = (sequence[name][span].to(model.device) for name in (OBS + GROUP, "reset"))
        reading, hidden = model(obs, reset, hidden)
        yield reading


def judge(prob: Tensor, sequence: Sequences, min_severity: float = 0.0) -> Judged:
    """Pairs (T, N, C) candidate probabilities with the truth."""
    ids = sequence.card.candidate_ids
    severity = sequence["severity"][..., ids]
    # A joint that is a little weak is neither healthy nor faulty: its rows say nothing about false alarms.
    considered = (sequence.part != PADDING) & ~((severity > 0) & (severity <= min_severity)).any(-1)
    episodes = find_episodes(sequence)
    faults = _of_candidates(whole_faults(sequence, episodes, min_severity), ids)
    names = [sequence.card.joint_names[j] for j in ids]
    dt = sequence.card.control_dt
    return Judged(prob, sequence["reset"], severity > min_severity, considered, episodes, faults, names, dt)


def whole_faults(sequence: Sequences, episodes: Episodes, min_severity: float) -> Faults:
    """Those that the recording does not cut off within `WINDOW_S` of their onset."""
    faults = find_faults(sequence, episodes, min_severity)
    window = round(WINDOW_S / sequence.card.control_dt)
    lost = episodes.cut[faults.episode] & (faults.end == episodes.end[faults.episode])
    kept = ~(lost & (faults.end - faults.onset < window))
    return Faults(*(column[kept] for column in faults))


def _of_candidates(faults: Faults, ids: list[int]) -> Faults:
    """Faults of the candidates, by their place among them."""
    of = np.isin(faults.joint, ids)
    faults = Faults(*(column[of] for column in faults))
    return faults._replace(joint=np.array([ids.index(j) for j in faults.joint], dtype=np.int64))


def judge_all(
    model: Detector, sequences: list[Sequences], part: str | None = None, min_severity: float = 0.0
) -> Judged:
    """Predicts and judges the episodes of one part of the split ("calibrate", "test"); of all parts where it is None.

    Other episodes' rows are not even read. KoboshiError where the part has no episode, or the data are not the
    detector's kind.
    """
    for sequence in sequences:
        model.spec.check(sequence.card)
    columns = (OBS + GROUP, "severity")
    judged = [judge(predict(model, lane), lane, min_severity) for lane in lanes(sequences, part, columns)]
    if not judged:
        raise KoboshiError(f"no {part or 'recorded'} episodes in these data; draw a split: koboshi data --split")
    return pool(judged)


def lanes(sequences: list[Sequences], part: str | None, columns: tuple[str, ...]) -> Iterator[Sequences]:
    """The episodes of a part (None: all), those of about one length together; these columns and every data set's."""
    for whole in sequences:
        needed = (*columns, "reset", "episode", "terminated", "truncated")
        seq = Sequences(whole.card, {name: whole[name] for name in needed}, whole.part)
        episodes = find_episodes(seq)
        mine = seq.part.numpy()[episodes.start, episodes.env]
        chosen = np.flatnonzero(mine == PARTS.index(part) if part else mine != PADDING)
        chosen = chosen[np.argsort((episodes.start - episodes.end)[chosen], kind="stable")]
        for start in range(0, len(chosen), TOGETHER):
            yield side_by_side(seq, Episodes(*(column[chosen[start : start + TOGETHER]] for column in episodes)))


def pool(parts: list[Judged]) -> Judged:
    """Side by side along N; shorter ones are padded with rows that do not count."""
    if len(parts) == 1:
        return parts[0]
    steps = max(len(part.prob) for part in parts)

    def join(name: str, fill: float) -> Tensor:
        return torch.cat([_padded(getattr(part, name), steps, fill) for part in parts], 1)

    envs = np.cumsum([0] + [part.prob.shape[1] for part in parts])
    counts = np.cumsum([0] + [len(part.episodes.env) for part in parts])
    episodes = [p.episodes._replace(env=p.episodes.env + n) for p, n in zip(parts, envs[:-1], strict=True)]
    faults = [
        p.faults._replace(env=p.faults.env + n, episode=p.faults.episode + e)
        for p, n, e in zip(parts, envs[:-1], counts[:-1], strict=True)
    ]
    return Judged(
        join("prob", 0.0),
        join("reset", 1),
        join("faulty", 0),
        join("considered", 0),
        Episodes(*(np.concatenate(c) for c in zip(*episodes, strict=True))),
        Faults(*(np.concatenate(c) for c in zip(*faults, strict=True))),
        parts[0].names,
        parts[0].dt,
    )


def _padded(x: Tensor, steps: int, fill: float) -> Tensor:
    missing = steps - x.shape[0]
    return torch.cat([x, x.new_full((missing, *x.shape[1:]), fill)]) if missing else x


def delays(judged: Judged, alarms: Tensor) -> np.ndarray:
    """(F,) ms from each fault's onset to the first alarm on its joint; inf where none comes in time."""
    faults = judged.faults
    named = first_named(alarms.numpy(), faults.env, faults.onset, faults.end)
    return delays_ms(named, faults.joint, faults.onset, judged.dt)


def alarm_counts(judged: Judged, alarms: Tensor) -> dict[str, Any]:
    """False and wrong alarms, the hours they are counted over, and their rates (None without any hours)."""
    rising = alarms.clone()
    rising[1:] &= ~alarms[:-1] | judged.reset[1:].unsqueeze(-1)
    any_fault = judged.faulty.any(-1)
    healthy, broken = judged.considered & ~any_fault, judged.considered & any_fault
    false = int((rising & healthy.unsqueeze(-1)).sum())
    wrong = int((rising & ~judged.faulty & broken.unsqueeze(-1)).sum())
    healthy_h, faulty_h = (int(rows.sum()) * judged.dt / 3600 for rows in (healthy, broken))
    return {
        "false_alarms": false,
        "healthy_hours": healthy_h,
        "false_alarms_per_hour": ratio(false, healthy_h),
        "wrong_alarms": wrong,
        "faulty_hours": faulty_h,
        "wrong_alarms_per_hour": ratio(wrong, faulty_h),
    }


def ratio(part: float, whole: float) -> float | None:
    """part / whole; None where there is nothing to be a part of."""
    return part / whole if whole else None


def confusion(judged: Judged, alarms: Tensor) -> np.ndarray:
    """(C + 1, C + 1) episodes by true and noticed joint; the last row and column are 'none'."""
    none, window, ep = len(judged.names), round(WINDOW_S / judged.dt), judged.episodes
    true = np.full(len(ep.env), none)
    begin = ep.start.copy()
    failing: list[set[int]] = [set() for _ in true]
    order = np.lexsort((judged.faults.joint, judged.faults.onset))[::-1]
    for i in order:  # backwards, so that the first fault of an episode has the last word
        e = judged.faults.episode[i]
        true[e], begin[e] = judged.faults.joint[i], judged.faults.onset[i]
        failing[e].add(int(judged.faults.joint[i]))
    end = np.where(true == none, ep.end, np.minimum(begin + window, ep.end))
    named = first_named(alarms.numpy(), ep.env, begin, end)
    row = np.where(np.isinf(named.min(1)), begin, named.min(1)).astype(np.int64)
    found = noticed(named, begin, strength=judged.prob.numpy()[row, ep.env])
    true = np.array([f if f in failing[e] else t for e, (t, f) in enumerate(zip(true, found, strict=True))], dtype=int)
    # An episode whose only fault the end of the recording cuts off is neither faulty nor healthy.
    touched = judged.faulty.any(-1).numpy()
    clear = [bool(failing[e]) or not touched[s:t, n].any() for e, (n, s, t) in enumerate(zip(*ep[:3], strict=True))]
    return confusion_matrix(true[clear], found[clear], none)


def figures(judged: Judged, cfg: AlarmCfg, isolation: bool = True) -> dict[str, Any]:
    """All figures of one alarm setting, as JSON data (infinite delays as None)."""
    alarms = alarms_over_time(cfg, judged.prob, judged.reset)
    delay = delays(judged, alarms)
    counts = alarm_counts(judged, alarms)
    found = int(np.isfinite(delay).sum())
    out: dict[str, Any] = {
        "threshold": cfg.threshold,
        "persistence": cfg.persistence,
        "sure_threshold": cfg.sure_threshold,
        "sure_persistence": cfg.sure_persistence,
        "faults": len(delay),
        "delay_ms_median": quantile(delay, 0.5),
        "delay_ms_p95": quantile(delay, 0.95),
        "missed": ratio(len(delay) - found, len(delay)),
        "precision": ratio(found, found + counts["false_alarms"] + counts["wrong_alarms"]),
        "recall": ratio(found, len(delay)),
        **counts,
    }
    if isolation:
        matrix = confusion(judged, alarms)
        by_joint = {n: delay[judged.faults.joint == j] for j, n in enumerate(judged.names)}
        out |= {
            "macro_f1": macro_f1(matrix),
            "confusion": matrix.tolist(),
            "classes": [*judged.names, "none"],
            "delays_ms": [None if math.isinf(d) else float(d) for d in delay],
            "delay_ms_median_by_joint": {n: quantile(d, 0.5) for n, d in by_joint.items()},
            "missed_by_joint": {n: ratio(int(np.isinf(d).sum()), len(d)) for n, d in by_joint.items()},
        }
    return out
