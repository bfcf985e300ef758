"""Intervals with guaranteed coverage: split-conformal prediction of scores.

The errors of n calibration pictures that no fit has seen, put in order: the ceil((n + 1) level)-th
is the half width of an interval that covers a further picture of the same kind with a probability
of at least `level`, whatever the errors' distribution, and of at most `level` + 1 / (n + 1) where
no two errors are equal. In the normalised form the errors are measured in units of a spread that is
known beforehand, such as the disagreement of an ensemble's members: hard pictures get wide
intervals, easy ones narrow ones, and the guarantee over all of them stays.

The guarantee is for pictures exchangeable with the calibration pictures: not for a camera, a
distortion or a taste that is missing among them.

Source: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; Lei et al.,
"Distribution-Free Predictive Inference for Regression", JASA 113, 2018 (normalised: section 5.2).

Shape suffix: N pictures.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from beholder.errors import DataError

Vector = NDArray[np.float64]


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
        given_N, predicted_N: scores, finite.
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


def enough_for(level: float) -> int:
    """The fewest pictures that intervals of a level can be calibrated on, e.g. 9 for 0.9."""
    return math.ceil(level / (1.0 - level) - 1e-9)


def coverage(target_N: ArrayLike, low_N: ArrayLike, high_N: ArrayLike) -> Coverage:
    """How many target scores lie within their intervals, and how wide these are.

    Raises:
        DataError: no picture, or lengths that differ.
    """
    target, low, high = _vector(target_N), _vector(low_N), _vector(high_N)
    if not len(target) == len(low) == len(high) or len(target) == 0:
        raise DataError(f"{len(target)} scores, {len(low)} and {len(high)} ends of intervals.")
    inside = (low <= target) & (target <= high)
    return Coverage(len(target), float(inside.mean()), float((high - low).mean()))


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
