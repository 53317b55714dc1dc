"""What a detector says of faults of several kinds and severities: whom it notices, and what it takes them for.

Definitions, over faults as in `detect.metrics`, each by its kind and severity as the fault began:
- **recall**: share whose joint alarms within `WINDOW_S` of the onset, and **delay** of those faults, misses infinite.
- **kind**: of the noticed, the likeliest `WINDOW_S` after the onset or in the fault's last row. Macro-F1 over kinds.
- **severity_error**: of the noticed, mean distance of the severity from the true one in the same row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from koboshi.data import Sequences, find_episodes
from koboshi.detect.alarms import AlarmCfg, alarms_over_time
from koboshi.detect.base import Detector
from koboshi.detect.metrics import (
    COLUMNS,
    WINDOW_S,
    delays_ms,
    first_named,
    lanes,
    macro_f1,
    quantile,
    ratio,
    readings,
    whole_faults,
)

LEVELS = (0.375, 0.625, 0.875, 1.0)
"""Upper ends of the severities that are counted together."""


class _Told(NamedTuple):
    """F faults, each column (F,)."""

    kind: np.ndarray
    """Index into the detector's kinds."""
    severity: np.ndarray
    delay: np.ndarray
    """ms, infinite where it was not noticed within `WINDOW_S`."""
    said_kind: np.ndarray
    said_severity: np.ndarray


@torch.inference_mode()
def graded_figures(
    model: Detector, sequences: list[Sequences], alarm: AlarmCfg, part: str | None, min_severity: float = 0.0
) -> dict[str, Any]:
    """The figures above, as JSON data; {} where there are neither several kinds nor severities."""
    if not model.spec.graded:
        return {}
    told = [_told(model, lane, alarm, min_severity) for lane in lanes(sequences, part, COLUMNS)]
    found = summary(_Told(*(np.concatenate(column) for column in zip(*told, strict=True))), model.spec.kinds)
    if not model.tells:
        found |= dict.fromkeys(("kind_macro_f1", "kind_confusion", "severity_error"))
    return found


def _told(model: Detector, lane: Sequences, alarm: AlarmCfg, min_severity: float) -> _Told:
    rows = [(r.logit.sigmoid().cpu(), r.kind.argmax(-2).cpu(), r.severity.cpu()) for r in readings(model, lane)]
    probability, kind, severity = (torch.cat(column) for column in zip(*rows, strict=True))
    alarms = alarms_over_time(alarm, probability, lane["reset"]).numpy()
    dt = lane.card.control_dt
    faults = whole_faults(lane, find_episodes(lane), min_severity)
    env, joint, onset = faults.env, faults.joint, faults.onset
    row = np.minimum(onset + round(WINDOW_S / dt), faults.end) - 1
    delay = delays_ms(first_named(alarms, env, onset, row + 1), joint, onset, dt)
    return _Told(
        np.array(model.spec.place_of_kinds)[lane["kind"].numpy()[onset, env, joint]],
        lane["severity"].numpy()[onset, env, joint],
        delay,
        kind.numpy()[row, env, joint],
        severity.numpy()[row, env, joint],
    )


def summary(told: _Told, kinds: list[str]) -> dict[str, Any]:
    """The figures of these faults."""
    noticed = np.isfinite(told.delay)
    matrix = np.zeros((len(kinds) + 1, len(kinds) + 1), dtype=np.int64)
    np.add.at(matrix, (told.kind[noticed], told.said_kind[noticed]), 1)
    bins = np.searchsorted(LEVELS, told.severity - 1e-6)
    by_kind = {}
    for k, kind in enumerate(kinds):
        rows = [(told.kind == k) & (bins == b) for b in range(len(LEVELS))]
        by_kind[kind] = {
            "recall": [ratio(int(noticed[r].sum()), int(r.sum())) for r in rows],
            "delay_ms_median": [quantile(told.delay[r], 0.5) for r in rows],
            "faults": [int(r.sum()) for r in rows],
        }
    off = np.abs(told.said_severity - told.severity)[noticed]
    return {
        "severities_up_to": list(LEVELS),
        "by_kind": by_kind,
        "kind_macro_f1": macro_f1(matrix),
        "kind_confusion": matrix[:-1, :-1].tolist(),
        "severity_error": float(off.mean()) if len(off) else None,
    }
