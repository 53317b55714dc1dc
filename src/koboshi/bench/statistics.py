"""How sure a figure is: percentile bootstrap, clustered over training seeds.

Episodes of one training share its luck, so they are no independent witnesses of what a method does. A draw takes as
many seeds as there are, with replacement, and then from each as many episodes as it has, with replacement; the
interval runs from the 2.5th to the 97.5th percentile of the statistic over DRAWS draws (Davison and Hinkley 1997,
section 3.8, first strategy). With one seed it speaks of episodes alone, and says so: `seeds` is 1. With few seeds it
is too narrow: of two seeds a draw takes the same one twice every other time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LEVEL = 0.95
DRAWS = 1000
Values = np.ndarray
"""(E,) or (E, C) float, a row an episode; a row whose first number is NaN does not count."""
Statistic = Callable[[Values], float]


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


def mean(values: Values) -> float:
    """Of (E,)."""
    return float(values.mean())


def quantile(share: float) -> Statistic:
    """The smallest of (E,) values that at least this share does not exceed; infinite where too many are infinite."""

    def statistic(values: Values) -> float:
        return float(np.sort(values)[max(0, math.ceil(share * len(values)) - 1)])

    return statistic


def least(values: Values) -> float:
    """The smallest mean of any group: (E, 1 + G) value, and for each group whether the row is in it, 0 or 1."""
    return float(_group_means(values).min())


def greatest(values: Values) -> float:
    """The largest mean of any group."""
    return float(_group_means(values).max())


def _group_means(values: Values) -> Values:
    member = values[:, 1:]
    count = member.sum(0)
    return (values[:, 0] @ member)[count > 0] / count[count > 0]


def ratio(values: Values) -> float:
    """Sum of the first column of (E, 2) over that of the second."""
    below = float(values[:, 1].sum())
    return float(values[:, 0].sum()) / below if below else math.nan


def macro_f1(values: Values) -> float:
    """Mean over classes of F1 from (E, 2) true and believed class, whole numbers, −1 none."""
    true, said = values.astype(np.int64).T
    scores = []
    for each in np.unique(true):
        hits = float(((true == each) & (said == each)).sum())
        scores.append(2 * hits / float((true == each).sum() + (said == each).sum()))
    return float(np.mean(scores))


def bootstrap(by_seed: Sequence[Values], statistic: Statistic = mean, draws: int | None = None) -> Interval | None:
    """The statistic of all rows together and its interval; None where no row counts. Always the same draws.

    `draws`: how many; None: DRAWS.
    """
    kept = [values[~np.isnan(values if values.ndim == 1 else values[:, 0])] for values in by_seed]
    kept = [values for values in kept if len(values)]
    if not kept:
        return None
    random = np.random.default_rng(0)
    found = np.array([statistic(_draw(kept, random)) for _ in range(draws or DRAWS)])
    tail = (1 - LEVEL) / 2
    # Of infinite delays no mean must be taken, so percentiles are values that occurred.
    low, high = np.quantile(found, (tail, 1 - tail), method="inverted_cdf")
    return Interval(
        statistic(np.concatenate(kept)), float(low), float(high), len(kept), sum(len(values) for values in kept)
    )


def _draw(kept: Sequence[Values], random: np.random.Generator) -> Values:
    seeds = random.integers(len(kept), size=len(kept))
    return np.concatenate([kept[k][random.integers(len(kept[k]), size=len(kept[k]))] for k in seeds])


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
