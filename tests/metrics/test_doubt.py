"""Doubt of labels and scores: against cleanlab's values, and by what must hold of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from beholder.errors import DataError
from beholder.metrics.doubt import (
    FAR,
    label_doubt,
    probably_wrong,
    score_doubt,
    several_labels_doubt,
    several_probably_wrong,
)

# cleanlab 2.9.0: `get_label_quality_scores(method="normalized_margin")`, and `find_label_issues`
# and `find_multilabel_issues_per_class` with `filter_by="confident_learning"`
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "label_issues.json").read_text())


def test_a_labels_doubt_is_cleanlabs_normalised_margin() -> None:
    doubt_N = label_doubt(GOLDEN["probabilities"], GOLDEN["given"])
    np.testing.assert_allclose(1.0 - doubt_N, GOLDEN["normalised_margin"], atol=1e-12)


def test_wrong_labels_are_those_of_cleanlabs_confident_joint() -> None:
    wrong_N = probably_wrong(GOLDEN["probabilities"], GOLDEN["given"])
    assert np.flatnonzero(wrong_N).tolist() == GOLDEN["issues"] and len(GOLDEN["issues"]) == 5


def test_several_labels_are_judged_one_by_one_as_cleanlab_does() -> None:
    probabilities, holds = GOLDEN["several_probabilities"], GOLDEN["several_holds"]
    wrong_NK = several_probably_wrong(probabilities, holds)
    assert wrong_NK.astype(int).tolist() == GOLDEN["several_issues"] and wrong_NK.sum() == 7
    doubt_NK = several_labels_doubt([[0.9, 0.2]], [[True, True]])
    np.testing.assert_allclose(doubt_NK, [[0.1, 0.8]])


def test_slips_of_the_rater_stand_out_where_errors_differ_in_size() -> None:
    generator = np.random.default_rng(0)
    predicted_N = generator.uniform(0.0, 10.0, 400)
    # errors ten times as large at the top of the scale as at its bottom
    target_N = predicted_N + generator.normal(0.0, 0.05 + 0.05 * predicted_N)
    slips = generator.choice(np.flatnonzero(predicted_N < 4.0), 12, replace=False)
    target_N[slips] += generator.choice([-1.2, 1.2], 12)
    is_slip_N = np.isin(np.arange(400), slips)
    groups = list(range(400))
    doubt_N = score_doubt(target_N, predicted_N, groups)
    plain = average_precision_score(is_slip_N, np.abs(target_N - predicted_N))
    by_doubt = average_precision_score(is_slip_N, doubt_N)
    assert by_doubt > 0.9 > 0.8 > plain
    assert (doubt_N[~is_slip_N] >= FAR).mean() < 0.01
    np.testing.assert_allclose(score_doubt(9 * target_N, 9 * predicted_N, groups), doubt_N)


def test_scores_that_are_met_are_not_doubtful() -> None:
    assert score_doubt([1.0, 2.0], [1.0, 2.0], ["a", "b"]).tolist() == [0.0, 0.0]
    target_N = [1.0] * 9 + [5.0]  # most errors are 0: there is a usual error all the same
    doubt_N = score_doubt(target_N, [1.0] * 10, list(range(10)))
    assert np.isfinite(doubt_N).all() and doubt_N.argmax() == 9


@pytest.mark.parametrize(("shape", "given"), [((2, 1), [0, 0]), ((2, 2), [0, 2]), ((2, 2), [0])])
def test_what_does_not_fit_together_is_refused(shape: tuple[int, int], given: list[int]) -> None:
    with pytest.raises(DataError):
        label_doubt(np.full(shape, 0.5), given)
