"""PLCC after the logistic mapping of predicted onto target scores, as quality assessment reports
it.

Two mappings are in use: the 4-parameter one of the VQEG reports and the 5-parameter one of Sheikh,
Sabir and Bovik (IEEE TIP 2006), which adds a linear term. Both are fitted by least squares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import expit

from beholder.errors import DataError
from beholder.metrics.correlation import plcc

Parameters = Literal[4, 5]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class LogisticMapping:
    """A fitted mapping of predicted scores onto the scale of the target ones.

    With z = (x - center) / scale of the predicted scores it was fitted on:
    4 parameters: (b1 - b2) / (1 + exp(-(z - b3) / |b4|)) + b2
    5 parameters: b1 (1/2 - 1 / (1 + exp(b2 (z - b3)))) + b4 z + b5
    """

    beta: tuple[float, ...]
    center: float
    scale: float

    def __call__(self, predicted: ArrayLike) -> Vector:
        z = (np.asarray(predicted, dtype=np.float64) - self.center) / self.scale
        return _curve(np.asarray(self.beta), z)


def fit_logistic(
    target: ArrayLike, predicted: ArrayLike, parameters: Parameters = 5
) -> LogisticMapping:
    """Least-squares fit of the logistic mapping, the best of several fixed starts.

    Raises:
        DataError: fewer pairs than parameters, NaN or infinite scores, or constant predictions.
    """
    x = np.asarray(predicted, dtype=np.float64)
    y = np.asarray(target, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or x.size < parameters:
        raise DataError(
            f"A logistic mapping of {parameters} parameters needs two lists of the same length, "
            f"at least {parameters}; these have shapes {y.shape} and {x.shape}."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or np.ptp(x) == 0:
        raise DataError(
            "A logistic mapping needs finite scores and predictions that differ.",
            fix="Leave pairs with a missing score out (`drop_missing`).",
        )
    center, scale = float(x.mean()), float(x.std())
    z = (x - center) / scale
    # target scores standardised too: the optimiser's tolerances are relative to 1
    y_center, y_scale = float(y.mean()), float(y.std()) or 1.0
    standardised = (y - y_center) / y_scale
    fits = [
        least_squares(lambda beta: _curve(beta, z) - standardised, start, method="lm", max_nfev=500)
        for start in _starts(z, standardised, parameters)
    ]
    beta = min(fits, key=lambda fit: fit.cost).x.copy()
    beta[[0, 1] if parameters == 4 else [0, 3, 4]] *= y_scale
    if parameters == 4:
        beta[:2] += y_center
    else:
        beta[4] += y_center
    return LogisticMapping(tuple(beta.tolist()), center, scale)


def plcc_logistic(target: ArrayLike, predicted: ArrayLike, parameters: Parameters = 5) -> float:
    """PLCC of target scores and mapped predictions, -1 to 1, higher is better.

    NaN where plain PLCC is. The mapping may be decreasing, so this metric does not penalise a model
    that ranks backwards: report SRCC beside it.
    """
    if math.isnan(plcc(target, predicted)):
        return math.nan
    return plcc(target, fit_logistic(target, predicted, parameters)(predicted))


def _curve(beta: Vector, z: Vector) -> Vector:
    if beta.size == 4:
        width = max(abs(beta[3]), 1e-9)
        return (beta[0] - beta[1]) * expit((z - beta[2]) / width) + beta[1]
    return beta[0] * (0.5 - expit(-beta[1] * (z - beta[2]))) + beta[3] * z + beta[4]


def _starts(z: Vector, target: Vector, parameters: Parameters) -> list[list[float]]:
    slope = float(z @ target) / z.size
    sign = 1.0 if slope >= 0 else -1.0
    low, high = float(target.min()), float(target.max())
    if parameters == 4:
        first, last = (high, low) if slope >= 0 else (low, high)
        return [[first, last, 0.0, width] for width in (0.3, 1.0, 3.0)]
    # the first start is the straight line: the result is never worse than plain PLCC
    steep = [[sign * (high - low), width, 0.0, 0.0, 0.0] for width in (0.5, 2.0)]
    return [[0.0, 1.0, 0.0, slope, 0.0], *steep]
