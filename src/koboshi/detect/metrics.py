"""How good a detector is: delay, misses, false alarms, isolation; and the alarm settings that suit it.

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
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from koboshi.data import Episodes, Faults, Sequences, find_episodes, find_faults
from koboshi.detect.alarms import AlarmCfg, alarms_over_time
from koboshi.detect.model import FaultDetector
from koboshi.errors import KoboshiError

WINDOW_S = 1.0
THRESHOLDS = tuple(1 / (1 + math.exp(-x)) for x in np.linspace(-3, 12, 31))
"""Evenly spaced in log-odds, 0.05 to 0.999994."""
CALIBRATION_THRESHOLDS = tuple(1 / (1 + math.exp(-x)) for x in np.arange(0, 14.0))
PERSISTENCES = (1, 2, 3, 4, 6)


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
    """Those that count."""
    faults: Faults
    """Those that count; `joint` indexes `names`, `episode` indexes `episodes`."""
    names: list[str]
    dt: float


@torch.inference_mode()
def predict(model: FaultDetector, sequence: Sequences, chunk: int = 64) -> Tensor:
    """(T, N, C) probabilities of the candidates, computed `chunk` steps at a time with the state carried."""
    model.eval()
    ids = torch.tensor(model.spec.candidate_ids)
    out = torch.empty(sequence.num_steps, sequence.num_envs, len(ids))
    hidden = model.initial(sequence.num_envs)
    for t in range(0, sequence.num_steps, chunk):
        span = slice(t, t + chunk)
        logits, hidden = model(sequence.obs[span], sequence.reset[span], hidden)
        out[span] = logits[..., ids].sigmoid()
    return out


def judge(prob: Tensor, sequence: Sequences, min_severity: float = 0.0, test_only: bool = False) -> Judged:
    """Pairs (T, N, C) candidate probabilities with the truth; `test_only` leaves training episodes out."""
    ids = sequence.card.candidate_ids
    severity = sequence.severity[..., ids]
    considered = sequence.test if test_only else torch.ones_like(sequence.test)
    # A joint that is a little weak is neither healthy nor faulty: its rows say nothing about false alarms.
    considered = considered & ~((severity > 0) & (severity <= min_severity)).any(-1)
    every = find_episodes(sequence.reset, sequence.episode)
    chosen = (sequence.test if test_only else torch.ones_like(sequence.test)).numpy()[every.start, every.env]
    faults = _whole(find_faults(severity, every, min_severity), every, sequence, chosen)
    episodes = Episodes(*(column[chosen] for column in every))
    new_index = np.cumsum(chosen) - 1
    faults = faults._replace(episode=new_index[faults.episode])
    names = [sequence.card.joint_names[j] for j in ids]
    dt = sequence.card.control_dt
    return Judged(prob, sequence.reset, severity > min_severity, considered, episodes, faults, names, dt)


def _whole(faults: Faults, episodes: Episodes, sequence: Sequences, chosen: np.ndarray) -> Faults:
    """The faults of chosen episodes that the end of the recording does not cut off within the window."""
    window = round(WINDOW_S / sequence.card.control_dt)
    cut_off = (episodes.end[faults.episode] == sequence.num_steps) & (faults.end - faults.onset < window)
    keep = chosen[faults.episode] & ~(cut_off & (faults.end == sequence.num_steps))
    return Faults(*(column[keep] for column in faults))


def delays(judged: Judged, alarms: Tensor) -> np.ndarray:
    """(F,) ms from each fault's onset to the first alarm on its joint; inf where none comes in time."""
    raised = alarms.numpy()
    out = np.full(len(judged.faults.env), np.inf)
    columns = (judged.faults.env, judged.faults.joint, judged.faults.onset, judged.faults.end)
    for i, (env, joint, onset, end) in enumerate(zip(*columns, strict=True)):
        rows = raised[onset:end, env, joint]
        first = int(rows.argmax()) if len(rows) else 0
        if rows[first]:
            out[i] = (first + 1) * judged.dt * 1000
    return out


def alarm_counts(judged: Judged, alarms: Tensor) -> dict[str, float]:
    """False and wrong alarms, the hours they are counted over, and their rates."""
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
        "false_alarms_per_hour": false / healthy_h if healthy_h else 0.0,
        "wrong_alarms": wrong,
        "faulty_hours": faulty_h,
        "wrong_alarms_per_hour": wrong / faulty_h if faulty_h else 0.0,
    }


def confusion(judged: Judged, alarms: Tensor) -> np.ndarray:
    """(C + 1, C + 1) episodes by true and noticed joint; the last row and column are 'none'."""
    none = len(judged.names)
    matrix = np.zeros((none + 1, none + 1), dtype=np.int64)
    window = round(WINDOW_S / judged.dt)
    raised, prob, ep = alarms.numpy(), judged.prob, judged.episodes
    first_fault: dict[int, list[tuple[int, int]]] = {}
    for episode, onset, joint in zip(judged.faults.episode, judged.faults.onset, judged.faults.joint, strict=True):
        first_fault.setdefault(int(episode), []).append((int(onset), int(joint)))
    touched = judged.faulty.any(-1).numpy()
    for i, (env, start, end) in enumerate(zip(ep.env, ep.start, ep.end, strict=True)):
        found = sorted(first_fault.get(i, []))
        if found:
            start, end = found[0][0], min(found[0][0] + window, end)
        elif touched[start:end, env].any():
            continue  # its fault is cut off by the end of the recording
        noticed = _first_alarm(raised[start:end, env], prob[start:end, env])
        truth = found[0][1] if found else none
        matrix[noticed if noticed in [joint for _, joint in found] else truth, noticed] += 1
    return matrix


def _first_alarm(raised: np.ndarray, prob: Tensor) -> int:
    """The column of the first alarm in (rows, C), the more probable of two at once; C where there is none."""
    rows = np.flatnonzero(raised.any(1))
    if not len(rows):
        return raised.shape[1]
    row = rows[0]
    return int(np.where(raised[row], prob[row].numpy(), -1.0).argmax())


def macro_f1(matrix: np.ndarray) -> float:
    """Mean F1 over the joints that fail at least once; `matrix` as `confusion` gives it."""
    hits = np.diag(matrix)[:-1]
    true, noticed = matrix.sum(1)[:-1], matrix.sum(0)[:-1]
    f1 = 2 * hits / np.maximum(true + noticed, 1)
    return float(f1[true > 0].mean()) if (true > 0).any() else math.nan


def figures(judged: Judged, cfg: AlarmCfg, isolation: bool = True) -> dict[str, Any]:
    """All figures of one alarm setting, as JSON data (infinite delays as None)."""
    alarms = alarms_over_time(cfg, judged.prob, judged.reset)
    delay = delays(judged, alarms)
    counts = alarm_counts(judged, alarms)
    found = int(np.isfinite(delay).sum())
    raised = found + counts["false_alarms"] + counts["wrong_alarms"]
    out: dict[str, Any] = {
        "threshold": cfg.threshold,
        "persistence": cfg.persistence,
        "faults": len(delay),
        "delay_ms_median": _quantile(delay, 0.5),
        "delay_ms_p95": _quantile(delay, 0.95),
        "missed": 1 - found / len(delay) if len(delay) else 0.0,
        "precision": found / raised if raised else 1.0,
        "recall": found / len(delay) if len(delay) else 1.0,
        **counts,
    }
    if isolation:
        matrix = confusion(judged, alarms)
        delays_by_joint = {n: delay[judged.faults.joint == j] for j, n in enumerate(judged.names)}
        out |= {
            "macro_f1": macro_f1(matrix),
            "confusion": matrix.tolist(),
            "classes": [*judged.names, "none"],
            "delays_ms": [None if math.isinf(d) else float(d) for d in delay],
            "delay_ms_median_by_joint": {n: _quantile(d, 0.5) for n, d in delays_by_joint.items()},
            "missed_by_joint": {n: float(np.isinf(d).mean()) for n, d in delays_by_joint.items() if len(d)},
        }
    return out


def _quantile(delay: np.ndarray, q: float) -> float | None:
    """The q-quantile, of which no part is interpolated towards infinity; None where it is infinite."""
    if not len(delay):
        return None
    value = float(np.quantile(delay, q, method="higher"))
    return None if math.isinf(value) else value


def curve(judged: Judged, cfg: AlarmCfg, thresholds: tuple[float, ...] = THRESHOLDS) -> list[dict[str, Any]]:
    """`figures` without isolation for each threshold, other settings as in `cfg`."""
    return [figures(judged, _with_threshold(cfg, t, cfg.persistence), isolation=False) for t in thresholds]


def _with_threshold(cfg: AlarmCfg, threshold: float, persistence: int) -> AlarmCfg:
    return replace(
        cfg,
        threshold=threshold,
        persistence=persistence,
        release_threshold=min(cfg.release_threshold, threshold),
    )


def calibrate(
    judged: Judged,
    cfg: AlarmCfg | None = None,
    false_alarms_per_hour: float = 0.5,
    thresholds: tuple[float, ...] = CALIBRATION_THRESHOLDS,
    persistences: tuple[int, ...] = PERSISTENCES,
) -> AlarmCfg:
    """The setting with the least mean delay (misses and all above 1 s count 1 s) among those that keep to the
    rate of false alarms; where none does, the one with the fewest.

    A few hours of recording cannot show a rate of one in two hours, so for each persistence the counts at
    lower thresholds are extrapolated too: their logarithm falls about linearly in the threshold's log-odds.
    """
    cfg = cfg or AlarmCfg()
    if not len(judged.faults.env):
        raise KoboshiError("cannot calibrate alarms: no fault in these episodes")
    best: tuple[tuple[bool, float, float], AlarmCfg] | None = None
    for persistence in persistences:
        settings = [_with_threshold(cfg, threshold, persistence) for threshold in thresholds]
        counts = [alarm_counts(judged, alarms_over_time(s, judged.prob, judged.reset)) for s in settings]
        quiet = _first_quiet(thresholds, counts, false_alarms_per_hour)
        rate = counts[quiet]["false_alarms_per_hour"]
        too_many = rate > false_alarms_per_hour
        alarms = alarms_over_time(settings[quiet], judged.prob, judged.reset)
        delay = float(np.minimum(delays(judged, alarms), 1000 * WINDOW_S).mean())
        score = too_many, rate if too_many else 0.0, delay
        if best is None or score < best[0]:
            best = score, settings[quiet]
    assert best is not None
    return best[1]


def _first_quiet(thresholds: tuple[float, ...], counts: list[dict[str, float]], allowed: float) -> int:
    """The lowest threshold from which on the observed and the extrapolated rates are allowed; or the last."""
    x = np.array([math.log(t / (1 - t)) for t in thresholds])
    seen = np.array([c["false_alarms"] for c in counts])
    hours = counts[0]["healthy_hours"]
    loud = seen > allowed * hours
    tail = np.flatnonzero(seen >= 3)[-6:]
    if len(tail) >= 2:
        slope, offset = np.polyfit(x[tail], np.log(seen[tail]), 1)
        loud |= np.exp(slope * x + offset) > allowed * hours
    return min(int(np.flatnonzero(loud)[-1]) + 1 if loud.any() else 0, len(thresholds) - 1)


def evaluate_detector(
    model: FaultDetector,
    sequences: list[Sequences],
    cfg: AlarmCfg,
    min_severity: float = 0.0,
    test_only: bool = False,
    with_curve: bool = True,
) -> dict[str, Any]:
    """All figures of a detector on recorded rows, as JSON data; the parts of several lengths are pooled."""
    judged = judge_all(model, sequences, min_severity, test_only)
    result = figures(judged, cfg)
    if with_curve:
        result["curve"] = curve(judged, cfg)
    return result


def judge_all(
    model: FaultDetector, sequences: list[Sequences], min_severity: float = 0.0, test_only: bool = False
) -> Judged:
    """Predicts and judges every sequence; shorter ones are padded with rows that do not count."""
    return pool([judge(predict(model, seq), seq, min_severity, test_only) for seq in sequences])


def pool(parts: list[Judged]) -> Judged:
    """Side by side along N."""
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
