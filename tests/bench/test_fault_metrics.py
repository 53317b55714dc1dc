"""Figures over rows, each against numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from koboshi import robots
from koboshi.bench import fault_metrics as metrics
from koboshi.bench.fault_metrics import STRATA, Episodes, FaultRows
from koboshi.bench.statistics import root_ratio
from koboshi.faults import KINDS, Fault, Scenario

H1 = robots.find("unitree_h1")
KNEE, TORSO = H1.joint_id("left_knee"), H1.joint_id("torso")
WALK, STAND = (0.5, 0.0, 0.0), (0.0, 0.0, 0.0)


def scenario(*faults: Fault, command: tuple[float, float, float] = WALK) -> Scenario:
    return Scenario(faults, command, 3.0, 0.0)


EPISODES = Episodes(
    (
        scenario(),
        scenario(command=STAND),
        scenario(Fault("left_knee")),
        scenario(Fault("torso", "locked", 0.5)),
        scenario(Fault("left_knee"), Fault("torso", severity=0.5)),
        scenario(Fault("left_knee", duration_s=0.5, period_s=1.0)),
    ),
    H1,
)
INF = math.inf


def faults(**columns: Any) -> FaultRows:
    zeros = np.zeros(len(next(iter(columns.values()))))
    given = {name: np.array(x, dtype=float) for name, x in columns.items()}
    return FaultRows(**({n: zeros for n in ("delay", "load", "severity", "kind", "believed")} | given))


def test_strata_part_the_episodes() -> None:
    found = {name: np.flatnonzero(chosen(EPISODES)).tolist() for name, chosen in STRATA.items()}
    assert found == {
        "k=0, walking": [0], "k=0, standing": [1], "k=1": [2, 3], "k=1, dead": [2], "k=2": [4], "k=2, held out": [],
        "k=3": [], "k=4": [], "comes and goes": [5],
    }  # fmt: skip
    assert EPISODES.with_kinds(["locked"]).tolist() == [False, False, False, True, False, False]
    assert EPISODES.joints[4].nonzero()[0].tolist() == sorted((KNEE, TORSO))


def test_void_episodes_count_for_nothing_and_the_fallen_for_some() -> None:
    rows = {"survived": [True, False, None], "heading_error": [0.1, None, None], "path_progress": [0.9, 0.2, None]}
    np.testing.assert_equal(metrics.survived(rows), [1, 0, np.nan])
    np.testing.assert_equal(metrics.of_survivors(rows, "path_progress"), [0.9, np.nan, np.nan])
    np.testing.assert_equal(metrics.of_all(rows, "path_progress"), [0.9, 0.2, np.nan])
    other = {"survived": [True, True, True]}
    assert metrics.common_survivors([rows, other]).tolist() == [True, False, False]


def test_an_episode_counts_for_each_joint_that_breaks_in_it() -> None:
    found = metrics.by_joint(np.array([np.nan, np.nan, 1, 1, 0, 1.0]), EPISODES)
    assert found.shape == (6, 1 + len(H1.joint_names))
    assert found[4, [1 + KNEE, 1 + TORSO]].tolist() == [1, 1] and found[2:, 1 + TORSO].sum() == 2


def test_faults_that_nobody_felt_are_left_out() -> None:
    rows = {
        "survived": [True, True, None, True, False, True],
        "felt": [[], [], [True], [True], [True, False], [True]],
        "delay_ms": [[], [], [20.0], [None], [40.0, None], [60.0]],
        "load_ms": [[], [], [20.0], [None], [60.0, None], [20.0]],
        "kinds": [[], [], ["none"], ["locked"], ["braking", "none"], ["none"]],
    }
    found = metrics.felt_faults(rows, EPISODES, EPISODES.broken >= 1)
    assert found.delay.tolist() == [INF, 40.0] and found.load.tolist() == [INF, 60.0]
    assert found.severity.tolist() == [0.5, 1.0]
    assert found.kind.tolist() == [KINDS.index("locked"), KINDS.index("torque_loss")]
    assert found.believed.tolist() == [KINDS.index("locked"), KINDS.index("braking")]
    assert metrics.felt_faults(rows, EPISODES, EPISODES.broken > 9).delay.shape == (0,)


def test_delays_from_the_first_load_and_timely_alarms() -> None:
    some = faults(delay=[100, 40, INF, 600, 60, INF], load=[60, 60, 20, 20, INF, INF])
    np.testing.assert_equal(metrics.from_load(some), [40, 0, INF, 580, np.nan, np.nan])
    np.testing.assert_equal(metrics.timely(some), [1, 1, 0, 0, np.nan, np.nan])
    # 500 ms exactly, of which floats make 500.0000000001.
    just = faults(delay=[35 * 0.02 * 1000], load=[10 * 0.02 * 1000])
    assert metrics.from_load(just)[0] > 500 and metrics.timely(just)[0] == 1
    np.testing.assert_equal(metrics.recalled(faults(delay=[1000, 1020, INF])), [1, 0, 0])


def test_exact_sets_want_all_and_no_other() -> None:
    named = [[], [3], [KNEE], [TORSO, KNEE], [KNEE, TORSO], None]
    np.testing.assert_equal(metrics.exact_set({"named_1": named}, EPISODES), [1, 0, 1, 0, 1, np.nan])


def test_the_smallest_severity_is_where_recall_stays_high_from_there_on() -> None:
    locked = KINDS.index("locked")
    # 0.25 is recalled, 0.5 is not: 0.25 is luck, and from 0.75 on all are.
    some = faults(delay=[20, INF, 20, 20], severity=[0.25, 0.5, 0.75, 1.0], kind=[locked] * 4)
    assert metrics.smallest_severity([some], "locked") == 0.75
    # 19 of 20 are 95 %; 18 of 20 are not.
    for hits, smallest in ((19, 1.0), (18, None)):
        some = faults(delay=[20] * hits + [INF] * (20 - hits), severity=[1.0] * 20, kind=[locked] * 20)
        assert metrics.smallest_severity([some], "locked") == smallest
    assert metrics.smallest_severity([some], "braking") is None


def test_the_healthy_tax_by_hand() -> None:
    judged = {"survived": [True, True, False, None], "vx_rmse": [0.03, 0.04, 0.5, None]}
    alone = {"survived": [True, True, True, None], "vx_rmse": [0.03, 0.03, 0.1, None]}
    squares, lost = metrics.healthy_tax(judged, alone, np.array([True] * 4))
    np.testing.assert_equal(lost, [0, 0, 1, np.nan])
    kept = squares[~np.isnan(squares[:, 0])]
    # √((9 + 16) / (9 + 9)) − 1
    assert root_ratio(kept, np.ones((1, 2))).tolist() == pytest.approx([math.sqrt(25 / 18) - 1])
