"""How doubtful an opinion of a table is, given what a model that has not seen it predicts.

A label's doubt is 1 less the normalised margin, (1 + p_given - max p_other) / 2, and a label is
probably wrong by the off-diagonal of the confident joint: another class is predicted with at least
the mean probability that it has on pictures which the table gives it to. Where several labels may
hold at once, each is a question of two classes of its own. A score's doubt is its error in units of
the usual error of pictures with such a predicted score.

Source: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
JAIR 70, 2021, sections 3.1 and 3.2; for several labels at once Thyagarajan et al., "Identifying
Incorrect Annotations in Multi-Label Classification Data", 2022.

Shape suffixes: N pictures, K classes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beholder.errors import DataError
from beholder.metrics.conformal import FOLDS, equal_weights, error_curve

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]

USUAL = 0.5  # share of the errors that the usual one is not below: mistakes hardly move the median
LEAST_USUAL = 0.1  # of the mean error, where most errors are 0
FAR = 6.0  # usual errors from which on a score is probably wrong: 4 deviations of normal ones
TIE = 1e-6  # that a probability may lack to the mean of its class


def label_doubt(probability_NK: ArrayLike, given_N: ArrayLike) -> Vector:
    """Doubt [N] of labels, 0 to 1, higher is more doubtful; above 0.5 another one is more probable.

    Args:
        probability_NK: of every class, from what has not seen the picture.
        given_N: class indices of the table's labels.

    Raises:
        DataError: fewer than two classes, or an index that is none.
    """
    probabilities, given = _checked(probability_NK, given_N)
    others = probabilities.copy()
    others[np.arange(len(given)), given] = -np.inf
    return 0.5 * (1.0 - probabilities[np.arange(len(given)), given] + others.max(axis=1))


def probably_wrong(probability_NK: ArrayLike, given_N: ArrayLike) -> Mask:
    """Which labels [N] are off the diagonal of the confident joint.

    Args:
        probability_NK, given_N: as for `label_doubt`.

    Raises:
        DataError: as `label_doubt`.
    """
    probabilities, given = _checked(probability_NK, given_N)
    confident_NK = np.zeros(probabilities.shape)
    for label in np.unique(given):
        threshold = probabilities[given == label, label].mean()
        is_confident = probabilities[:, label] >= threshold - TIE
        confident_NK[is_confident, label] = probabilities[is_confident, label]
    guessed = confident_NK.argmax(axis=1)
    is_counted = confident_NK.max(axis=1) > 0.0
    return is_counted & (guessed != given) & (probabilities.argmax(axis=1) != given)


def several_labels_doubt(probability_NK: ArrayLike, holds_NK: ArrayLike) -> Vector:
    """Doubt [N, K] of each label of an attribute of which several may hold, 0 to 1: the
    probability that it is not as the table says.

    Args:
        probability_NK: that each label holds, from what has not seen the picture.
        holds_NK: whether the table says that it does.
    """
    probabilities, holds = np.asarray(probability_NK, np.float64), np.asarray(holds_NK, bool)
    return np.where(holds, 1.0 - probabilities, probabilities)


def several_probably_wrong(probability_NK: ArrayLike, holds_NK: ArrayLike) -> Mask:
    """Which labels [N, K] of an attribute of which several may hold are probably wrong, each by a
    confident joint of its own.

    Args:
        probability_NK, holds_NK: as for `several_labels_doubt`.
    """
    probabilities, holds = np.asarray(probability_NK, np.float64), np.asarray(holds_NK, bool)
    columns = [
        probably_wrong(np.stack([1.0 - column_N, column_N], axis=1), holds_N.astype(np.int64))
        for column_N, holds_N in zip(probabilities.T, holds.T, strict=True)
    ]
    return np.stack(columns, axis=1)


def score_doubt(
    target_N: ArrayLike, predicted_N: ArrayLike, groups_N: Sequence[Hashable]
) -> Vector:
    """Doubt [N] of scores, 0 or more: the error in units of the median error of pictures with such
    a predicted score in other groups (`conformal.error_curve`); from 6 on it is probably wrong.

    Args:
        target_N: the table's scores, finite.
        predicted_N: by what has not seen the picture's group.
        groups_N: what each picture belongs to; all groups weigh the same.
    """
    target, predicted = np.asarray(target_N, np.float64), np.asarray(predicted_N, np.float64)
    error_N = np.abs(target - predicted)
    if not error_N.any():
        return error_N
    weight_N, group_N = equal_weights(groups_N)
    fold_N = group_N % FOLDS
    usual_N = np.full(len(error_N), np.median(error_N))
    for fold in np.unique(fold_N) if fold_N.any() else ():  # a slip is not its own measure
        held, rest = fold_N == fold, fold_N != fold
        groups = len(np.unique(group_N[rest]))
        curve = error_curve(predicted[rest], error_N[rest], weight_N[rest], groups, USUAL)
        usual_N[held] = np.interp(predicted[held], *curve)
    return np.asarray(error_N / np.maximum(usual_N, LEAST_USUAL * error_N.mean()))


def _checked(probability_NK: ArrayLike, given_N: ArrayLike) -> tuple[Vector, NDArray[np.int64]]:
    probabilities, given = np.asarray(probability_NK, np.float64), np.asarray(given_N, np.int64)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2 or len(probabilities) != len(given):
        raise DataError(
            f"Probabilities of shape {probabilities.shape} are not of two classes or more, for "
            f"each of {len(given)} labels."
        )
    if len(given) and not (given.min() >= 0 and given.max() < probabilities.shape[1]):
        raise DataError(f"Class indices must be within 0 to {probabilities.shape[1] - 1}.")
    return probabilities, given
