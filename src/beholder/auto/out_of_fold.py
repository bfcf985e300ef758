"""What linear models on frozen features predict of pictures that they have not learnt from, with
groups kept apart. In closed form they stand for the heads, in a second each.

Legend: N pictures, P features of a picture, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from beholder.judge.calibration import (
    each_temperature_scaled,
    fit_each_temperature,
    fit_temperature,
    temperature_scaled,
)

ALPHAS = np.logspace(-1, 5, 13)  # of the ridge, on standardised features
MOST_LEARNT = 3000  # pictures, evenly from those of the other folds: a fit takes seconds
STEEPNESS = 4.0  # of a classifier's decisions as logits, before the temperature is fitted
Features = NDArray[np.float64]
Folds = NDArray[np.int64]


def standardised(features_NP: Features, learnt_N: NDArray[np.bool_]) -> Features:
    """Features in deviations from the mean, both of the rows that are learnt from; constant ones
    become 0, and what is beyond 8 deviations is cut, as the heads do."""
    mean_P = features_NP[learnt_N].mean(axis=0)
    deviation_P = features_NP[learnt_N].std(axis=0)
    scale_P = np.where(deviation_P > 1e-8, deviation_P, np.inf)
    return np.clip((features_NP - mean_P) / scale_P, -8.0, 8.0)


def out_of_fold_scores(
    features_NP: Features,
    scores_N: NDArray[np.float64],
    folds_N: Folds,
    usable_N: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64] | None:
    """A ridge's predictions [N], each of a fold that it has not learnt from; None: fewer than two
    rows to learn from.

    Args:
        usable_N: rows that may be learnt from; None: all.
    """
    from sklearn.linear_model import RidgeCV

    usable_N = np.ones(len(scores_N), bool) if usable_N is None else usable_N
    predicted_N = np.empty(len(scores_N))
    for fold in np.unique(folds_N):
        held_N, learnt_N = folds_N == fold, _evenly((folds_N != fold) & usable_N)
        if learnt_N.sum() < 2:
            return None
        inputs_NP = standardised(features_NP, learnt_N)
        ridge = RidgeCV(ALPHAS).fit(inputs_NP[learnt_N], scores_N[learnt_N])
        predicted_N[held_N] = ridge.predict(inputs_NP[held_N])
    return predicted_N


def out_of_fold_probabilities(
    features_NP: Features, labels_N: Sequence[str], folds_N: Folds
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """The classes, and the probability [N, K] of each from linear classifiers that have not learnt
    from the picture's fold. One temperature over all makes the decisions probabilities."""
    classes, index_N = np.unique(np.asarray(labels_N), return_inverse=True)
    decision_NK = np.full((len(index_N), len(classes)), -1.0)
    for fold in np.unique(folds_N):
        held_N, learnt_N = folds_N == fold, _evenly(folds_N != fold)
        known = np.unique(index_N[learnt_N])
        decision_NK[np.ix_(held_N, known)] = _decisions(features_NP, index_N, learnt_N, held_N)
    raw_NK = temperature_scaled(np.exp(STEEPNESS * decision_NK), 1.0)
    fitted_NK = temperature_scaled(raw_NK, fit_temperature(raw_NK, index_N.astype(np.int64)))
    return tuple(map(str, classes)), fitted_NK


def out_of_fold_several(
    features_NP: Features, labels_N: Sequence[Sequence[str]], folds_N: Folds
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """The labels, and the probability [N, K] that each holds, where several may hold at once; as
    `out_of_fold_probabilities`."""
    names = sorted({label for labels in labels_N for label in labels})
    holds_NK = np.array([[name in labels for name in names] for labels in labels_N], np.int64)
    decision_NK = np.empty(holds_NK.shape)
    for fold in np.unique(folds_N):
        held_N, learnt_N = folds_N == fold, _evenly(folds_N != fold)
        for k, holds_N in enumerate(holds_NK.T):
            decisions = _decisions(features_NP, holds_N, learnt_N, held_N)
            only = 1.0 if holds_N[learnt_N].all() else -1.0  # of a fold that knows no other
            decision_NK[held_N, k] = decisions[:, -1] if decisions.shape[1] == 2 else only
    raw_NK = 1.0 / (1.0 + np.exp(-2.0 * STEEPNESS * decision_NK))
    temperature = fit_each_temperature(raw_NK, holds_NK.astype(np.float64))
    return tuple(names), each_temperature_scaled(raw_NK, temperature)


def _decisions(
    features_NP: Features,
    index_N: NDArray[np.int64],
    learnt_N: NDArray[np.bool_],
    held_N: NDArray[np.bool_],
) -> Features:
    """Of the held rows, for every class that the learnt rows have: 1 where it is, -1 where not."""
    from sklearn.linear_model import RidgeClassifierCV

    if len(np.unique(index_N[learnt_N])) < 2:
        return np.ones((int(held_N.sum()), 1))
    inputs_NP = standardised(features_NP, learnt_N)
    model = RidgeClassifierCV(ALPHAS).fit(inputs_NP[learnt_N], index_N[learnt_N])
    decisions = np.asarray(model.decision_function(inputs_NP[held_N]))
    return decisions if decisions.ndim == 2 else np.stack([-decisions, decisions], axis=1)


def _evenly(rows_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """These rows, or so many of them as are learnt from."""
    chosen = np.flatnonzero(rows_N)
    step = -(-len(chosen) // MOST_LEARNT) or 1
    thinned_N = np.zeros(len(rows_N), bool)
    thinned_N[chosen[::step]] = True
    return thinned_N
