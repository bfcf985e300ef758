"""Attributes of which several labels may hold at once: F1 and average precision of each label,
thresholds, and what saying the same of every picture would get.

Every label is a decision of its own: it holds (1) or not (0). NaN stands for a picture of which
nothing is known, which no metric counts. A label that holds of no picture has neither F1 nor
average precision: None ("n/a"), left out of the means over labels.

Legend: B pictures, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beholder.errors import DataError

THRESHOLD = 0.5  # of a probability, where validation has too few pictures to choose another
FEWEST_POSITIVES = 5  # pictures with a label, and without it, that a threshold is chosen on


@dataclass(frozen=True)
class MultiLabelScores:
    """How well a multi-label attribute is predicted. Fractions of 1; None without support.

    Args:
        labels: in index order.
        pictures: of which the labels are known.
        support: pictures of each label.
        thresholds: of each label's probability, from which on it holds; None: not known.
        precision, recall, f1, average_precision: of each label. Precision is None also where
            nothing was predicted.
        macro_f1: mean F1 over labels with support.
        mean_average_precision: mean over labels with support.
        micro_f1: of all decisions together.
        right: share of all decisions (pictures times labels) that are right.
        exact: share of the pictures of which every decision is right.
        constant_right: `right` of saying of every picture the labels that most have.
        constant_precision: `mean_average_precision` of saying the same of every picture: the mean
            share of pictures that have a label.
    """

    labels: tuple[str, ...]
    pictures: int
    support: tuple[int, ...]
    thresholds: tuple[float, ...] | None
    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]
    f1: tuple[float | None, ...]
    average_precision: tuple[float | None, ...]
    macro_f1: float | None
    mean_average_precision: float | None
    micro_f1: float | None
    right: float | None
    exact: float | None
    constant_right: float | None
    constant_precision: float | None

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values; what is not available is null."""
        per_label = ("support", "precision", "recall", "f1", "average_precision")
        labels = [
            {
                "label": label,
                "threshold": None if self.thresholds is None else self.thresholds[index],
                **{name: getattr(self, name)[index] for name in per_label},
            }
            for index, label in enumerate(self.labels)
        ]
        means = (
            "pictures", "macro_f1", "mean_average_precision", "micro_f1", "right", "exact",
            "constant_right", "constant_precision",
        )  # fmt: skip
        return {"labels": labels, **{name: getattr(self, name) for name in means}}


def score_multi_label(
    target: ArrayLike,
    predicted: ArrayLike,
    probabilities: ArrayLike,
    labels: Sequence[str],
    thresholds: Sequence[float] | None = None,
) -> MultiLabelScores:
    """All metrics of one attribute.

    Args:
        target: [B, K] 0 or 1, rows of NaN where nothing is known.
        predicted: [B, K] 0 or 1, which labels are said to hold.
        probabilities: [B, K], 0 to 1.
        thresholds: that `predicted` was made with, to be told; None: not known.

    Raises:
        DataError: shapes differ.
    """
    target_BK, predicted_BK, sure_BK = (
        np.asarray(values, np.float64) for values in (target, predicted, probabilities)
    )
    shape = (len(target_BK), len(labels))
    if not target_BK.shape == predicted_BK.shape == sure_BK.shape == shape:
        raise DataError(
            f"Targets, labels and probabilities of shapes {target_BK.shape}, {predicted_BK.shape} "
            f"and {sure_BK.shape} for {len(labels)} labels."
        )
    known_B = ~np.isnan(target_BK).any(axis=1)
    true_BK, guess_BK = target_BK[known_B] > 0, predicted_BK[known_B] > 0
    sure_BK = sure_BK[known_B]
    support_K, said_K = true_BK.sum(axis=0), guess_BK.sum(axis=0)
    hits_K = (true_BK & guess_BK).sum(axis=0)
    precisions = [average_precision(true_BK[:, k], sure_BK[:, k]) for k in range(len(labels))]
    f1 = [
        _share(2 * hit, count + said) if count else None
        for hit, count, said in zip(hits_K, support_K, said_K, strict=True)
    ]
    right_BK = true_BK == guess_BK
    share_K = true_BK.mean(axis=0) if len(true_BK) else np.zeros(len(labels))
    return MultiLabelScores(
        labels=tuple(labels),
        pictures=len(true_BK),
        support=tuple(support_K.tolist()),
        thresholds=None if thresholds is None else tuple(map(float, thresholds)),
        precision=tuple(
            _share(hit, said) if count else None
            for hit, said, count in zip(hits_K, said_K, support_K, strict=True)
        ),
        recall=tuple(_share(hit, n) for hit, n in zip(hits_K, support_K, strict=True)),
        f1=tuple(f1),
        average_precision=tuple(precisions),
        macro_f1=mean_known(f1),
        mean_average_precision=mean_known(precisions),
        micro_f1=_share(2 * hits_K.sum(), support_K.sum() + said_K.sum()),
        right=float(right_BK.mean()) if right_BK.size else None,
        exact=float(right_BK.all(axis=1).mean()) if right_BK.size else None,
        constant_right=float(np.maximum(share_K, 1 - share_K).mean()) if right_BK.size else None,
        constant_precision=mean_known([float(share) for share in share_K if share > 0]),
    )


def average_precision(target_B: ArrayLike, score_B: ArrayLike) -> float | None:
    """Area under the curve of precision over recall, as a sum of steps: sum over distinct scores,
    from the highest, of precision times gain of recall. 0 to 1, higher is better; that of equal
    scores is the share of positives. None where there is no positive.

    Source: scikit-learn's `average_precision_score`, of which it gives the values.

    Args:
        target_B: bool or 0 and 1.
        score_B: finite; higher: rather positive.
    """
    target_B, score_B = np.asarray(target_B, bool), np.asarray(score_B, np.float64)
    if not target_B.any():
        return None
    order = np.argsort(-score_B, kind="stable")
    hits_B, last_B = target_B[order].cumsum(), _ends(score_B[order])
    precision = hits_B[last_B] / (last_B + 1)
    recall = hits_B[last_B] / hits_B[-1]
    return float((precision * np.diff(recall, prepend=0.0)).sum())


def best_threshold(
    target_B: ArrayLike, probability_B: ArrayLike, fewest: int = FEWEST_POSITIVES
) -> float:
    """The threshold of a label's probability with the highest F1, halfway between two pictures'
    probabilities; of equally good ones that nearest to 0.5. 0.5 where fewer than `fewest` pictures
    have the label, or fewer do not.

    Args:
        target_B: bool or 0 and 1.
        probability_B: 0 to 1.
    """
    target_B, probability_B = np.asarray(target_B, bool), np.asarray(probability_B, np.float64)
    positives = int(target_B.sum())
    if min(positives, len(target_B) - positives) < fewest:
        return THRESHOLD
    order = np.argsort(-probability_B, kind="stable")
    ranked_B = probability_B[order]
    last_B = _ends(ranked_B)
    f1 = 2 * target_B[order].cumsum()[last_B] / (last_B + 1 + positives)
    # between the last picture that is said to have it and the first that is not
    below = np.append(ranked_B[last_B[:-1] + 1], 0.0)
    thresholds = (ranked_B[last_B] + below) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    # 0.5 itself, where it parts the pictures like one of the best
    if any(below[index] < THRESHOLD <= ranked_B[last_B[index]] for index in best):
        return THRESHOLD
    return float(thresholds[best[np.abs(thresholds[best] - THRESHOLD).argmin()]])


def best_thresholds(target_BK: ArrayLike, probability_BK: ArrayLike) -> NDArray[np.float64]:
    """`best_threshold` of each label [K]; rows of NaN among the targets do not count."""
    target_BK = np.asarray(target_BK, np.float64)
    probability_BK = np.asarray(probability_BK, np.float64)
    known_B = ~np.isnan(target_BK).any(axis=1)
    columns = zip(target_BK[known_B].T, probability_BK[known_B].T, strict=True)
    return np.array([best_threshold(target_B > 0, sure_B) for target_B, sure_B in columns])


def mean_known(values: Sequence[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _ends(ranked_B: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the last ones of equal values."""
    return np.append(np.flatnonzero(np.diff(ranked_B)), len(ranked_B) - 1)


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
