"""Intervals: numbers worked out by hand, and how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from koboshi.bench.statistics import bootstrap, greatest, least, macro_f1, mean, paired, quantile, rate, ratio


def test_the_value_is_that_of_all_rows_and_nan_does_not_count() -> None:
    found = bootstrap([np.array([1.0, 0.0, np.nan]), np.array([1.0, 1.0])])
    assert found is not None
    assert (found.value, found.seeds, found.episodes) == (0.75, 2, 4)
    assert 0.0 <= found.low <= 0.75 <= found.high == 1.0
    assert bootstrap([np.array([np.nan]), np.array([])]) is None
    assert bootstrap([np.ones(3), np.ones(3)]) == bootstrap([np.ones(3), np.ones(3)])


def test_seeds_are_drawn_and_then_episodes_in_them() -> None:
    # Without spread inside, two seeds at 0 and 1 can only give 0, 1/2 and 1, with chances 1/4, 1/2 and 1/4.
    apart = bootstrap([np.zeros(50), np.ones(50)])
    assert apart is not None and (apart.low, apart.value, apart.high) == (0.0, 0.5, 1.0)
    # The same hundred rows as one seed: the interval of a share, 0.5 ± 1.96 √(0.25 / 100).
    one = bootstrap([np.concatenate((np.zeros(50), np.ones(50)))], draws=4000)
    assert one is not None and one.seeds == 1
    assert (one.low, one.high) == pytest.approx((0.402, 0.598), abs=0.015)


def test_statistics_by_hand() -> None:
    # Two draws: every row once; the first row twice and the last not at all.
    three = np.array([[1.0, 1, 1], [2, 1, 0]])
    assert mean(np.array([1.0, 2, 6]), three).tolist() == [3, pytest.approx(4 / 3)]
    assert quantile(0.5)(np.array([30.0, 10, 20]), three).tolist() == [20, 30]
    assert quantile(0.95)(np.array([10.0, math.inf, 20]), three).tolist() == [math.inf, math.inf]
    # Groups: rows 0 and 1; rows 1 and 2; nobody.
    rows = np.array([[1.0, 1, 0, 0], [0.0, 1, 1, 0], [0.5, 0, 1, 0]])
    assert least(rows, three).tolist() == [0.25, 0.0] and greatest(rows, three).tolist() == [0.5, pytest.approx(2 / 3)]
    assert ratio(np.array([[1.0, 2], [2, 4], [1, 2]]), three).tolist() == [0.5, 0.5]
    # Class 0: one hit of two, one false: F1 = 2/(2 + 2); class 1: one hit of one, one false: 2/(1 + 2); class 2: none.
    # The second draw holds class 0 alone, both of its rows hits.
    classes = np.array([[0.0, 0], [0, 1], [1, 1], [2, 0]])
    found = macro_f1(classes, np.array([[1.0, 1, 1, 1], [2, 0, 0, 0]]))
    assert found.tolist() == [pytest.approx((1 / 2 + 2 / 3 + 0) / 3), 1.0]


def test_pairs_share_what_is_drawn() -> None:
    luck = np.random.default_rng(1).normal(0, 5, 200)
    found = paired({1: luck + 0.5, 2: luck}, {1: luck, 3: luck})
    assert found is not None and found.seeds == 1
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5)), "the difference has no spread"
    assert paired({1: luck}, {2: luck}) is None


def test_rates_have_the_exact_interval_of_counts() -> None:
    # Garwood's intervals for 0 and 3 events, from tables: [0, 3.689] and [0.619, 8.767].
    none, three = rate(0, 10.0), rate(3, 1.0)
    assert none is not None and three is not None
    assert (none.value, none.low, none.high) == pytest.approx((0.0, 0.0, 0.3689), abs=1e-4)
    assert (three.value, three.low, three.high) == pytest.approx((3.0, 0.6187, 8.7673), abs=1e-3)
    assert rate(0, 0.0) is None


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(7)

    def held(count: int, clustered: bool = True) -> float:
        hits = 0
        for _ in range(150):
            luck = random.normal(0, 1.0, count)
            seeds = [each + random.normal(0, 1.0, 30) for each in luck]
            found = bootstrap(seeds if clustered else [np.concatenate(seeds)], draws=200)
            assert found is not None
            hits += found.low <= 0.0 <= found.high
        return hits / 150

    # Of ten seeds percentiles are slightly narrow; who takes episodes for independent is right far too seldom.
    assert 0.86 <= held(10) <= 0.99
    assert held(10, clustered=False) < 0.5
    # As the documentation says: from the worst to the best of three the truth lies in three of four cases.
    assert 0.65 <= held(3) <= 0.85 and 0.35 <= held(2) <= 0.65
