"""How much of an opinion a set of features tells, by cross-validation with groups kept apart.

Linear models in closed form stand for the heads: what is compared is features, in a second each.

Legend: N pictures, P features of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from beholder.auto.out_of_fold import ALPHAS, Features, Folds, out_of_fold_scores, standardised
from beholder.metrics.captions import evaluate_captions
from beholder.metrics.correlation import srcc
from beholder.metrics.multi_label import average_precision

POWERS = (0.0, 0.5, 1.0)  # of class weights, count^-power
MOST_ATTRIBUTES = 10  # that are looked at, the table's first ones: each takes seconds


def score_skill(
    features_NP: Features,
    scores_N: NDArray[np.float64],
    folds_N: Folds,
    usable_N: NDArray[np.bool_] | None = None,
) -> float:
    """SRCC, -1 to 1, of scores with a ridge's predictions of folds that it has not learnt from; 0
    where it is undefined.

    Args:
        usable_N: rows that may be learnt from; None: all.
    """
    predicted_N = out_of_fold_scores(features_NP, scores_N, folds_N, usable_N)
    if predicted_N is None:
        return 0.0
    value = srcc(scores_N, predicted_N)
    return float(value) if np.isfinite(value) else 0.0


def attribute_skill(
    features_NP: Features,
    labels_N: Sequence[str],
    folds_N: Folds,
    usable_N: NDArray[np.bool_] | None = None,
    powers: Sequence[float] = POWERS,
) -> tuple[float, float]:
    """How many of the majority class's errors a linear classifier avoids, and with which weights.

    Args:
        usable_N: rows that may be learnt from; None: all.
        powers: of class weights, to try.

    Returns:
        (accuracy - majority) / (1 - majority), at most 1, of the best power; and the power of
        class weights, count^-power, that it is best with: the smallest of equally good ones.
    """
    from sklearn.linear_model import RidgeClassifierCV

    truth_N = np.asarray(labels_N)
    classes, index_N, counts_K = np.unique(truth_N, return_inverse=True, return_counts=True)
    majority = counts_K.max() / len(truth_N)
    if len(classes) < 2:
        return 0.0, 0.0
    usable_N = np.ones(len(truth_N), bool) if usable_N is None else usable_N
    right = dict.fromkeys(powers, 0)
    for fold in np.unique(folds_N):
        held_N, learnt_N = folds_N == fold, (folds_N != fold) & usable_N
        known = np.unique(index_N[learnt_N])
        if len(known) < 2:
            for power in powers:
                right[power] += int(np.isin(index_N[held_N], known).sum())
            continue
        inputs_NP = standardised(features_NP, learnt_N)
        for power in powers:
            weights_N = counts_K[index_N[learnt_N]] ** -power
            model = RidgeClassifierCV(ALPHAS)
            model.fit(inputs_NP[learnt_N], index_N[learnt_N], sample_weight=weights_N)
            right[power] += int((model.predict(inputs_NP[held_N]) == index_N[held_N]).sum())
    best = max(powers, key=lambda power: (right[power], -power))
    return float((right[best] / len(truth_N) - majority) / (1 - majority)), best


def multi_label_skill(
    features_NP: Features,
    labels_N: Sequence[Sequence[str]],
    folds_N: Folds,
    usable_N: NDArray[np.bool_] | None = None,
    powers: Sequence[float] = POWERS,
) -> tuple[float, float]:
    """How far above chance linear classifiers rank, for each of several labels that may hold at
    once, pictures that have it, and with which weights.

    Args:
        usable_N: rows that may be learnt from; None: all.
        powers: of class weights, to try.

    Returns:
        The mean over labels of (average precision - share) / (1 - share), where share is of the
        pictures that have the label: 0 of saying the same of every picture, at most 1; and the
        power of class weights, count^-power, that it is best with: the smallest of equally good
        ones.
    """
    from sklearn.linear_model import RidgeClassifierCV

    names = sorted({label for labels in labels_N for label in labels})
    target_NK = np.array([[name in labels for name in names] for labels in labels_N])
    names_K = [k for k in range(len(names)) if 0 < target_NK[:, k].sum() < len(target_NK)]
    if not names_K:
        return 0.0, 0.0
    target_NK = target_NK[:, names_K]
    usable_N = np.ones(len(target_NK), bool) if usable_N is None else usable_N
    ranks = {power: np.zeros(target_NK.shape) for power in powers}
    for fold in np.unique(folds_N):
        held_N, learnt_N = folds_N == fold, (folds_N != fold) & usable_N
        inputs_NP = standardised(features_NP, learnt_N) if learnt_N.any() else features_NP
        for index, target_N in enumerate(target_NK.T):
            counts = np.bincount(target_N[learnt_N], minlength=2).astype(float)
            if not counts.all():
                continue
            for power in powers:
                model = RidgeClassifierCV(ALPHAS)
                weights_N = counts[target_N[learnt_N].astype(int)] ** -power
                model.fit(inputs_NP[learnt_N], target_N[learnt_N], sample_weight=weights_N)
                ranks[power][held_N, index] = model.decision_function(inputs_NP[held_N])
    skills = {power: _above_chance(target_NK, ranks_NK) for power, ranks_NK in ranks.items()}
    best = max(powers, key=lambda power: (round(skills[power], 6), -power))
    return skills[best], best


def _above_chance(target_NK: NDArray[np.bool_], ranks_NK: Features) -> float:
    values = []
    for target_N, ranks_N in zip(target_NK.T, ranks_NK.T, strict=True):
        precision, share = average_precision(target_N, ranks_N), target_N.mean()
        assert precision is not None, "some pictures have the label"
        values.append((precision - share) / (1 - share))
    return float(np.mean(values))


def comment_skill(
    features_NP: Features, comments_N: Sequence[Sequence[str]], folds_N: Folds
) -> float:
    """CIDEr-D of the nearest neighbour's first comment, from the folds that a picture is not in: a
    baseline for a captioner, and a measure of what features tell."""
    return neighbour_cider(
        features_NP, comments_N, [(folds_N != fold, folds_N == fold) for fold in np.unique(folds_N)]
    )


def neighbour_cider(
    features_NP: Features,
    comments_N: Sequence[Sequence[str]],
    parts: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]],
) -> float:
    """CIDEr-D of copying the first comment of the most similar picture.

    Args:
        parts: for each the pictures to copy from, and those to find a comment for [N].
    """
    references: dict[str, Sequence[str]] = {}
    hypotheses: dict[str, str] = {}
    for learnt_N, held_N in parts:
        inputs_NP = standardised(features_NP, learnt_N)
        known = np.flatnonzero(learnt_N)
        for row in np.flatnonzero(held_N):
            distances = np.square(inputs_NP[known] - inputs_NP[row]).sum(axis=1)
            references[str(row)] = comments_N[int(row)]
            hypotheses[str(row)] = comments_N[int(known[distances.argmin()])][0]
    if len(references) < 2:
        return 0.0
    return float(evaluate_captions(references, hypotheses, metrics=("CIDEr-D",)).corpus["CIDEr-D"])
