"""Scores from frozen features by AutoGluon's tabular predictor.

It keeps its models pickled, and Beholder opens no pickle: a fitted predictor lives in memory and
its folder goes with it. What it predicts is kept instead. docs/samsung-iqa-score.md tells of the
environment of its own that it needs.

Legend: N pictures to fit on, B to predict, P features.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beholder.data.splits import assign_folds
from beholder.errors import DataError, MissingExtra
from beholder.models.regressors.checks import check_finite, check_training
from beholder.models.regressors.config import AutoGluonConfig

# of fewer, some of its models predict constants, and its metric has no value for these
FEWEST = 100
HELD_OUT = 10  # one of so many parts is what AutoGluon chooses and weighs its models with


class AutoGluonRegressor:
    """Predicts scores from features; made by `fit`, with Pearson's correlation as its metric."""

    def __init__(self, predictor: Any, folder: tempfile.TemporaryDirectory[str], dim: int) -> None:
        self.predictor = predictor
        self.folder = folder
        self.feature_dim = dim

    @classmethod
    def fit(
        cls,
        features_NP: ArrayLike,
        scores_N: ArrayLike,
        units: Sequence[str],
        *,
        config: AutoGluonConfig,
        seed: int = 0,
        keys: Sequence[str] | None = None,
    ) -> AutoGluonRegressor:
        """Fit on nine tenths of the units, choosing by the rest; arguments as `ScoreEnsemble.fit`.

        Raises:
            DataError: as `ScoreEnsemble.fit`, or fewer than `FEWEST` pictures.
            MissingExtra: AutoGluon is not installed.
        """
        tabular = autogluon_tabular()
        features, scores = check_training(features_NP, scores_N, units, keys)
        check_count(len(scores))
        held_out = assign_folds(units, min(HELD_OUT, len(set(units))), seed) == 0
        frame = _frame(features).assign(score=scores)
        folder = tempfile.TemporaryDirectory(prefix="beholder-autogluon-")
        predictor = tabular.TabularPredictor(
            label="score",
            problem_type="regression",
            eval_metric="pearsonr",
            path=str(Path(folder.name) / "predictor"),
            verbosity=1,
        )
        predictor.fit(
            frame[~held_out],
            tuning_data=frame[held_out],
            presets=config.presets,
            time_limit=config.time_limit,
            # presets that bag would make folds of their own, by rows, and divide units
            auto_stack=False,
            dynamic_stacking=False,
            num_bag_folds=0,
            num_stack_levels=0,
        )
        return cls(predictor, folder, features.shape[1])

    def predict(self, features_BP: ArrayLike) -> NDArray[np.float64]:
        """Scores [B].

        Raises:
            DataError: another number of features, or values that are not finite.
        """
        features = np.asarray(features_BP)
        if features.ndim != 2 or features.shape[1] != self.feature_dim:
            raise DataError(
                f"The regressor reads {self.feature_dim} features of each picture; the shape given "
                f"is {features.shape}."
            )
        check_finite(features, [f"row {row}" for row in range(len(features))])
        return np.asarray(self.predictor.predict(_frame(features)), np.float64)


def check_count(pictures: int) -> None:
    """Raises:
    DataError: there are fewer pictures with a score than AutoGluon needs.
    """
    if pictures < FEWEST:
        raise DataError(
            f"AutoGluon needs {FEWEST} pictures with a score or more; there are {pictures}.",
            fix="Use `regressor: {kind: ensemble}`.",
        )


def autogluon_tabular() -> Any:
    """AutoGluon's module.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        from autogluon import tabular
    except ModuleNotFoundError as error:
        raise MissingExtra("regressor: {kind: autogluon}", "autogluon") from error
    return tabular


def _frame(features: NDArray[Any]) -> Any:
    import pandas

    names = [f"f{column}" for column in range(features.shape[1])]
    return pandas.DataFrame(features.astype(np.float32), columns=names)
