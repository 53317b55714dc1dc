"""The alarm settings that suit a detector, and all its figures.

Settings are chosen on the calibrate episodes only, figures are given for the test episodes only; where data have no
split, figures are of all episodes and say so.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from koboshi.data import PARTS, UNSPLIT, Sequences
from koboshi.detect.alarms import AlarmCfg, alarms_over_time
from koboshi.detect.base import Detector
from koboshi.detect.grades import graded_figures
from koboshi.detect.metrics import WINDOW_S, Judged, alarm_counts, delays, figures, judge_all
from koboshi.errors import KoboshiError

THRESHOLDS = tuple(1 / (1 + math.exp(-x)) for x in np.linspace(-3, 12, 31))
"""Evenly spaced in log-odds, 0.05 to 0.999994."""
CALIBRATION_THRESHOLDS = tuple(1 / (1 + math.exp(-x)) for x in np.arange(0, 14.0))
PERSISTENCES = (1, 2, 3, 4, 6)
FEW = 3
"""None seen means, with 95 % certainty, fewer than three expected (the rule of three)."""
STEEPEST = -1.0
"""How the logarithm of the false alarms' number falls in the threshold's log-odds where probabilities are true ones."""
EVERY_EPISODE = "all, training ones included"


def curve(judged: Judged, cfg: AlarmCfg, thresholds: tuple[float, ...] = THRESHOLDS) -> list[dict[str, Any]]:
    """`figures` without isolation for each threshold, other settings as in `cfg`."""
    return [figures(judged, with_threshold(cfg, t, cfg.persistence), isolation=False) for t in thresholds]


def with_threshold(cfg: AlarmCfg, threshold: float, persistence: int) -> AlarmCfg:
    """The same settings otherwise, without any for those that are sure; an alarm's release never needs a higher
    probability than its raising."""
    return replace(
        cfg,
        threshold=threshold,
        persistence=persistence,
        sure_threshold=None,
        sure_persistence=AlarmCfg.sure_persistence,
        release_threshold=min(cfg.release_threshold, threshold),
    )


def calibrate(
    judged: Judged,
    cfg: AlarmCfg | None = None,
    false_alarms_per_hour: float = 0.5,
    thresholds: tuple[float, ...] = CALIBRATION_THRESHOLDS,
    persistences: tuple[int, ...] = PERSISTENCES,
) -> AlarmCfg:
    """The alarm setting for the episodes that were judged: that with the least mean delay (misses and all
    above 1 s count 1 s) among those that keep to the rate of false alarms; where none does, the one with the fewest.

    A few hours of recording cannot show a rate of one in two hours, so for each persistence the counts at lower
    thresholds are extrapolated: their logarithm falls about linearly in the threshold's log-odds, at most one for one.
    """
    cfg = cfg or AlarmCfg()
    if not len(judged.faults.env):
        raise KoboshiError("cannot calibrate alarms: no fault in these episodes")
    if not bool((judged.considered & ~judged.faulty.any(-1)).any()):
        raise KoboshiError("cannot calibrate alarms: no healthy row in these episodes, so no false alarm can be seen")
    best: tuple[tuple[bool, float, float], AlarmCfg] | None = None
    for persistence in persistences:
        settings = [with_threshold(cfg, threshold, persistence) for threshold in thresholds]
        counts = [alarm_counts(judged, alarms_over_time(s, judged.prob, judged.reset)) for s in settings]
        quiet = first_quiet(thresholds, counts, false_alarms_per_hour)
        rate = counts[quiet]["false_alarms_per_hour"]
        too_many = rate > false_alarms_per_hour
        alarms = alarms_over_time(settings[quiet], judged.prob, judged.reset)
        delay = float(capped(delays(judged, alarms)).mean())
        score = too_many, rate if too_many else 0.0, delay
        if best is None or score < best[0]:
            best = score, settings[quiet]
    assert best is not None
    return best[1]


def capped(delays_ms: np.ndarray) -> np.ndarray:
    """Delays in ms of which those above `WINDOW_S`, and misses, are that long."""
    return np.minimum(delays_ms, 1000 * WINDOW_S)


def first_quiet(thresholds: tuple[float, ...], counts: list[dict[str, Any]], allowed: float) -> int:
    """The lowest threshold from which on the observed and the extrapolated rates are allowed; or the last."""
    return _first(likely_rates(thresholds, counts) <= allowed, len(thresholds) - 1)


def _first(quiet: np.ndarray, otherwise: int) -> int:
    return int(quiet.argmax()) if quiet.any() else otherwise


def quiet_settings(settings: list[AlarmCfg], counts: list[dict[str, float]], allowed: float) -> list[AlarmCfg]:
    """Settings with at most so many false alarms an hour that no other is sure to be quicker than.

    `settings` go through CALIBRATION_THRESHOLDS for each of PERSISTENCES; `counts` are theirs. Those alone: of each
    persistence the lowest threshold that is quiet. In twos, the quicker one for joints that are sure: their rates add.
    """
    steps = len(CALIBRATION_THRESHOLDS)
    firsts = range(0, len(counts), steps)
    rates = [likely_rates(CALIBRATION_THRESHOLDS, counts[first : first + steps]) for first in firsts]
    quiet = [settings[first + _first(rate <= allowed, steps - 1)] for first, rate in zip(firsts, rates, strict=True)]
    for slow, quick in combinations(reversed(range(len(rates))), 2):
        for place, rate in enumerate(rates[slow]):
            surer = max(place + 1, _first(rates[quick] <= allowed - rate, steps))
            if surer < steps:
                one, sure = settings[firsts[slow] + place], settings[firsts[quick] + surer]
                quiet.append(replace(one, sure_threshold=sure.threshold, sure_persistence=sure.persistence))
    return quiet


def likely_rates(thresholds: tuple[float, ...], counts: list[dict[str, Any]]) -> np.ndarray:
    """False alarms an hour at each threshold, ascending: what was seen, or more where that is likely, and never less
    than at a higher threshold."""
    x = np.array([math.log(t / (1 - t)) for t in thresholds])
    seen = np.array([c["false_alarms"] for c in counts])
    tail = np.flatnonzero(seen >= FEW)[-6:]
    # Fewer show no more than that there are hardly FEW.
    last, count = (tail[-1], seen[tail[-1]]) if len(tail) else (0, FEW)
    slope = np.polyfit(x[tail], np.log(seen[tail]), 1)[0] if len(tail) >= 2 else STEEPEST
    # Of a few counts that rise, or fall all of a sudden, chance is the reason.
    slope = STEEPEST if slope > -1e-6 else max(slope, STEEPEST)
    likely = np.where(np.arange(len(x)) >= last, count * np.exp(slope * (x - x[last])), seen)
    most = np.maximum.accumulate(np.maximum(seen, likely)[::-1])[::-1]
    return most / counts[0]["healthy_hours"]


def evaluate_detector(
    model: Detector,
    sequences: list[Sequences],
    cfg: AlarmCfg,
    min_severity: float = 0.0,
    with_curve: bool = True,
) -> dict[str, Any]:
    """All figures of a detector on the test episodes of recorded rows, as JSON data.

    `episodes` says which ones were judged: "test", or `EVERY_EPISODE` where there is no split.
    """
    part = None if any(bool((seq.part == UNSPLIT).any()) for seq in sequences) else PARTS[2]
    judged = judge_all(model, sequences, part, min_severity)
    result = {
        "episodes": part or EVERY_EPISODE,
        **figures(judged, cfg),
        **graded_figures(model, sequences, cfg, part, min_severity),
    }
    if with_curve:
        result["curve"] = curve(judged, cfg)
    return result
