"""Agreement of predicted with target scores: PLCC, SRCC, KRCC, RMSE, with bootstrap intervals.

Rules that hold for every function here:

- `target` and `predicted` are 1-d sequences of the same length (else `DataError`).
- a NaN on either side makes the result NaN; callers leave pairs out with `drop_missing`.
- a correlation is NaN (undefined) for fewer than two pairs and when a side is constant.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from beholder.errors import DataError

Vector = NDArray[np.float64]
Rows = NDArray[np.int64]

_DRAWN_AT_ONCE = 4_000_000  # pairs of resamples in memory
MOST_PAIRS_OF_KRCC = 100_000  # above, a resample takes seconds: no interval is told
_FEW_PAIRS = 400  # up to which the signs of all differences are kept for the resamples of krcc


class Interval(NamedTuple):
    """A value and the percentile interval of its bootstrap distribution."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """Metric of the first model minus that of the second, over the same resamples.

    `p_value` is the two-sided bootstrap probability of a difference this far from zero.
    """

    value: float
    low: float
    high: float
    p_value: float


def plcc(target: ArrayLike, predicted: ArrayLike) -> float:
    """Pearson's linear correlation coefficient, -1 to 1, higher is better."""
    x, y = _pair(target, predicted)
    if x.size < 2 or not np.isfinite(x).all() or not np.isfinite(y).all():
        return math.nan
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    x = _unit(x)
    y = _unit(y)
    return float(np.clip(x @ y, -1.0, 1.0))


def srcc(target: ArrayLike, predicted: ArrayLike) -> float:
    """Spearman's rank correlation coefficient, -1 to 1, higher is better.

    Ties share the mean of their ranks.
    """
    x, y = _pair(target, predicted)
    if np.isnan(x).any() or np.isnan(y).any():
        return math.nan
    return plcc(stats.rankdata(x), stats.rankdata(y))


def krcc(target: ArrayLike, predicted: ArrayLike) -> float:
    """Kendall's rank correlation coefficient tau-b, -1 to 1, higher is better."""
    x, y = _pair(target, predicted)
    if x.size < 2 or np.isnan(x).any() or np.isnan(y).any():
        return math.nan
    if (x == x[0]).all() or (y == y[0]).all():
        return math.nan
    return float(stats.kendalltau(x, y, variant="b").statistic)


def rmse(target: ArrayLike, predicted: ArrayLike) -> float:
    """Root mean squared error, in units of the score, 0 or more, lower is better."""
    x, y = _pair(target, predicted)
    if x.size == 0:
        return math.nan
    return float(np.sqrt(np.mean(np.square(x - y))))


def mos_challenge(target: ArrayLike, predicted: ArrayLike) -> float:
    """(max(PLCC, 0) + max(SRCC, 0)) / 2, 0 to 1, higher is better.

    The score of the 2023 Samsung AI Challenge: Image Quality Assessment. An undefined correlation
    counts as 0.
    """
    values = plcc(target, predicted), srcc(target, predicted)
    return sum(value for value in values if value > 0) / 2


FUNCTIONS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "plcc": plcc, "srcc": srcc, "krcc": krcc, "rmse": rmse,
}  # fmt: skip


def defined_metrics(
    target: ArrayLike, predicted: ArrayLike, metrics: Sequence[str] = ("plcc", "srcc", "rmse")
) -> dict[str, float]:
    """The metrics by name, without those that are undefined here."""
    values = {name: FUNCTIONS[name](target, predicted) for name in metrics}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def drop_missing(target: ArrayLike, *predicted: ArrayLike) -> tuple[Vector, ...]:
    """The same vectors without the positions at which any of them is NaN."""
    first = np.asarray(target, dtype=np.float64)
    vectors = [first, *(_pair(first, other)[1] for other in predicted)]
    keep = ~np.any([np.isnan(vector) for vector in vectors], axis=0)
    return tuple(vector[keep] for vector in vectors)


def bootstrap(
    target: ArrayLike,
    predicted: ArrayLike,
    metrics: Sequence[str] = ("plcc", "srcc", "krcc", "rmse"),
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, Interval]:
    """Each metric with its percentile bootstrap interval (Efron and Tibshirani, 1993).

    Pairs of one group are not independent: whole groups are drawn then (the cluster bootstrap;
    Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). Of few
    groups the interval is too narrow rather than too wide, and of one there is none.

    Args:
        target, predicted: scores, without NaN (see `drop_missing`).
        metrics: names from plcc, srcc, krcc, rmse.
        n: number of resamples.
        seed: of the resamples; the same seed and number of groups give the same resamples.
        level: share of the resamples inside the interval.
        groups: what each pair belongs to; None: each to itself.

    Resamples in which a metric is undefined are left out of its interval; when it is undefined in
    all of them, low and high are NaN, as they are for krcc of more than 100,000 pairs.
    """
    x, y = _pair(target, predicted)
    _check_names(metrics)
    values = {name: FUNCTIONS[name](x, y) for name in metrics}
    intervals = {name: Interval(value, math.nan, math.nan) for name, value in values.items()}
    members = None if groups is None else _members(x.size, groups)
    count = x.size if members is None else len(members)
    if count < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return intervals
    drawn = [name for name in metrics if name != "krcc" or x.size <= MOST_PAIRS_OF_KRCC]
    resampled = resampled_metrics(x, (y,), drawn, n, seed, members)[0]
    return intervals | {
        name: Interval(values[name], *_limits(values_n, level))
        for name, values_n in zip(drawn, resampled, strict=True)
    }


def paired_difference(
    target: ArrayLike,
    predicted: ArrayLike,
    other: ArrayLike,
    metrics: Sequence[str] = ("plcc", "srcc", "krcc", "rmse"),
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Difference]:
    """Metric of `predicted` minus metric of `other`, both on the same resampled pictures.

    Positive is better for the correlations, negative for rmse. Arguments as in `bootstrap`.
    """
    x, y = _pair(target, predicted)
    _, z = _pair(target, other)
    _check_names(metrics)
    values = {name: FUNCTIONS[name](x, y) - FUNCTIONS[name](x, z) for name in metrics}
    if x.size < 2 or not all(np.isfinite(vector).all() for vector in (x, y, z)):
        return {name: Difference(value, *[math.nan] * 3) for name, value in values.items()}
    first, second = resampled_metrics(x, (y, z), metrics, n, seed)
    return {
        name: Difference(values[name], *_limits(differences, level), _two_sided(differences))
        for name, differences in zip(metrics, first - second, strict=True)
    }


def resampled_metrics(
    target: Vector,
    predictions: Sequence[Vector],
    metrics: Sequence[str],
    n: int,
    seed: int,
    members: Sequence[Rows] | None = None,
) -> NDArray[np.float64]:
    """Each metric of each prediction on the same `n` resamples: [predictions, metrics, n].

    NaN where a resample leaves a metric undefined. Inputs are finite, of two pairs or more.

    Args:
        members: rows of each group, two or more, where groups are drawn; None: pairs are.
    """

    functions = [_of_rows(name, target, side) for side in predictions for name in metrics]

    def values(drawn: Rows) -> Vector:
        rows = drawn if members is None else np.concatenate([members[group] for group in drawn])
        return np.array([function(rows) for function in functions])

    with warnings.catch_warnings():
        # of a constant side, which NaN tells already
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            (np.arange(target.size if members is None else len(members)),),
            values,
            vectorized=False,
            n_resamples=n,
            batch=max(1, _DRAWN_AT_ONCE // target.size),
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return result.bootstrap_distribution.reshape(len(predictions), len(metrics), n)


def _of_rows(name: str, x: Vector, y: Vector) -> Callable[[Rows], float]:
    """A metric as a function of the rows that are drawn."""
    if name == "krcc" and x.size <= _FEW_PAIRS:
        return _krcc_of_rows(x, y)
    return lambda rows: FUNCTIONS[name](x[rows], y[rows])


def _krcc_of_rows(x: Vector, y: Vector) -> Callable[[Rows], float]:
    """`krcc` of drawn rows, for few pairs over ten times as fast: how often each row is drawn
    weighs signs of differences that are taken once."""
    signs_x, signs_y = (np.sign(side[:, None] - side) for side in (x, y))
    agreeing = signs_x * signs_y
    apart_x, apart_y = np.abs(signs_x), np.abs(signs_y)

    def value(rows: Rows) -> float:
        times = np.bincount(rows, minlength=x.size).astype(np.float64)
        untied = (times @ apart_x @ times) * (times @ apart_y @ times)
        return float(times @ agreeing @ times / math.sqrt(untied)) if untied else math.nan

    return value


def _members(count: int, groups: Sequence[Hashable]) -> list[Rows]:
    """The rows of each group, groups in the order in which they come first."""
    if len(groups) != count:
        raise DataError(f"{count} pairs of scores, but {len(groups)} groups.")
    rows: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    return [np.array(of_group) for of_group in rows.values()]


def _two_sided(differences: Vector) -> float:
    """Twice the smaller tail beyond zero, with the observed data counted as one resample."""
    defined = differences[~np.isnan(differences)]
    if defined.size == 0:
        return math.nan
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2.0 * (tail + 1) / (defined.size + 1))


def _limits(values: Vector, level: float) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    if defined.size == 0:
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_names(metrics: Sequence[str]) -> None:
    unknown = [name for name in metrics if name not in FUNCTIONS]
    if unknown:
        raise DataError(
            f"No bootstrap for {', '.join(map(repr, unknown))}.",
            fix=f"Choose from {', '.join(FUNCTIONS)}.",
        )


def _unit(values: Vector) -> Vector:
    # scaled first, so that squares of huge or tiny scores neither overflow nor vanish
    centred = values / np.max(np.abs(values))
    centred = centred - centred.mean()
    centred = centred / np.max(np.abs(centred))
    return centred / np.sqrt(centred @ centred)


def _pair(target: ArrayLike, predicted: ArrayLike) -> tuple[Vector, Vector]:
    x = np.asarray(target, dtype=np.float64)
    y = np.asarray(predicted, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise DataError(
            f"Target and predicted scores must be two lists of the same length, "
            f"not of shapes {x.shape} and {y.shape}."
        )
    return x, y
