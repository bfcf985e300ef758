"""Intervals with guaranteed coverage: split-conformal prediction of scores.

The errors of n calibration pictures that no fit has seen, put in order: the ceil((n + 1) level)-th
is the half width of an interval that covers a further picture of the same kind with a probability
of at least `level`, whatever the errors' distribution, and of at most `level` + 1 / (n + 1) where
no two errors are equal. In the normalised form the errors are measured in units of a spread that is
known beforehand, such as the disagreement of an ensemble's members, or how large errors are of
pictures with such a score: hard pictures get wide intervals, easy ones narrow ones, and the
guarantee over all of them stays.

Where several pictures belong together (crops of a photograph), all groups count the same, whatever
their number of pictures, and what a width is measured with is learnt from other groups.

The guarantee is for pictures exchangeable with the calibration pictures: not for a camera, a
distortion or a taste that is missing among them.

Source: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; Lei et al.,
"Distribution-Free Predictive Inference for Regression", JASA 113, 2018 (normalised: section 5.2);
Dunn, Wasserman and Ramdas, "Distribution-Free Prediction Sets for Two-Layer Hierarchical Models",
JASA 118, 2023 (groups: pooled with equal weights); Vovk, "Cross-conformal predictors", 2015.

Shape suffix: N pictures.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Annotated, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from beholder.errors import DataError

Vector = NDArray[np.float64]

FEWEST_GROUPS = 5  # to tell from some of them how large errors are at a score of the others
FOLDS = 10  # in which groups are left out
POSITIONS = 17  # scores at which the scale of the errors is told
TRUSTED_GROUPS = 10  # with which pictures of similar scores count as much as all pictures
WORTH = 0.02  # of the Winkler score: less than that is chance as well
LEAST_ERROR = 0.1  # of the error that the level's share of all pictures stays below


class Coverage(NamedTuple):
    """The coverage of intervals on pictures with a target score."""

    pictures: int
    covered: float
    """Share whose target score lies within the interval, ends included, 0 to 1."""
    width: float
    """Mean of high - low, in units of the score, 0 or more."""


class ConformalInterval(BaseModel):
    """The width of the interval around a score, from `fit_conformal`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: float = Field(
        gt=0.0, lt=1.0, description="share of pictures that the interval should cover"
    )
    quantile: float = Field(
        ge=0.0,
        allow_inf_nan=False,
        description="quantile of the calibration errors, in units of the scale",
    )
    floor: float | None = Field(
        None,
        gt=0.0,
        allow_inf_nan=False,
        description="what is added to every spread to give its scale; None: not normalised, "
        "scale 1",
    )
    pictures: int = Field(ge=1, description="number of pictures that it was calibrated on")
    groups: int | None = Field(
        None, ge=1, description="number of groups that these are of; None: not known"
    )
    positions: tuple[FiniteFloat, ...] = Field(
        (), max_length=64, description="scores that `errors` are told at, rising; empty: scale 1"
    )
    errors: tuple[Annotated[FiniteFloat, Field(gt=0.0)], ...] = Field(
        (), max_length=64, description="scale of the errors at each position, linear in between"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.positions) != len(self.errors):
            raise ValueError("positions and errors of an interval are as many")
        if (np.diff(self.positions) <= 0).any():
            raise ValueError("positions of an interval rise")
        if self.positions and self.floor is not None:
            raise ValueError("an interval is normalised by a spread or by the score, not by both")
        return self

    def margins_at(self, score_N: ArrayLike) -> Vector:
        """Half widths [N] of the intervals around scores, in units of the score; of an interval
        that is not normalised by a spread."""
        score = _vector(score_N)
        if not self.positions:
            return self.margins(len(score))
        return self.quantile * np.interp(score, self.positions, self.errors)

    def margins(self, count: int, spread_N: ArrayLike | None = None) -> Vector:
        """Half widths [N], in units of the score.

        Args:
            count: N.
            spread_N: as in `fit_conformal`; needed if it was normalised, else without effect.
        """
        return self.quantile * _scale(count, spread_N, self.floor)


def fit_conformal(
    target_N: ArrayLike,
    predicted_N: ArrayLike,
    *,
    level: float = 0.9,
    spread_N: ArrayLike | None = None,
    floor: float | None = None,
) -> ConformalInterval:
    """Calibrate intervals on pictures that the predictor was not trained on.

    Args:
        target_N, predicted_N: scores, finite.
        level: share of further such pictures to cover, above 0 and below 1.
        spread_N: an estimate of how unsure each prediction is, 0 or more, made without the target
            scores. None: all intervals have the same width.
        floor: added to every spread, above 0, so that no interval shrinks to nothing; from other
            pictures than these. Comes with `spread_N` and never alone.

    Raises:
        DataError: too few pictures for the level, lengths that differ, or invalid values.
    """
    if not 0.0 < level < 1.0:
        raise DataError(f"The level of an interval is between 0 and 1, not {level}.")
    target, predicted = _vector(target_N), _vector(predicted_N)
    if target.shape != predicted.shape:
        raise DataError(f"{len(target)} target scores, but {len(predicted)} predicted ones.")
    if (spread_N is None) != (floor is None):
        raise DataError("A spread needs a floor, and a floor a spread.")
    count = len(target)
    # without this tolerance, rounding asks e.g. for rank 10 of 9 at level 0.9
    rank = math.ceil((count + 1) * level - 1e-9)
    if rank > count:
        raise DataError(
            f"{count} pictures with a score are too few to calibrate {level:.0%} intervals on.",
            fix=f"Give the split at least {enough_for(level)}, or ask for a lower level.",
        )
    scale_N = _scale(count, spread_N, floor)
    errors_N = np.sort(np.abs(target - predicted) / scale_N)
    return ConformalInterval(
        level=level,
        quantile=float(errors_N[rank - 1]),
        floor=floor,
        pictures=count,
    )


def fit_conformal_by_score(
    target_N: ArrayLike,
    predicted_N: ArrayLike,
    groups_N: Sequence[Hashable],
    *,
    level: float = 0.9,
    scale: tuple[float, float] | None = None,
) -> ConformalInterval:
    """Calibrate intervals whose width depends on the score itself, if that makes them better.

    How large errors are at a score is learnt from pictures with similar scores (`error_curve`), and
    for each picture from other groups than its own. All groups weigh the same. Intervals of one
    width are taken unless the others' Winkler score, on groups that they were not learnt from, is
    lower by 2 %.

    Args:
        target_N, predicted_N: scores, finite; predictions of what has not seen the picture's group.
        groups_N: what each picture belongs to.
        level: as in `fit_conformal`.
        scale: what intervals will be cut to; None: nothing.

    Raises:
        DataError: as `fit_conformal`.
    """
    plain = fit_conformal(target_N, predicted_N, level=level)  # makes sure of the arguments
    target, predicted = _vector(target_N), _vector(predicted_N)
    weight_N, group_N = equal_weights(groups_N)
    groups = int(group_N.max()) + 1
    error_N = np.abs(target - predicted)
    quantile = _weighted_quantile(error_N, weight_N, level)
    plain = plain.model_copy(update={"quantile": quantile, "groups": groups})
    if groups < FEWEST_GROUPS or quantile == 0.0 or np.ptp(predicted) == 0.0:
        return plain
    expected_N = np.empty(len(target))
    fold_N = group_N % FOLDS
    for fold in np.unique(fold_N):
        held = fold_N == fold
        expected_N[held] = np.interp(
            predicted[held],
            *error_curve(predicted[~held], error_N[~held], weight_N[~held], groups, level),
        )
    normalised_quantile = _weighted_quantile(error_N / expected_N, weight_N, level)
    margins = (np.full(len(target), quantile), normalised_quantile * expected_N)
    one_width, by_score = (
        float(
            np.average(_winkler(target, *_cut(predicted, margin_N, scale), level), weights=weight_N)
        )
        for margin_N in margins
    )
    if by_score > (1.0 - WORTH) * one_width:
        return plain
    positions, errors = error_curve(predicted, error_N, weight_N, groups, level)
    return plain.model_copy(
        update={
            "quantile": normalised_quantile,
            "positions": tuple(positions.tolist()),
            "errors": tuple(errors.tolist()),
        }
    )


def error_curve(
    predicted_N: Vector, error_N: Vector, weight_N: Vector, groups: int, level: float
) -> tuple[Vector, Vector]:
    """Rising scores [K], and at each the error [K] that a share `level` of pictures with similar
    scores stays below, above 0.

    Pictures count by a Gaussian that narrows with the number of groups (half of the predictions'
    deviation with ten); the fewer there are, the more does every picture count everywhere (half and
    half with ten).
    """
    positions = np.unique(np.quantile(predicted_N, np.linspace(0.0, 1.0, POSITIONS)))
    width = predicted_N.std() / groups ** (1.0 / 3.0) or 1.0
    near_KN = np.exp(-0.5 * ((positions[:, None] - predicted_N) / width) ** 2) * weight_N
    near_KN /= near_KN.sum(axis=1, keepdims=True)
    local = groups / (groups + TRUSTED_GROUPS)
    share_KN = local * near_KN + (1.0 - local) * weight_N / weight_N.sum()
    least = max(LEAST_ERROR * _weighted_quantile(error_N, weight_N, level), np.finfo(float).tiny)
    errors = [_weighted_quantile(error_N, share_N, level) for share_N in share_KN]
    return positions, np.maximum(errors, least)


def winkler(target_N: ArrayLike, low_N: ArrayLike, high_N: ArrayLike, level: float) -> float:
    """Mean Winkler score of intervals, in units of the score, 0 or more, lower is better: the
    width, and 2 / (1 - level) of what a target lies beyond its interval.

    Source: Winkler, "A Decision-Theoretic Approach to Interval Estimation", JASA 67, 1972; Gneiting
    and Raftery, JASA 102, 2007, section 6.2.

    Raises:
        DataError: no picture, or lengths that differ.
    """
    target, low, high = _intervals(target_N, low_N, high_N)
    return float(_winkler(target, low, high, level).mean())


def enough_for(level: float) -> int:
    """The fewest pictures that intervals of a level can be calibrated on, e.g. 9 for 0.9."""
    return math.ceil(level / (1.0 - level) - 1e-9)


def coverage(target_N: ArrayLike, low_N: ArrayLike, high_N: ArrayLike) -> Coverage:
    """How many target scores lie within their intervals, and how wide these are.

    Raises:
        DataError: no picture, or lengths that differ.
    """
    target, low, high = _intervals(target_N, low_N, high_N)
    inside = (low <= target) & (target <= high)
    return Coverage(len(target), float(inside.mean()), float((high - low).mean()))


def _intervals(
    target_N: ArrayLike, low_N: ArrayLike, high_N: ArrayLike
) -> tuple[Vector, Vector, Vector]:
    target, low, high = _vector(target_N), _vector(low_N), _vector(high_N)
    if not len(target) == len(low) == len(high) or len(target) == 0:
        raise DataError(f"{len(target)} scores, {len(low)} and {len(high)} ends of intervals.")
    return target, low, high


def _winkler(target: Vector, low: Vector, high: Vector, level: float) -> Vector:
    beyond = np.maximum(low - target, 0.0) + np.maximum(target - high, 0.0)
    return high - low + 2.0 / (1.0 - level) * beyond


def _cut(
    predicted: Vector, margin_N: Vector, scale: tuple[float, float] | None
) -> tuple[Vector, Vector]:
    low, high = scale or (-np.inf, np.inf)
    return np.clip(predicted - margin_N, low, high), np.clip(predicted + margin_N, low, high)


def equal_weights(groups_N: Sequence[Hashable]) -> tuple[Vector, NDArray[np.int64]]:
    """Weights [N] that sum to 1 in every group, and the index [N] of each picture's group."""
    indices: dict[Hashable, int] = {}
    group_N = np.array([indices.setdefault(group, len(indices)) for group in groups_N])
    return 1.0 / np.bincount(group_N)[group_N], group_N


def _weighted_quantile(values_N: Vector, weight_N: Vector, level: float) -> float:
    """The smallest value with at least this share of the weight at or below it, of N + 1 pictures
    of which one is yet to come: with equal weights the rank of `fit_conformal`."""
    order = np.argsort(values_N)
    shares = np.cumsum(weight_N[order]) / weight_N.sum()
    asked = level * (len(values_N) + 1) / len(values_N)
    place = int(np.searchsorted(shares, asked - 1e-9))
    return float(values_N[order[min(place, len(values_N) - 1)]])


def _scale(count: int, spread_N: ArrayLike | None, floor: float | None) -> Vector:
    if floor is None:
        return np.ones(count)
    if spread_N is None:
        raise DataError("Normalised intervals need the spread of every prediction.")
    spread = _vector(spread_N)
    if len(spread) != count or (spread < 0).any() or floor <= 0:
        raise DataError("Spreads are 0 or more, one per picture, and their floor is above 0.")
    return spread + floor


def _vector(values: ArrayLike) -> Vector:
    vector = np.asarray(values, np.float64)
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise DataError("Scores, spreads and intervals are one finite number per picture.")
    return vector
