"""The SRCC that a perfect model could reach, given the noise of the raters.

A model that knows every picture's true quality still does not rank like the table, whose scores
come from a few noisy ratings. Each draw (a parametric bootstrap: Efron and Tibshirani, 1993)

1. draws how widely true qualities spread: the variance of the estimates, as sure as their number
   makes it, less that of their own errors;
2. draws the true qualities from what the ratings leave open of them: normal around the estimates,
   which are drawn together to their mean, as they spread wider than the truth (empirical Bayes:
   Efron and Morris, JASA 70, 1975);
3. has the same raters rate the same pictures again, by the fitted model: plain means move by the
   raters' biases and inconsistencies, corrected scores by the inconsistencies and by the errors of
   the estimated biases, which pictures with the same raters share;
4. is the SRCC of the true qualities with the scores that come out.

Legend: K ratings, N pictures, n of them chosen, R raters, D draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from beholder.metrics.correlation import Interval
from beholder.metrics.opinions import OpinionModel, Vector, bias_covariance, rater_weights

Scores = Literal["mean", "corrected"]
# draws [D, n] of how scores differ from the true qualities
Errors = Callable[[int, np.random.Generator], Vector]

_CHUNK = 2_000_000  # scores drawn at a time


def ceiling(
    model: OpinionModel,
    pictures: Iterable[str] | None = None,
    *,
    scores: Scores = "mean",
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Mean SRCC, -1 to 1, of true qualities with scores, and the percentile interval of its draws.

    Args:
        pictures: the SRCC is over these; None: all of the model. Unknown names are ignored.
        scores: what the table's scores are: means of the ratings, or the model's qualities.
        draws, seed, level: number and seed of the bootstrap's draws, and their share inside the
            interval.

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
    errors = (_errors_of_means if scores == "mean" else _errors_of_corrected)(model, chosen_N)
    generator = np.random.default_rng(seed)
    draws_by_chunk = []
    step = max(1, _CHUNK // size)
    for start in range(0, draws, step):
        count = min(step, draws - start)
        true_Dn = _true_qualities(model, chosen_N, count, generator)
        draws_by_chunk.append(_srcc(true_Dn, true_Dn + errors(count, generator)))
    values_D = np.concatenate(draws_by_chunk)
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


def _errors_of_means(model: OpinionModel, chosen_N: NDArray[np.bool_]) -> Errors:
    """How mean ratings differ from the qualities: the raters' biases stay in them."""
    picture_K, rater_K = model.picture_K, model.rater_K
    count_N = np.bincount(picture_K)
    offset_n = (np.bincount(picture_K, model.bias[rater_K]) / count_N)[chosen_N]
    variance_N = np.bincount(picture_K, np.square(model.inconsistency)[rater_K]) / count_N**2
    noise_n = np.sqrt(variance_N)[chosen_N]
    return lambda draws, generator: (
        offset_n + noise_n * generator.standard_normal((draws, len(noise_n)))
    )


def _errors_of_corrected(model: OpinionModel, chosen_N: NDArray[np.bool_]) -> Errors:
    """How the model's qualities differ from the true ones.

    The mean of a picture's ratings, weighted by their precision, is independent of their contrasts,
    from which the biases come: two draws, added. That the precisions are estimates too adds to the
    mean's variance: Meier, "Variance of a Weighted Mean", Biometrics 9, 1953.
    """
    weights_NR, shares_NR = rater_weights(model)
    # the variance of a log inconsistency is 1 / (2 degrees of freedom); there is one at least
    spread_R = np.minimum(2.0 * np.square(model.inconsistency_error / model.inconsistency), 1.0)
    more_N = 4.0 * (shares_NR @ spread_R - shares_NR.power(2) @ spread_R)
    noise_N = np.sqrt((1.0 + more_N) / np.asarray(weights_NR.sum(axis=1)).ravel())
    noise_n = noise_N[chosen_N]
    covariance_RR = bias_covariance(weights_NR, shares_NR)
    # its mean direction, which is held at 0, is filled: it moves all pictures alike
    root_RR = linalg.cholesky(covariance_RR + np.diag(covariance_RR).mean(), lower=True)
    moved_Rn = (shares_NR[chosen_N] @ root_RR).T
    return lambda draws, generator: (
        noise_n * generator.standard_normal((draws, len(noise_n)))
        - generator.standard_normal((draws, len(root_RR))) @ moved_Rn
    )


def _srcc(a_DN: Vector, b_DN: Vector) -> Vector:
    """SRCC [D] of the rows; there are no ties."""
    size = a_DN.shape[1]
    a, b = (np.argsort(np.argsort(x, axis=1), axis=1) - (size - 1) / 2 for x in (a_DN, b_DN))
    return np.einsum("dn,dn->d", a, b) / ((size**3 - size) / 12)
