"""How sure a figure is: percentile bootstrap, clustered over training seeds.

Episodes of one training share its luck, so they are no independent witnesses of what a method does. A draw takes as
many seeds as there are, with replacement, and then from each as many episodes as it has, with replacement; the
interval runs from the 2.5th to the 97.5th percentile of the statistic over DRAWS draws (Davison and Hinkley 1997,
section 3.8, first strategy). With one seed it speaks of episodes alone, and says so: `seeds` is 1. With few seeds it
is too narrow: where trainings differ more than episodes do, that of three holds the truth in three of four cases, that
of two in every other one, since draws can reach no farther than from the worst seed to the best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

LEVEL = 0.95
DRAWS = 1000
Values = np.ndarray
"""(E,) or (E, C) float, a row an episode; a row whose first number is NaN does not count."""
Weights = np.ndarray
"""(D, E) float: how often each of D draws holds each row."""
Statistic = Callable[[Values, Weights], Values]
"""(D,): the statistic of each draw."""


@dataclass(frozen=True)
class Interval:
    """A figure and where it lies with a confidence of LEVEL."""

    value: float
    low: float
    high: float
    seeds: int
    episodes: int
    """Rows that count, over all seeds."""

    def to_dict(self) -> dict[str, float]:
        """JSON data; what is not finite is left out."""
        return {name: value for name, value in asdict(self).items() if math.isfinite(value)}


def mean(values: Values, weights: Weights) -> Values:
    """Of (E,)."""
    return weights @ values / weights.sum(1)


def quantile(share: float) -> Statistic:
    """The smallest of (E,) values that at least this share does not exceed; infinite where too many are infinite."""

    def statistic(values: Values, weights: Weights) -> Values:
        order = np.argsort(values, kind="stable")
        below = weights[:, order].cumsum(1)
        # Weights are whole numbers, and the share of their sum need not be.
        return values[order][(below >= share * below[:, -1:] - 1e-6).argmax(1)]

    return statistic


def least(values: Values, weights: Weights) -> Values:
    """The smallest mean of any group: (E, 1 + G) value, and for each group whether the row is in it, 0 or 1."""
    return np.nanmin(_group_means(values, weights), axis=1)


def greatest(values: Values, weights: Weights) -> Values:
    """The largest mean of any group."""
    return np.nanmax(_group_means(values, weights), axis=1)


def _group_means(values: Values, weights: Weights) -> Values:
    """(D, G); NaN for a group of which a draw holds nothing."""
    member = values[:, 1:]
    return _over(weights @ (values[:, :1] * member), weights @ member)


def _over(above: Values, below: Values) -> Values:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def ratio(values: Values, weights: Weights) -> Values:
    """Sum of the first column of (E, 2) over that of the second."""
    return _over(*(weights @ values).T)


def root_ratio(values: Values, weights: Weights) -> Values:
    """√(Σ first / Σ second) − 1 of (E, 2): of squared errors, how much larger the one RMSE is, as a share."""
    return np.sqrt(ratio(values, weights)) - 1


def macro_f1(values: Values, weights: Weights) -> Values:
    """Mean over classes of F1 from (E, 2) true and believed class, whole numbers, −1 none."""
    classes = np.unique(values[:, 0])
    true, said = (values[:, k, None] == classes for k in (0, 1))
    hits, all_true, all_said = (weights @ x for x in (true & said, true, said))
    # A class that a draw does not hold has no F1.
    return np.nanmean(np.where(all_true > 0, _over(2 * hits, all_true + all_said), np.nan), axis=1)


def bootstrap(by_seed: Sequence[Values], statistic: Statistic = mean, draws: int | None = None) -> Interval | None:
    """The statistic of all rows together and its interval; None where no row counts. Always the same draws.

    `draws`: how many; None: DRAWS.
    """
    kept = [values[~np.isnan(values if values.ndim == 1 else values[:, 0])] for values in by_seed]
    kept = [values for values in kept if len(values)]
    if not kept:
        return None
    rows = np.concatenate(kept)
    found = statistic(rows, _draws(tuple(len(values) for values in kept), draws or DRAWS))
    tail = (1 - LEVEL) / 2
    # Between a finite and an infinite delay there is no mean, so percentiles are values that occurred.
    low, high = np.quantile(found, (tail, 1 - tail), method="inverted_cdf")
    value = statistic(rows, np.ones((1, len(rows))))
    return Interval(float(value[0]), float(low), float(high), len(kept), len(rows))


@lru_cache(maxsize=16)
def _draws(sizes: tuple[int, ...], draws: int) -> Weights:
    """(D, Σ sizes): as many seeds as there are, and from each as many episodes as it has, both with replacement."""
    random = np.random.default_rng(0)
    starts = np.cumsum((0, *sizes))
    weights = np.zeros((draws, starts[-1]))
    for picked in random.integers(len(sizes), size=(len(sizes), draws)):
        for k, size in enumerate(sizes):
            who = np.flatnonzero(picked == k)
            episodes = random.integers(size, size=(len(who), size)) + size * np.arange(len(who))[:, None]
            counts = np.bincount(episodes.ravel(), minlength=len(who) * size).reshape(len(who), size)
            weights[who, starts[k] : starts[k + 1]] += counts
    return weights


def paired(a: Mapping[int, Values], b: Mapping[int, Values], draws: int | None = None) -> Interval | None:
    """Mean of a − b (seed -> (E,), the same episodes in the same order) over the seeds that both have."""
    return bootstrap([a[seed] - b[seed] for seed in a if seed in b], mean, draws)


def rate(count: int, hours: float) -> Interval | None:
    """Events an hour and the exact interval of a Poisson process (Garwood 1936); None where no time was spent.

    It takes events as independent: a robot that cries wolf again and again makes it too narrow.
    """
    if hours <= 0:
        return None
    tail = (1 - LEVEL) / 2
    low = _where(lambda mean: _poisson_cdf(count - 1, mean) - (1 - tail)) if count else 0.0
    high = _where(lambda mean: _poisson_cdf(count, mean) - tail)
    return Interval(count / hours, low / hours, high / hours, 1, count)


def _poisson_cdf(count: int, mean: float) -> float:
    """P(at most `count` events)."""
    logs = [k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(count + 1)]
    return math.fsum(map(math.exp, logs))


def _where(falls: Callable[[float], float]) -> float:
    """The positive root of a function that falls from above 0 to below it, by bisection."""
    low, high = 1e-9, 1.0
    while falls(high) > 0:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if falls(middle) > 0 else (low, middle)
    return low


def as_json(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else interval.to_dict()
