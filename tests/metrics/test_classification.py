"""Metrics of attributes against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beholder.errors import DataError
from beholder.metrics.classification import (
    acsa,
    confusion,
    ece,
    mean_acsa,
    mean_top1,
    reliability,
    score_attribute,
    show,
)

CLASSES = ("casual", "formal", "sport", "home")
LABELS = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(LABELS)
@settings(max_examples=150, deadline=None)
def test_equals_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    true, guess = (np.array(side) for side in zip(*pairs, strict=True))
    scores = score_attribute(true, guess, CLASSES)
    labelled = true >= 0
    if not labelled.any():
        assert scores.top1 is scores.acsa is scores.macro_f1 is scores.majority is None
        return
    true, guess = true[labelled], guess[labelled]
    present = sorted(set(true.tolist()))
    assert scores.top1 == pytest.approx(metrics.accuracy_score(true, guess))
    assert scores.acsa == pytest.approx(
        metrics.recall_score(true, guess, labels=present, average="macro", zero_division=0)
    )
    assert scores.macro_f1 == pytest.approx(
        metrics.f1_score(true, guess, labels=present, average="macro", zero_division=0)
    )
    kept = [CLASSES[index] for index in present]
    expected = metrics.precision_score(
        true, guess, labels=present, average=None, zero_division=np.nan
    )
    precisions = [scores.precision_per_class[label] for label in kept]
    precisions = [np.nan if value is None else value for value in precisions]
    assert precisions == pytest.approx(list(expected), nan_ok=True)
    expected = metrics.recall_score(true, guess, labels=present, average=None)
    assert [scores.accuracy_per_class[label] for label in kept] == pytest.approx(list(expected))
    expected = metrics.confusion_matrix(true, guess, labels=range(4))
    assert np.array_equal(scores.confusion, expected)


def test_no_support_is_not_available() -> None:
    scores = score_attribute([0, 0, 1, -1], [0, 1, 3, 2], CLASSES)
    assert scores.accuracy_per_class == {"casual": 0.5, "formal": 0.0, "sport": None, "home": None}
    assert scores.f1_per_class["home"] is None  # predicted once, never true
    assert scores.precision_per_class == {
        "casual": 1.0, "formal": 0.0, "sport": None, "home": None,
    }  # fmt: skip
    assert scores.acsa == pytest.approx(0.25)
    assert scores.support == (2, 1, 0, 0)
    assert scores.majority == pytest.approx(2 / 3)
    assert show(scores.f1_per_class["home"]) == "n/a"
    assert show(0.25) == "0.2500"
    assert scores.to_dict()["accuracy_per_class"] == scores.accuracy_per_class


def test_calibration_error_by_hand() -> None:
    # bins (0.8, 0.9] and (0.5, 0.6] of ten: |1/2 - 0.85| * 2/3 + |1 - 0.6| * 1/3
    value = ece([0, 0, 1], [0, 1, 1], [0.84, 0.86, 0.6], bins=10)
    assert value == pytest.approx(0.35 * 2 / 3 + 0.4 / 3)
    rows = [[0.84, 0.16], [0.14, 0.86], [0.4, 0.6]]
    assert ece([0, 0, 1], [0, 1, 1], rows, bins=10) == pytest.approx(value)
    assert ece([-1], [0], [0.5]) is None
    assert ece([0, 1], [0, 1], [1.0, 1.0]) == 0.0


def test_reliability_bins_by_hand() -> None:
    bins = reliability([0, 0, 1, -1], [0, 1, 1, 1], [0.84, 0.86, 0.6, 0.3], bins=10)
    assert [bin_.count for bin_ in bins] == [0, 0, 0, 0, 0, 1, 0, 0, 2, 0]
    assert bins[8].accuracy == 0.5
    assert bins[8].confidence == pytest.approx(0.85)
    assert (bins[8].low, bins[8].high) == pytest.approx((0.8, 0.9))
    assert bins[0].accuracy is bins[0].confidence is None
    scores = score_attribute([0, 1], [0, 0], CLASSES, [0.9, 0.7])
    assert scores.ece == pytest.approx(ece([0, 1], [0, 0], [0.9, 0.7]))
    assert scores.to_dict()["reliability"][-2]["count"] == 1
    assert score_attribute([0, 1], [0, 0], CLASSES).ece is None


def test_bad_labels_are_refused() -> None:
    with pytest.raises(DataError, match="row 1"):
        confusion([0, 4], [0, 0], 4)
    with pytest.raises(DataError, match="same length"):
        confusion([0], [0, 1], 4)
    with pytest.raises(DataError, match="0 to 1"):
        ece([0], [0], [1.5])


def test_mean_over_attributes_leaves_out_what_has_no_support() -> None:
    some = score_attribute([0, 1], [0, 0], CLASSES)
    none = score_attribute([-1, -1], [0, 0], CLASSES)
    assert mean_top1({"a": some, "b": none}) == 0.5
    assert mean_top1({"b": none}) is None
    assert mean_acsa({"a": some, "b": none}) == 0.5
    assert mean_acsa({"b": none}) is None
    assert acsa(np.zeros((3, 3), dtype=np.int64)) is None
