"""Boosted trees (LightGBM), as many as are best on held-out folds. Kept in LightGBM's text format.

The features are cut into bins once, for all folds: of held-out rows their features are known then,
never their scores. Folds are fitted side by side, each in a thread of its own, so that the trees do
not depend on how many there are.

Legend: N rows, P features, B rows to predict.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from beholder.errors import MissingExtra
from beholder.models.regressors.member import Features, Folds, Member, Packed, Scores

if TYPE_CHECKING:
    from lightgbm import Booster

ROUNDS = 300
# features that a tree may choose from: of thousands that say much the same, a few hundred do
_FEATURES_PER_TREE = 300


class Trees(Member):
    """A sum of small trees."""

    name: ClassVar[str] = "trees"

    def __init__(self, text: str) -> None:
        # what predicts is always what the text says, also before it was ever saved
        self.text = text
        self.booster: Booster = _lightgbm().Booster(model_str=text)

    @classmethod
    def fit(cls, x_NP: Features, y_N: Scores, folds_N: Folds, seed: int) -> tuple[Trees, Scores]:
        lightgbm = _lightgbm()
        parameters = _parameters(x_NP, seed)
        binned = lightgbm.Dataset(x_NP, y_N, params=parameters).construct()

        def fit_fold(fold: int) -> tuple[Booster, list[float]]:
            inside, held = (binned.subset(np.flatnonzero(which)) for which in _sides(folds_N, fold))
            seen: dict[str, dict[str, list[float]]] = {}
            booster = lightgbm.train(
                parameters, inside, ROUNDS, [held], ["held"],
                callbacks=[lightgbm.record_evaluation(seen)],
            )  # fmt: skip
            return booster, seen["held"]["l2"]

        folds = np.unique(folds_N).tolist()
        with ThreadPoolExecutor(min(len(folds), os.cpu_count() or 1)) as pool:
            fitted = list(pool.map(fit_fold, folds))
        counts = np.bincount(folds_N)[folds]
        errors = counts @ np.array([squares for _, squares in fitted])
        rounds = int(errors.argmin()) + 1
        held_out_N = np.empty(len(y_N))
        for fold, (booster, _) in zip(folds, fitted, strict=True):
            outside = folds_N == fold
            held_out_N[outside] = booster.predict(x_NP[outside], num_iteration=rounds)
        whole = lightgbm.train(parameters, binned, rounds)
        return cls(whole.model_to_string()), held_out_N

    def predict(self, x_BP: Features) -> Scores:
        return np.asarray(self.booster.predict(x_BP), np.float64)

    def pack(self) -> Packed:
        return Packed(text=self.text)

    @classmethod
    def unpack(cls, packed: Packed) -> Trees:
        assert packed.text is not None, "trees are kept as text"
        return cls(packed.text)


def _sides(folds_N: Folds, fold: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows are fitted on, and which are held out."""
    return folds_N != fold, folds_N == fold


def _parameters(x_NP: Features, seed: int) -> dict[str, Any]:
    rows, columns = x_NP.shape
    return {
        "objective": "regression",
        "metric": "l2",
        "learning_rate": 0.05,
        "num_leaves": 15,
        "min_data_in_leaf": max(1, min(20, rows // 20)),
        "lambda_l2": 1.0,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "feature_fraction": min(0.5, _FEATURES_PER_TREE / columns),
        "max_bin": 63,
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ModuleNotFoundError as error:
        raise MissingExtra("Fitting or using boosted trees", "train") from error
    return lightgbm
