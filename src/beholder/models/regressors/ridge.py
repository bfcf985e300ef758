"""Ridge regression for all strengths at once, with exact held-out predictions of every fold.

One decomposition of the centred features, X = U sqrt(D) V', serves every strength s: fitted values
are H y with H = 1 1'/N + U D / (D + s) U', an intercept that is not penalised included. What a fit
without the rows S would predict for them follows from the fit with them,

    y_S - held out_S = (I - H_SS)^-1 (y_S - fitted_S),

so that no fold is fitted again. Source: the leave-one-out identity of Allen's PRESS (Technometrics
16, 1974) for blocks of rows, e.g. Liland et al., "Fast and accurate cross-validation of ridge",
2024; all strengths from one decomposition: Hastie, Tibshirani and Friedman, ch. 3.4 and 18.3.

Legend: N rows, P features, R rank, L strengths, S rows of a fold, B rows to predict.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from beholder.models.regressors.member import (
    Features,
    Folds,
    Member,
    Packed,
    Scores,
    mean_squared,
)

Matrix = NDArray[np.float64]

# times the mean eigenvalue of the centred features
STRENGTHS: Matrix = np.logspace(-3.5, 3, 14)
_NEGLIGIBLE = 1e-12  # of the largest eigenvalue


class RidgePath:
    """The ridge regressions of all strengths on one set of rows.

    Args:
        x_NP, y_N: features and targets; neither needs to be centred.

    Attributes:
        values_R: eigenvalues of the centred features, all above 0.
    """

    def __init__(self, x_NP: NDArray[Any], y_N: Scores) -> None:
        self.mean_P = x_NP.mean(axis=0, dtype=np.float64)
        self.centred_NP = x_NP.astype(np.float64) - self.mean_P
        self.y_N = y_N
        rows, columns = x_NP.shape
        if rows > columns:
            values, right_PR = linalg.eigh(self.centred_NP.T @ self.centred_NP, driver="evd")
            keep = values > _NEGLIGIBLE * values[-1]
            self.values_R = values[keep]
            self.left_NR = (self.centred_NP @ right_PR[:, keep]) / np.sqrt(self.values_R)
        else:
            values, left_NR = linalg.eigh(self.centred_NP @ self.centred_NP.T, driver="evd")
            keep = values > _NEGLIGIBLE * values[-1]
            self.values_R, self.left_NR = values[keep], left_NR[:, keep]
        self.moments_R = self.left_NR.T @ (y_N - y_N.mean())

    def strengths(self) -> Matrix:
        """Strengths [L] worth trying: `STRENGTHS` on the scale of these features."""
        return STRENGTHS * (self.values_R.mean() if self.values_R.size else 1.0)

    def coefficients(self, strength: float) -> tuple[Matrix, float]:
        """Weights [P] and intercept of one strength."""
        dual_N = self.left_NR @ (self.moments_R / (self.values_R + strength))
        weights_P = self.centred_NP.T @ dual_N
        return weights_P, float(self.y_N.mean() - self.mean_P @ weights_P)

    def held_out(self, strengths_L: Matrix, folds_N: Folds) -> Matrix:
        """Predictions [L, N] for each row by the fit of each strength on the other folds."""
        count = len(self.y_N)
        # the intercept is one more direction, without a penalty
        left = np.column_stack([np.full(count, count**-0.5), self.left_NR])
        out_LN = np.empty((len(strengths_L), count))
        for fold in np.unique(folds_N):
            rows_S = np.flatnonzero(folds_N == fold)
            out_LN[:, rows_S] = self._held_out_fold(left, rows_S, strengths_L)
        return out_LN

    def _held_out_fold(self, left: Matrix, rows_S: NDArray[np.intp], strengths_L: Matrix) -> Matrix:
        part, y_S = left[rows_S], self.y_N[rows_S]
        wide = len(rows_S) > part.shape[1]  # solve in the smaller of rows and directions
        gram = part.T @ part if wide else None
        predictions = np.empty((len(strengths_L), len(rows_S)))
        for index, strength in enumerate(strengths_L):
            kept_R = self.values_R / (self.values_R + strength)
            fitted_S = self.y_N.mean() + part[:, 1:] @ (kept_R * self.moments_R)
            root = np.sqrt(np.concatenate([[1.0], kept_R]))
            scaled = part * root
            residual_S = y_S - fitted_S
            if gram is None:
                error_S = _solve(scaled @ scaled.T, residual_S)
            else:
                inner = _solve(gram * root * root[:, None], scaled.T @ residual_S)
                error_S = residual_S + scaled @ inner
            predictions[index] = y_S - error_S
        return predictions


def _solve(h: Matrix, right: Matrix) -> Matrix:
    """(I - h)^-1 right for a symmetric h below I; `h` is overwritten."""
    np.negative(h, out=h)
    h[np.diag_indices_from(h)] += 1.0
    factor = linalg.cho_factor(h, lower=True, overwrite_a=True, check_finite=False)
    return linalg.cho_solve(factor, right, check_finite=False)


def best_ridge(x_NP: NDArray[Any], y_N: Scores, folds_N: Folds) -> tuple[Matrix, float, Scores]:
    """Weights [P] and intercept of the strength with the least held-out squared error, and its
    held-out predictions [N]."""
    path = RidgePath(x_NP, y_N)
    strengths_L = path.strengths()
    held_out_LN = path.held_out(strengths_L, folds_N)
    best = int(mean_squared(held_out_LN, y_N).argmin())
    weights_P, intercept = path.coefficients(float(strengths_L[best]))
    return weights_P, intercept, held_out_LN[best]


class Ridge(Member):
    """A weighted sum of the features."""

    name: ClassVar[str] = "ridge"

    def __init__(self, weights_P: Matrix, intercept: float) -> None:
        self.weights_P = weights_P
        self.intercept = intercept

    @classmethod
    def fit(cls, x_NP: Features, y_N: Scores, folds_N: Folds, seed: int) -> tuple[Ridge, Scores]:
        weights_P, intercept, held_out_N = best_ridge(x_NP, y_N, folds_N)
        return cls(weights_P, intercept), held_out_N

    def predict(self, x_BP: Features) -> Scores:
        return x_BP.astype(np.float64) @ self.weights_P + self.intercept

    def pack(self) -> Packed:
        return Packed({"weights": self.weights_P, "intercept": np.array([self.intercept])})

    @classmethod
    def unpack(cls, packed: Packed) -> Ridge:
        return cls(packed.arrays["weights"], float(packed.arrays["intercept"][0]))
