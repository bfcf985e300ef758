"""Ridge regression for all strengths at once, with exact held-out predictions of every fold.

Rows are centred, so that the intercept is not penalised. The weights of strength s solve

    (A + s I) w = b,    A = X'X, b = X'y of the centred rows,

or, of fewer rows than features, w = X'a with (X X' + s I) a = y. One reduction A = Q T Q' to a
tridiagonal T serves every strength, as A + s I = Q (T + s I) Q' and a tridiagonal system costs
nothing (Elden, BIT 17, 1977). What a fit without the rows S would predict for them comes from the
reduction of A without these rows; sums over the others are those over all less theirs.

Legend: N rows, P features, D the smaller of both, R rank, L strengths, S rows of a fold, T the
other rows, B rows to predict.
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
        self.y_N = y_N - y_N.mean()
        self.mean_y = float(y_N.mean())
        rows, columns = x_NP.shape
        self.tall = rows > columns
        x = self.centred_NP
        self.gram_DD = x.T @ x if self.tall else x @ x.T
        self.whole = _Reduced(self.gram_DD.copy())
        values = self.whole.eigenvalues()
        self.values_R = values[values > _NEGLIGIBLE * values[-1]]

    def strengths(self) -> Matrix:
        """Strengths [L] worth trying: `STRENGTHS` on the scale of these features."""
        return STRENGTHS * (self.values_R.mean() if self.values_R.size else 1.0)

    def coefficients(self, strength: float) -> tuple[Matrix, float]:
        """Weights [P] and intercept of one strength."""
        right_D = self.centred_NP.T @ self.y_N if self.tall else self.y_N
        solved_D = self.whole.solve(right_D, np.array([strength]))[:, 0]
        weights_P = solved_D if self.tall else self.centred_NP.T @ solved_D
        return weights_P, float(self.mean_y - self.mean_P @ weights_P)

    def held_out(self, strengths_L: Matrix, folds_N: Folds) -> Matrix:
        """Predictions [L, N] for each row by the fit of each strength on the other folds."""
        out_LN = np.empty((len(strengths_L), len(self.y_N)))
        fold_of = self._tall_fold if self.tall else self._wide_fold
        for fold in np.unique(folds_N):
            outside_N = folds_N == fold
            out_LN[:, outside_N] = fold_of(outside_N, strengths_L) + self.mean_y
        return out_LN

    def _tall_fold(self, outside_N: NDArray[np.bool_], strengths_L: Matrix) -> Matrix:
        x_SP, y_S = self.centred_NP[outside_N], self.y_N[outside_N]
        others = len(self.y_N) - len(y_S)
        # sums over all rows are 0, so that those over the others are minus these
        mean_P, mean_y = -x_SP.sum(axis=0) / others, -y_S.sum() / others
        gram_PP = self.gram_DD - x_SP.T @ x_SP
        gram_PP -= np.outer(others * mean_P, mean_P)
        moments_P = self.centred_NP.T @ self.y_N - x_SP.T @ y_S - others * mean_y * mean_P
        weights_PL = _Reduced(gram_PP).solve(moments_P, strengths_L)
        return ((x_SP - mean_P) @ weights_PL).T + mean_y

    def _wide_fold(self, outside_N: NDArray[np.bool_], strengths_L: Matrix) -> Matrix:
        inside_T = ~outside_N
        kernel_TT, cross_ST = self.gram_DD[np.ix_(inside_T, inside_T)], self.gram_DD[outside_N]
        cross_ST = cross_ST[:, inside_T]
        mean_T, mean_y = kernel_TT.mean(axis=0), self.y_N[inside_T].mean()
        cross_ST -= cross_ST.mean(axis=1)[:, None] + mean_T - mean_T.mean()
        kernel_TT -= mean_T[:, None] + mean_T - mean_T.mean()
        dual_TL = _Reduced(kernel_TT).solve(self.y_N[inside_T] - mean_y, strengths_L)
        return (cross_ST @ dual_TL).T + mean_y


class _Reduced:
    """A symmetric matrix [D, D], which is overwritten, as Q T Q' with a tridiagonal T."""

    def __init__(self, a_DD: Matrix) -> None:
        size = len(a_DD)
        self.diagonal_D, self.beside, self.scales = a_DD[0].copy(), np.empty(0), np.empty(0)
        if size == 1:  # is tridiagonal, and LAPACK's wrapper refuses it
            return
        lwork = int(linalg.lapack.dsytrd_lwork(size, lower=1)[0])
        # as LAPACK counts, the transpose is what lies there: no copy
        packed, self.diagonal_D, self.beside, self.scales, _ = linalg.lapack.dsytrd(
            a_DD.T, lower=1, lwork=lwork, overwrite_a=1
        )
        # Q leaves the first row as it is; its reflectors lie below the subdiagonal
        self.reflectors = np.asfortranarray(packed[1:, :-1])

    def eigenvalues(self) -> Matrix:
        """All [D], rising."""
        return linalg.eigvalsh_tridiagonal(self.diagonal_D, self.beside)

    def solve(self, right_D: Matrix, strengths_L: Matrix) -> Matrix:
        """(A + s I)^-1 right [D, L] for every strength s."""
        turned_D = self._turned(right_D[:, None], "T")[:, 0]
        solved_DL = np.empty((len(turned_D), len(strengths_L)), order="F")
        bands = np.zeros((min(2, len(turned_D)), len(turned_D)))
        bands[1:, :-1] = self.beside
        for index, strength in enumerate(strengths_L):
            bands[0] = self.diagonal_D + strength
            solved_DL[:, index] = linalg.solveh_banded(bands, turned_D, lower=True)
        return self._turned(solved_DL, "N")

    def _turned(self, values_DL: Matrix, direction: str) -> Matrix:
        """Q values, or Q' values for "T"."""
        turned_DL = values_DL.copy(order="F")
        if self.scales.size:
            below = np.asfortranarray(turned_DL[1:])
            lwork = 64 * below.shape[1]
            turned_DL[1:] = linalg.lapack.dormqr(
                "L", direction, self.reflectors, self.scales, below, lwork
            )[0]
        return turned_DL


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
