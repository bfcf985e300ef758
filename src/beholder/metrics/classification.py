"""Attributes: top-1, average class-specific accuracy, macro-F1, calibration error, confusion.

A label is a class index; -1 stands for a missing label, which no metric counts. A class without
labelled pictures has no accuracy and no F1: None ("n/a"), never 0 or NaN, and it is left out of the
means over classes. With no labelled picture at all every metric is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beholder.errors import DataError

UNLABELLED = -1
NOT_AVAILABLE = "n/a"


@dataclass(frozen=True)
class ReliabilityBin:
    """Labelled pictures whose confidence is in (low, high]: how many, their mean confidence, and
    the share of them that is predicted correctly; both None in an empty bin."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class AttributeScores:
    """How well one attribute is predicted. Fractions of 1; None where there is no support.

    Args:
        classes: class labels in index order.
        confusion: pictures, one row per true class, one column per predicted class.
        support: labelled pictures per class.
        top1: share of labelled pictures predicted correctly.
        acsa: mean over classes with support of the share predicted correctly.
        macro_f1: mean over classes with support of F1.
        ece: expected calibration error; None also when no probabilities were given.
        majority: top-1 of always predicting the most frequent class.
        accuracy_per_class, f1_per_class: label -> value, None without support. The former is
            the recall.
        precision_per_class: label -> share of the pictures predicted as the class that are of it;
            None without support, and where nothing was predicted as the class.
        reliability: the bins of the calibration error; empty without probabilities.
    """

    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    support: tuple[int, ...]
    top1: float | None
    acsa: float | None
    macro_f1: float | None
    ece: float | None
    majority: float | None
    accuracy_per_class: dict[str, float | None]
    precision_per_class: dict[str, float | None]
    f1_per_class: dict[str, float | None]
    reliability: tuple[ReliabilityBin, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values; what is not available is null."""
        values = asdict(self)
        lists = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
        return {**values, **lists, "confusion": [list(row) for row in self.confusion]}


def score_attribute(
    target: ArrayLike,
    predicted: ArrayLike,
    classes: Sequence[str],
    probabilities: ArrayLike | None = None,
) -> AttributeScores:
    """All metrics of one attribute.

    Args:
        target: true class indices [B], -1 where the picture has no label.
        predicted: predicted class indices [B].
        classes: class labels in index order.
        probabilities: [B, K] of all classes, or [B] of the predicted one, 0 to 1; for the
            calibration error.

    Raises:
        DataError: shapes differ, or an index is not a class.
    """
    matrix = confusion(target, predicted, len(classes))
    support = matrix.sum(axis=1)
    accuracies = class_accuracies(matrix)
    f1 = class_f1(matrix)
    total = int(support.sum())
    calibration: tuple[ReliabilityBin, ...] = ()
    if probabilities is not None:
        calibration = tuple(reliability(target, predicted, probabilities))
    return AttributeScores(
        classes=tuple(classes),
        confusion=tuple(tuple(row) for row in matrix.tolist()),
        support=tuple(support.tolist()),
        top1=top1(matrix),
        acsa=_mean(accuracies),
        macro_f1=_mean(f1),
        ece=calibration_error(calibration),
        majority=int(support.max()) / total if total else None,
        accuracy_per_class=dict(zip(classes, accuracies, strict=True)),
        precision_per_class=dict(zip(classes, class_precisions(matrix), strict=True)),
        f1_per_class=dict(zip(classes, f1, strict=True)),
        reliability=calibration,
    )


def confusion(target: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Pictures by true (row) and predicted (column) class [K, K]; unlabelled ones left out.

    Raises:
        DataError: shapes differ, or an index is not a class.
    """
    true, guess = _labels(target, predicted)
    outside = (true >= classes) | (true < UNLABELLED) | (guess >= classes) | (guess < 0)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"Class index outside 0 to {classes - 1}: "
            f"target {int(true[row])}, predicted {int(guess[row])}.",
            where=f"row {row}",
        )
    labelled = true != UNLABELLED
    flat = true[labelled] * classes + guess[labelled]
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def top1(matrix: NDArray[np.int64]) -> float | None:
    """Correct / labelled pictures of a confusion matrix, 0 to 1, higher is better."""
    total = int(matrix.sum())
    return int(np.trace(matrix)) / total if total else None


def acsa(matrix: NDArray[np.int64]) -> float | None:
    """Mean accuracy of the classes with support, 0 to 1, higher is better."""
    return _mean(class_accuracies(matrix))


def macro_f1(matrix: NDArray[np.int64]) -> float | None:
    """Mean F1 of the classes with support, 0 to 1, higher is better."""
    return _mean(class_f1(matrix))


def class_accuracies(matrix: NDArray[np.int64]) -> list[float | None]:
    """Correct / labelled pictures of each class; None without support."""
    support = matrix.sum(axis=1)
    return _ratios(np.diag(matrix), support, support)


def class_precisions(matrix: NDArray[np.int64]) -> list[float | None]:
    """Correct pictures / pictures predicted as the class, for each class; None without support or
    without such a prediction."""
    return _ratios(np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1))


def class_f1(matrix: NDArray[np.int64]) -> list[float | None]:
    """F1 of each class, 2 TP / (2 TP + FP + FN); None without support."""
    support = matrix.sum(axis=1)
    return _ratios(2 * np.diag(matrix), support + matrix.sum(axis=0), support)


def ece(
    target: ArrayLike, predicted: ArrayLike, probabilities: ArrayLike, bins: int = 15
) -> float | None:
    """Expected calibration error (Guo et al., ICML 2017), 0 to 1, lower is better.

    Confidence is the probability of the predicted class; bin k of `bins` is (k/bins, (k+1)/bins].

    Raises:
        DataError: shapes differ, or a probability is not within 0 to 1.
    """
    return calibration_error(reliability(target, predicted, probabilities, bins))


def calibration_error(bins: Sequence[ReliabilityBin]) -> float | None:
    """Mean distance of confidence and accuracy over the pictures in the bins; None without any."""
    total = sum(bin_.count for bin_ in bins)
    gaps = [
        bin_.count * abs(bin_.accuracy - bin_.confidence)
        for bin_ in bins
        if bin_.accuracy is not None and bin_.confidence is not None
    ]
    return sum(gaps) / total if total else None


def reliability(
    target: ArrayLike, predicted: ArrayLike, probabilities: ArrayLike, bins: int = 15
) -> list[ReliabilityBin]:
    """The reliability diagram: equal-width bins of confidence, as `ece` says.

    Raises:
        DataError: shapes differ, or a probability is not within 0 to 1.
    """
    true, guess = _labels(target, predicted)
    values = np.asarray(probabilities, dtype=np.float64)
    if values.shape[:1] != true.shape or values.ndim > 2:
        raise DataError(f"Probabilities of shape {values.shape} for {true.size} pictures.")
    confidence = values if values.ndim == 1 else values[np.arange(true.size), guess]
    labelled = true != UNLABELLED
    confidence = confidence[labelled]
    # a softmax in float32 may pass 1 by rounding
    if not ((confidence >= -1e-6) & (confidence <= 1 + 1e-6)).all():
        raise DataError("Probabilities must be within 0 to 1.")
    hit = (true == guess)[labelled]
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins).tolist()
    sure = np.bincount(bin_of, weights=confidence, minlength=bins).tolist()
    right = np.bincount(bin_of, weights=hit, minlength=bins).tolist()
    return [
        ReliabilityBin(
            index / bins,
            (index + 1) / bins,
            count,
            confidence=sure[index] / count if count else None,
            accuracy=right[index] / count if count else None,
        )
        for index, count in enumerate(counts)
    ]


def mean_top1(attributes: Mapping[str, AttributeScores]) -> float | None:
    """Mean of top-1 over attributes (the challenge's score); None if none has support."""
    return _mean([scores.top1 for scores in attributes.values()])


def mean_acsa(attributes: Mapping[str, AttributeScores]) -> float | None:
    """Mean of the average class-specific accuracy over attributes; None if none has support."""
    return _mean([scores.acsa for scores in attributes.values()])


def show(value: float | None, digits: int = 4) -> str:
    """A metric for people: "n/a" where there was no support."""
    return NOT_AVAILABLE if value is None else f"{value:.{digits}f}"


def _labels(target: ArrayLike, predicted: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    true = np.asarray(target, dtype=np.int64)
    guess = np.asarray(predicted, dtype=np.int64)
    if true.ndim != 1 or true.shape != guess.shape:
        raise DataError(
            f"Target and predicted classes must be two lists of the same length, "
            f"not of shapes {true.shape} and {guess.shape}."
        )
    return true, guess


def _ratios(
    part: NDArray[np.int64], whole: NDArray[np.int64], support: NDArray[np.int64]
) -> list[float | None]:
    """part / whole of each class; None without support, or where the whole is nothing."""
    rows = zip(part.tolist(), whole.tolist(), support.tolist(), strict=True)
    return [share / total if total and count else None for share, total, count in rows]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
