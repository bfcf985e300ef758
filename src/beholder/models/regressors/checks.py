"""What no regressor can learn from or predict with, told with the image keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beholder.errors import DataError

_SHOWN = 5  # keys in a message


def check_training(
    features_NP: ArrayLike, scores_N: ArrayLike, units: Sequence[str], keys: Sequence[str] | None
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Features and scores as arrays, after they have been found fit to learn from.

    Args:
        keys: image keys, to name rows in errors.

    Raises:
        DataError: shapes that do not fit, values that are not finite (with keys), constant scores.
    """
    features = np.asarray(features_NP)
    scores = np.asarray(scores_N, np.float64)
    names = list(keys) if keys is not None else [f"row {row}" for row in range(len(scores))]
    if features.ndim != 2 or not len(features) == len(scores) == len(units) == len(names):
        raise DataError(
            f"Features of shape {features.shape}, {len(scores)} scores, {len(units)} units and "
            f"{len(names)} keys do not belong together.",
            fix="Give one row of features, one score, one unit and one key per picture.",
        )
    check_finite(features, names)
    unknown = [name for name, value in zip(names, scores, strict=True) if not np.isfinite(value)]
    if unknown:
        raise DataError(
            f"The scores of {_few(unknown)} are not finite.",
            fix="Give these pictures scores, or leave them out.",
        )
    if len(scores) and np.ptp(scores) == 0:
        raise DataError(
            f"All {len(scores)} scores are {scores[0]:g}: there is nothing to learn.",
            fix="Give pictures of different scores.",
        )
    return features, scores


def check_finite(features: NDArray[Any], names: Sequence[str]) -> None:
    """Make sure that every feature is a finite number.

    Raises:
        DataError: the names of the rows where one is not.
    """
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad.size:
        raise DataError(
            f"The features of {_few([names[int(row)] for row in bad])} are not finite.",
            fix="Extract them again, as float32 if they overflow, or leave these pictures out.",
        )


def _few(names: Sequence[str]) -> str:
    """A few names, so that a message stays readable."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
