"""The SRCC that a perfect model could reach, given the noise of the raters.

A model that knows every picture's true quality still does not rank like the table, whose scores are
means of a few noisy ratings. Each draw (a parametric bootstrap: Efron and Tibshirani, 1993)

1. draws how widely true qualities spread: the variance of the estimates, as sure as their number
   makes it, less that of their own errors;
2. draws the true qualities from what the ratings leave open of them: normal around the estimates,
   which are drawn together to their mean, as they spread wider than the truth (empirical Bayes:
   Efron and Morris, JASA 70, 1975);
3. has the same raters rate the same pictures again, by the fitted model;
4. is the SRCC of the true qualities with the scores that come out.

Legend: K ratings, N pictures, D draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from beholder.metrics.correlation import Interval
from beholder.metrics.opinions import OpinionModel

Vector = NDArray[np.float64]

_CHUNK = 2_000_000  # scores drawn at a time


def ceiling(
    model: OpinionModel,
    pictures: Iterable[str] | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Mean SRCC, -1 to 1, of true qualities with scores, and the percentile interval of its draws.

    Args:
        pictures: the SRCC is over these; None: all of the model. Names it does not know are left
            out.
        draws, seed, level: of the bootstrap; the share of the draws inside the interval.

    Returns:
        NaN where it is undefined: fewer than two pictures, or qualities that do not differ by more
        than their errors.
    """
    chosen_N = np.ones(len(model.pictures), bool)
    if pictures is not None:
        wanted = set(pictures)
        chosen_N = np.array([name in wanted for name in model.pictures])
    size = int(chosen_N.sum())
    if size < 2 or np.var(model.quality, ddof=1) <= np.square(model.quality_error).mean():
        return Interval(math.nan, math.nan, math.nan)
    offset_N, noise_N = (values_N[chosen_N] for values_N in _noise(model))
    generator = np.random.default_rng(seed)
    found = []
    step = max(1, _CHUNK // size)
    for start in range(0, draws, step):
        true_DN = _true_qualities(model, chosen_N, min(step, draws - start), generator)
        given_DN = true_DN + offset_N + noise_N * generator.standard_normal(true_DN.shape)
        found.append(_srcc(true_DN, given_DN))
    values_D = np.concatenate(found)
    low, high = np.quantile(values_D, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values_D.mean()), float(low), float(high))


def _true_qualities(
    model: OpinionModel, chosen_N: NDArray[np.bool_], draws: int, generator: np.random.Generator
) -> Vector:
    """Draws [D, N] of the chosen pictures' true qualities, less the mean of all."""
    error_N = np.square(model.quality_error)
    spread, freedom = float(np.var(model.quality, ddof=1)), len(error_N) - 1
    whole_D1 = spread * freedom / generator.chisquare(freedom, (draws, 1))
    # a draw below the errors would leave nothing to rank
    true_D1 = np.maximum(whole_D1 - error_N.mean(), 1e-3 * spread)
    centre = np.average(model.quality, weights=1.0 / (spread + error_N))
    kept_DN = true_D1 / (true_D1 + error_N[chosen_N])
    noise_DN = np.sqrt(kept_DN * error_N[chosen_N]) * generator.standard_normal(kept_DN.shape)
    return kept_DN * (model.quality[chosen_N] - centre) + noise_DN


def _noise(model: OpinionModel) -> tuple[Vector, Vector]:
    """By how much the raters of each picture move its mean, and the mean's deviation [N]."""
    picture_K, rater_K = model.picture_K, model.rater_K
    count_N = np.bincount(picture_K)
    offset_N = np.bincount(picture_K, model.bias[rater_K]) / count_N
    variance_N = np.bincount(picture_K, np.square(model.inconsistency)[rater_K]) / count_N**2
    return offset_N, np.sqrt(variance_N)


def _srcc(a_DN: Vector, b_DN: Vector) -> Vector:
    """SRCC [D] of the rows; there are no ties."""
    size = a_DN.shape[1]
    a, b = (np.argsort(np.argsort(x, axis=1), axis=1) - (size - 1) / 2 for x in (a_DN, b_DN))
    return np.einsum("dn,dn->d", a, b) / ((size**3 - size) / 12)
