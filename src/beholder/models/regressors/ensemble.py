"""Scores from frozen features by several regressors, stacked.

Features are standardised and cut to +-`CLAMP` deviations, scores standardised; every member gives
out of fold predictions; non-negative least squares of the scores on these gives the members'
weights (stacked regression: Wolpert, Neural Networks 5, 1992; Breiman, Machine Learning 24, 1996).
Rows of one unit (a photograph and what was made of it) are never in two folds.

Legend: N pictures to fit on, B to predict, P features, M members.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beholder.data.splits import assign_folds
from beholder.errors import DataError
from beholder.metrics.correlation import defined_metrics
from beholder.models.regressors.checks import check_finite, check_training
from beholder.models.regressors.config import EnsembleConfig
from beholder.models.regressors.files import load_parts, save_parts
from beholder.models.regressors.members import MEMBERS, Features, Learnt, Scores

log = logging.getLogger("beholder")

CLAMP = 10.0


class ScoreEnsemble:
    """Predicts scores from features; made by `fit` or `load`.

    Attributes:
        weights: member -> its weight in the stack, 0 or more.
        quality: member (and `stack`) -> `plcc`, `srcc`, `rmse` of its out of fold predictions.
    """

    def __init__(
        self,
        members: dict[str, Learnt],
        arrays: dict[str, NDArray[Any]],
        quality: dict[str, dict[str, float]],
    ) -> None:
        self.members = members
        self.arrays = arrays
        self.quality = quality

    @classmethod
    def fit(
        cls,
        features_NP: ArrayLike,
        scores_N: ArrayLike,
        units: Sequence[str],
        *,
        config: EnsembleConfig | None = None,
        seed: int = 0,
        keys: Sequence[str] | None = None,
    ) -> ScoreEnsemble:
        """Fit all members and their weights.

        Args:
            features_NP: finite numbers of any float type.
            scores_N: on any scale; predictions are on the same.
            units: the name of each row's unit, see `data.splits.unit_names`.
            seed: of folds, landmarks, trees and the network.
            keys: image keys, to name rows in errors.

        Raises:
            DataError: shapes that do not fit, values that are not finite (with keys), constant
                scores, fewer units than folds.
            MissingExtra: LightGBM is not installed.
        """
        config = config or EnsembleConfig()
        features, scores = check_training(features_NP, scores_N, units, keys)
        folds_N = assign_folds(units, config.folds, seed)
        arrays = _statistics(features, scores)
        x_NP = _standardised(features, arrays)
        y_N = (scores - arrays["score_mean"]) / arrays["score_scale"]
        members: dict[str, Learnt] = {}
        held_out_MN = np.empty((len(config.members), len(y_N)))
        for index, name in enumerate(config.members):
            members[name], held_out_MN[index] = MEMBERS[name].fit(x_NP, y_N, folds_N, seed)
        weights_M, intercept = stack(held_out_MN, y_N)
        if not weights_M.any():
            log.warning("no member predicts held-out scores; the mean score is predicted instead")
        arrays |= {"weights": weights_M, "intercept": np.array([intercept])}
        quality = {
            name: _quality(y_N, held_out, float(arrays["score_scale"][0]))
            for name, held_out in zip(members, held_out_MN, strict=True)
        }
        stacked_N = weights_M @ held_out_MN + intercept
        quality["stack"] = _quality(y_N, stacked_N, float(arrays["score_scale"][0]))
        return cls(members, arrays, quality)

    @property
    def feature_dim(self) -> int:
        """P, the number of features that it reads."""
        return len(self.arrays["feature_mean"])

    @property
    def weights(self) -> dict[str, float]:
        return dict(zip(self.members, self.arrays["weights"].tolist(), strict=True))

    def predict(self, features_BP: ArrayLike) -> Scores:
        """Scores [B] on the scale of those it was fitted on, not cut to their range.

        Raises:
            DataError: another number of features, or values that are not finite.
        """
        members_MB = self.predict_members(features_BP)
        weighted_B = self.arrays["weights"] @ members_MB + self.arrays["intercept"]
        return weighted_B * self.arrays["score_scale"] + self.arrays["score_mean"]

    def predict_members(self, features_BP: ArrayLike) -> NDArray[np.float64]:
        """Standardised predictions [M, B] of each member, in the order of `members`.

        Raises:
            DataError: as `predict`.
        """
        features = np.asarray(features_BP)
        if features.ndim != 2 or features.shape[1] != self.feature_dim:
            raise DataError(
                f"The regressor reads {self.feature_dim} features of each picture; the shape given "
                f"is {features.shape}.",
                fix="Use features of the backbone and pooling that it was fitted on.",
            )
        check_finite(features, [f"row {row}" for row in range(len(features))])
        x_BP = _standardised(features, self.arrays)
        return np.stack(
            [MEMBERS[name].predict(learnt, x_BP) for name, learnt in self.members.items()]
        )

    def save(self, folder: str | Path) -> None:
        """Write a folder of JSON, safetensors and LightGBM's text, atomically.

        Raises:
            OutputError: the place can't be written.
        """
        save_parts(Path(folder), self.members, self.arrays, self.quality)

    @classmethod
    def load(cls, folder: str | Path) -> ScoreEnsemble:
        """Read what `save` wrote; it predicts the very same.

        Raises:
            RegressorError: missing, incomplete, changed, or of a newer format.
        """
        return cls(*load_parts(Path(folder)))


def stack(held_out_MN: NDArray[np.float64], y_N: Scores) -> tuple[Scores, float]:
    """Weights [M], none negative, and intercept with the least squared error of their sum."""
    from sklearn.linear_model import LinearRegression

    fitted = LinearRegression(positive=True).fit(held_out_MN.T, y_N)
    return fitted.coef_, float(fitted.intercept_)


def _statistics(features: NDArray[Any], scores: Scores) -> dict[str, NDArray[Any]]:
    mean_P = features.mean(axis=0, dtype=np.float64)
    deviation_P = features.std(axis=0, dtype=np.float64)
    # a constant feature says nothing; its rounding noise must not be blown up
    constant = deviation_P <= 1e-6 * np.abs(mean_P)
    deviation_P[constant] = np.inf
    return {
        "feature_mean": mean_P,
        "feature_scale": deviation_P,
        "score_mean": np.array([scores.mean()]),
        "score_scale": np.array([scores.std()]),
    }


def _standardised(features: NDArray[Any], arrays: dict[str, NDArray[Any]]) -> Features:
    x = (features - arrays["feature_mean"]) / arrays["feature_scale"]
    return np.clip(x, -CLAMP, CLAMP, out=x).astype(np.float32)


def _quality(targets: Scores, predicted: Scores, scale: float) -> dict[str, float]:
    values = defined_metrics(targets, predicted)
    return {name: value * scale if name == "rmse" else value for name, value in values.items()}
