"""Labels of which several may hold at once, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_recall_fscore_support,
)

from beholder.errors import DataError
from beholder.metrics.multi_label import (
    FEWEST_POSITIVES,
    average_precision,
    best_threshold,
    best_thresholds,
    score_multi_label,
)

LABELS = ("blur", "dark", "noise")


def drawn(seed: int, pictures: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Targets and probabilities that have something to do with them, many of them equal."""
    rng = np.random.default_rng(seed)
    target_BK = rng.random((pictures, 3)) < [0.5, 0.2, 0.4]
    noisy_BK = 0.3 * target_BK + rng.random((pictures, 3)) * 0.7
    return target_BK.astype(float), noisy_BK.round(1)


@pytest.mark.parametrize("seed", range(5))
def test_figures_are_scikit_learns(seed: int) -> None:
    target_BK, sure_BK = drawn(seed)
    thresholds = best_thresholds(target_BK, sure_BK)
    said_BK = sure_BK >= thresholds
    scores = score_multi_label(target_BK, said_BK, sure_BK, LABELS, thresholds)
    precision, recall, f1, support = precision_recall_fscore_support(target_BK, said_BK)
    assert scores.precision == pytest.approx(precision)
    assert scores.recall == pytest.approx(recall)
    assert scores.f1 == pytest.approx(f1)
    assert scores.support == tuple(support)
    assert scores.macro_f1 == pytest.approx(f1_score(target_BK, said_BK, average="macro"))
    assert scores.micro_f1 == pytest.approx(f1_score(target_BK, said_BK, average="micro"))
    expected = average_precision_score(target_BK, sure_BK, average="macro")
    assert scores.mean_average_precision == pytest.approx(expected)
    assert scores.exact == pytest.approx(accuracy_score(target_BK, said_BK))
    assert scores.right == pytest.approx((target_BK == said_BK).mean())


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=40))
def test_average_precision_is_scikit_learns(rows: list[tuple[bool, int]]) -> None:
    target_B, score_B = (np.array(values) for values in zip(*rows, strict=True))
    value = average_precision(target_B, score_B)
    if target_B.any():
        assert value == pytest.approx(average_precision_score(target_B, score_B))
    else:
        assert value is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1, width=32)), min_size=12, max_size=40))
def test_no_threshold_has_a_higher_f1(rows: list[tuple[bool, float]]) -> None:
    target_B, sure_B = (np.array(values) for values in zip(*rows, strict=True))
    chosen = best_threshold(target_B, sure_B)
    assert 0.0 <= chosen <= 1.0
    if min(target_B.sum(), (~target_B).sum()) < FEWEST_POSITIVES:
        assert chosen == 0.5
        return
    best = max(f1_score(target_B, sure_B >= value) for value in {0.0, *sure_B.tolist()})
    assert f1_score(target_B, sure_B >= chosen) == pytest.approx(best)


def test_a_threshold_lies_between_pictures_and_near_the_middle() -> None:
    target_B = np.repeat([False, True], 6)
    assert best_threshold(target_B, np.linspace(0.2, 0.7, 12)) == pytest.approx(0.45, abs=0.03)
    assert best_threshold(target_B, np.repeat([0.1, 0.9], 6)) == 0.5
    assert best_threshold(target_B, np.repeat([0.1, 0.3], 6)) == pytest.approx(0.2)


def test_the_same_of_every_picture_is_what_the_constants_say() -> None:
    target_BK, _ = drawn(3)
    share_K = target_BK.mean(axis=0)
    constant_BK = np.tile(share_K, (len(target_BK), 1))
    scores = score_multi_label(target_BK, constant_BK > 0.5, constant_BK, LABELS)
    assert scores.mean_average_precision == pytest.approx(scores.constant_precision)
    assert scores.right == pytest.approx(scores.constant_right)


def test_what_nobody_knows_counts_nowhere() -> None:
    target_BK, sure_BK = drawn(1)
    unknown_BK = np.vstack([target_BK, np.full((4, 3), np.nan)])
    further_BK = np.vstack([sure_BK, np.ones((4, 3))])
    whole = score_multi_label(unknown_BK, further_BK > 0.5, further_BK, LABELS)
    assert whole == score_multi_label(target_BK, sure_BK > 0.5, sure_BK, LABELS)
    nothing = score_multi_label(unknown_BK[-4:], further_BK[-4:] > 0.5, further_BK[-4:], LABELS)
    assert nothing.macro_f1 is nothing.mean_average_precision is nothing.right is None
    with pytest.raises(DataError, match="shapes"):
        score_multi_label(target_BK, sure_BK, sure_BK[:, :2], LABELS)


def test_a_label_that_nobody_has_is_left_out_of_the_means() -> None:
    target_BK, sure_BK = drawn(2)
    target_BK[:, 1] = 0
    scores = score_multi_label(target_BK, sure_BK > 0.5, sure_BK, LABELS)
    assert scores.f1[1] is scores.average_precision[1] is scores.precision[1] is None
    assert scores.macro_f1 == pytest.approx((scores.f1[0] + scores.f1[2]) / 2)  # type: ignore[operator]
