"""Kernel ridge regression with a Gaussian kernel, exp(-gamma |a - b|^2).

The kernel is made a plain ridge regression by the features K(x, landmarks) K(landmarks)^-1/2, so
that all strengths and folds come from one decomposition, as in `ridge`. With every row a landmark
that is kernel ridge regression exactly; of more than `LANDMARKS` rows so many are drawn (Nystroem:
Williams and Seeger, NIPS 2000). gamma is one over the median squared distance between rows.

Legend: N rows, P features, M landmarks, R rank, B rows to predict.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy import linalg

from beholder.models.regressors.member import Features, Folds, Member, Packed, Scores
from beholder.models.regressors.ridge import Matrix, best_ridge

LANDMARKS = 2000
_NEGLIGIBLE = 1e-10  # of the largest eigenvalue
_MEDIAN_ROWS = 1000
_SLICE = 4096  # rows whose distances are in memory at a time


class KernelRidge(Member):
    """A weighted sum of similarities to landmarks."""

    name: ClassVar[str] = "kernel"

    def __init__(
        self, landmarks_MP: Features, weights_M: Matrix, intercept: float, gamma: float
    ) -> None:
        self.landmarks_MP = landmarks_MP
        self.weights_M = weights_M
        self.intercept = intercept
        self.gamma = gamma

    @classmethod
    def fit(
        cls, x_NP: Features, y_N: Scores, folds_N: Folds, seed: int
    ) -> tuple[KernelRidge, Scores]:
        order = np.random.default_rng(seed).permutation(len(x_NP))
        gamma = _one_over_median(x_NP[order[:_MEDIAN_ROWS]])
        landmarks_MP = x_NP[np.sort(order[:LANDMARKS])]
        values, vectors_MR = linalg.eigh(gaussian(landmarks_MP, landmarks_MP, gamma), driver="evd")
        keep = values > _NEGLIGIBLE * values[-1]
        whitening_MR = vectors_MR[:, keep] / np.sqrt(values[keep])
        features_NR = _similarities(x_NP, landmarks_MP, gamma, whitening_MR)
        weights_R, intercept, held_out_N = best_ridge(features_NR, y_N, folds_N)
        return cls(landmarks_MP, whitening_MR @ weights_R, intercept, gamma), held_out_N

    def predict(self, x_BP: Features) -> Scores:
        weights_M1 = self.weights_M[:, None]
        sums_B1 = _similarities(x_BP, self.landmarks_MP, self.gamma, weights_M1)
        return sums_B1[:, 0] + self.intercept

    def pack(self) -> Packed:
        return Packed(
            {
                "landmarks": self.landmarks_MP,
                "weights": self.weights_M,
                "intercept_gamma": np.array([self.intercept, self.gamma]),
            }
        )

    @classmethod
    def unpack(cls, packed: Packed) -> KernelRidge:
        intercept, gamma = packed.arrays["intercept_gamma"].tolist()
        return cls(packed.arrays["landmarks"], packed.arrays["weights"], intercept, gamma)


def gaussian(a_NP: Features, b_MP: Features, gamma: float) -> Matrix:
    """exp(-gamma |a - b|^2) [N, M], 0 to 1."""
    return np.exp(-gamma * _squared_distances(a_NP, b_MP))


def _similarities(
    x_NP: Features, landmarks_MP: Features, gamma: float, weights_MR: Matrix
) -> Matrix:
    """Kernel to the landmarks times weights [N, R], a slice of the rows at a time."""
    parts = [
        gaussian(x_NP[start : start + _SLICE], landmarks_MP, gamma) @ weights_MR
        for start in range(0, len(x_NP), _SLICE)
    ]
    return np.concatenate(parts) if parts else np.empty((0, weights_MR.shape[1]))


def _squared_distances(a_NP: Features, b_MP: Features) -> Matrix:
    a, b = a_NP.astype(np.float64), b_MP.astype(np.float64)
    squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2.0 * (a @ b.T)
    return np.maximum(squares, 0.0, out=squares)


def _one_over_median(x_NP: Features) -> float:
    """One over the median squared distance between different rows; 1 where that is 0."""
    distances = _squared_distances(x_NP, x_NP)[np.triu_indices(len(x_NP), k=1)]
    median = float(np.median(distances)) if distances.size else 0.0
    return 1.0 / median if median > 0 else 1.0
