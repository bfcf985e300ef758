"""The members of a score ensemble: ridge, kernel ridge, boosted trees, a small network.

scikit-learn and LightGBM fit them. What a member has learnt is plain numbers (trees: LightGBM's
text), so that a file of it holds no pickle, and numpy predicts with them.

Every `fit_*` takes features of mean 0 and deviation 1, scores likewise, the fold of each row and a
seed. It chooses a strength (of ridges), a number of rounds (of trees) or of epochs (of networks)
by the squared error on held-out folds, fits all rows with it, and returns what it learnt and the
held-out predictions: each row's by a fit of that choice on the other folds.

Legend: N rows to fit on, B to predict, P features, L strengths, M landmarks, H hidden units, E
epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beholder.errors import MissingExtra

if TYPE_CHECKING:
    from sklearn.neural_network import MLPRegressor

Features = NDArray[np.float32]
Scores = NDArray[np.float64]
Folds = NDArray[np.int64]

# of ridges, times the mean eigenvalue of the centred features
STRENGTHS = np.logspace(-3.5, 3, 14)
LANDMARKS = 2000
_MEDIAN_ROWS = 1000
_ROWS_AT_A_TIME = 4096  # whose similarities are in memory
ROUNDS = 300
# features that a tree may choose from: of thousands that say much the same, a few hundred do
_FEATURES_PER_TREE = 300
HIDDEN, BATCH, STEPS = 64, 256, 1000
EPOCHS = (24, 160)  # fewest and most
WEIGHT_DECAY = 10.0  # over the rows of a batch, as scikit-learn counts it


@dataclass(frozen=True)
class Learnt:
    """A fitted member as plain data: arrays by name, and text for what has a text form."""

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    text: str | None = None


class Member(NamedTuple):
    """A regressor from standardised features to standardised scores."""

    fit: Callable[[Features, Scores, Folds, int], tuple[Learnt, Scores]]
    predict: Callable[[Learnt, Features], Scores]


def _best_ridge(x_NP: NDArray[Any], y_N: Scores, folds_N: Folds) -> tuple[Scores, float, Scores]:
    """Weights [P] and intercept of the best strength, and its held-out predictions [N].

    Every strength is a target of one fit, so that the features are multiplied with themselves once
    per fold, not once per fold and strength.
    """
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import PredefinedSplit, cross_val_predict

    x_NP = x_NP.astype(np.float64)
    eigenvalues = np.square(x_NP - x_NP.mean(axis=0)).sum() / min(len(x_NP) - 1, x_NP.shape[1])
    strengths_L = STRENGTHS * (eigenvalues or 1.0)
    ridge = Ridge(alpha=strengths_L, solver="cholesky")
    y_NL = np.repeat(y_N[:, None], len(strengths_L), axis=1)
    held_out_NL = cross_val_predict(ridge, x_NP, y_NL, cv=PredefinedSplit(folds_N))
    best = int(np.square(held_out_NL - y_NL).mean(axis=0).argmin())
    ridge = Ridge(alpha=strengths_L[best], solver="cholesky").fit(x_NP, y_N)
    return ridge.coef_, float(ridge.intercept_), held_out_NL[:, best]


def fit_ridge(x_NP: Features, y_N: Scores, folds_N: Folds, seed: int) -> tuple[Learnt, Scores]:
    """A weighted sum of the features."""
    weights_P, intercept, held_out_N = _best_ridge(x_NP, y_N, folds_N)
    return Learnt({"weights": weights_P, "intercept": np.array([intercept])}), held_out_N


def _predict_ridge(learnt: Learnt, x_BP: Features) -> Scores:
    return x_BP.astype(np.float64) @ learnt.arrays["weights"] + learnt.arrays["intercept"]


def fit_kernel(x_NP: Features, y_N: Scores, folds_N: Folds, seed: int) -> tuple[Learnt, Scores]:
    """A weighted sum of similarities exp(-gamma |x - landmark|^2), gamma being one over the median
    squared distance between rows.

    Nystroem's features make it a plain ridge regression. With every row a landmark that is kernel
    ridge regression exactly; of more than `LANDMARKS` rows so many are drawn.
    """
    from scipy.spatial.distance import pdist
    from sklearn.kernel_approximation import Nystroem

    drawn = np.random.default_rng(seed).permutation(len(x_NP))[:_MEDIAN_ROWS]
    median = float(np.median(pdist(x_NP[drawn], "sqeuclidean"))) if len(drawn) > 1 else 0.0
    gamma = 1.0 / median if median > 0 else 1.0
    count = min(LANDMARKS, len(x_NP))
    nystroem = Nystroem(gamma=gamma, n_components=count, random_state=seed)
    similar_NM = nystroem.fit_transform(x_NP.astype(np.float64))
    weights_M, intercept, held_out_N = _best_ridge(similar_NM, y_N, folds_N)
    arrays = {
        "landmarks": nystroem.components_.astype(np.float32),
        "weights": nystroem.normalization_.T @ weights_M,
        "intercept_gamma": np.array([intercept, gamma]),
    }
    return Learnt(arrays), held_out_N


def _predict_kernel(learnt: Learnt, x_BP: Features) -> Scores:
    landmarks_MP = learnt.arrays["landmarks"].astype(np.float64)
    intercept, gamma = learnt.arrays["intercept_gamma"].tolist()
    predicted_B = np.empty(len(x_BP))
    for start in range(0, len(x_BP), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        x_bP = x_BP[rows].astype(np.float64)
        squares_bM = np.square(x_bP).sum(1)[:, None] + np.square(landmarks_MP).sum(1)
        squares_bM = np.maximum(squares_bM - 2.0 * (x_bP @ landmarks_MP.T), 0.0)
        predicted_B[rows] = np.exp(-gamma * squares_bM) @ learnt.arrays["weights"] + intercept
    return predicted_B


def fit_trees(x_NP: Features, y_N: Scores, folds_N: Folds, seed: int) -> tuple[Learnt, Scores]:
    """Boosted trees. Features are cut into bins once, for all folds: of held-out rows their
    features are known then, never their scores."""
    from sklearn.model_selection import PredefinedSplit

    lightgbm = _lightgbm()
    parameters = tree_parameters(x_NP, seed)
    dataset = lightgbm.Dataset(x_NP, y_N, params=parameters, free_raw_data=False)
    folds = list(PredefinedSplit(folds_N).split())
    history = lightgbm.cv(
        parameters, dataset, ROUNDS, folds=folds, stratified=False, return_cvbooster=True
    )
    rounds = int(np.argmin(history["valid l2-mean"])) + 1
    held_out_N = np.empty(len(y_N))
    for (_, held_out), booster in zip(folds, history["cvbooster"].boosters, strict=True):
        held_out_N[held_out] = booster.predict(x_NP[held_out], num_iteration=rounds)
    return Learnt(text=lightgbm.train(parameters, dataset, rounds).model_to_string()), held_out_N


def tree_parameters(x_NP: Features, seed: int) -> dict[str, Any]:
    """LightGBM's, for these features; trees do not depend on the number of threads."""
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
        "verbosity": -1,
    }


def _predict_trees(learnt: Learnt, x_BP: Features) -> Scores:
    booster = _lightgbm().Booster(model_str=learnt.text)
    return np.asarray(booster.predict(x_BP), np.float64)


def fit_mlp(x_NP: Features, y_N: Scores, folds_N: Folds, seed: int) -> tuple[Learnt, Scores]:
    """ReLU units over all features, summed."""
    epochs = int(np.clip(STEPS * BATCH // len(y_N), *EPOCHS))
    held_out_EN = np.empty((epochs, len(y_N)))
    for fold in np.unique(folds_N):
        inside, outside = folds_N != fold, folds_N == fold
        networks = _trained(x_NP[inside], y_N[inside], epochs, seed)
        for epoch, network in enumerate(networks):
            held_out_EN[epoch, outside] = network.predict(x_NP[outside])
    best = int(np.square(held_out_EN - y_N).mean(axis=1).argmin())
    *_, network = _trained(x_NP, y_N, best + 1, seed)
    (into_PH, out_H1), (into_bias_H, out_bias) = network.coefs_, network.intercepts_
    arrays = {"in": into_PH.T, "in_bias": into_bias_H, "out": out_H1[:, 0], "out_bias": out_bias}
    learnt = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    return Learnt(learnt), held_out_EN[best]


def _trained(x_NP: Features, y_N: Scores, epochs: int, seed: int) -> Iterator[MLPRegressor]:
    """The network after each epoch of a training on these rows."""
    from sklearn.neural_network import MLPRegressor

    batch = min(BATCH, max(8, len(y_N) // 8))
    network = MLPRegressor(
        hidden_layer_sizes=(HIDDEN,), alpha=WEIGHT_DECAY, batch_size=batch, random_state=seed
    )
    for _ in range(epochs):
        yield network.partial_fit(x_NP, y_N.astype(np.float32))


def _predict_mlp(learnt: Learnt, x_BP: Features) -> Scores:
    weights = learnt.arrays
    hidden_BH = np.maximum(x_BP @ weights["in"].T + weights["in_bias"], 0.0)
    return (hidden_BH @ weights["out"] + weights["out_bias"]).astype(np.float64)


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ModuleNotFoundError as error:
        raise MissingExtra("Fitting or using boosted trees", "train") from error
    return lightgbm


MEMBERS = {
    "ridge": Member(fit_ridge, _predict_ridge),
    "kernel": Member(fit_kernel, _predict_kernel),
    "trees": Member(fit_trees, _predict_trees),
    "mlp": Member(fit_mlp, _predict_mlp),
}
