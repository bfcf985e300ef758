"""The sentences at the end: what is good is said with its figure, and what is not as well."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from beholder.auto.run_insights import CrossValidated, LearningCurve, Weakest
from beholder.auto.search import Candidate, Standing
from beholder.auto.summary import more_raters, nothing_held_out, sentences
from beholder.data.annotations import RATINGS_TYPE, AnnotationTable
from beholder.features.config import BackboneConfig
from beholder.metrics.correlation import Interval, srcc

TABLE = AnnotationTable.from_columns(
    ["a", "b", "c", "d"],
    score=[2.0, 4.0, 1.0, 5.0],
    split=["train", "train", "test", "test"],
)


def entry(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def raters_of_noise(noise: float) -> AnnotationTable:
    """Sixty pictures, half of them held out, with three ratings each."""
    generator = np.random.default_rng(0)
    rated = generator.uniform(1.0, 2.0, (60, 1)) + generator.normal(0.0, noise, (60, 3))
    keys = [f"{row}.png" for row in range(60)]
    ratings = [[{"rater": f"r{k}", "score": s} for k, s in enumerate(row)] for row in rated]
    table = AnnotationTable.from_columns(
        keys, score=rated.mean(axis=1).tolist(), split=["train", "test"] * 30
    )
    column = pl.Series("ratings", ratings, dtype=RATINGS_TYPE)
    return table.with_frame(table.frame.with_columns(column))


def summary_of(
    metrics: dict[str, Any], groups: int = 20, table: AnnotationTable = TABLE, **further: Any
) -> str:
    whole = {"counts": {"pictures": 2, "failed": 0}, **metrics}
    facts = {"neighbour_cider": None, "curves": {}, **further}
    return "\n".join(sentences(whole, table, test_groups=groups, **facts))


def test_scores_beside_a_constant() -> None:
    text = summary_of({"score": {"srcc": entry(0.8), "rmse": entry(0.5)}})
    # always 3: the errors are -2 and 2
    assert "SRCC 0.80 (95 %: 0.70 to 0.90)" in text
    assert "off by 0.50 (RMSE), always saying 3.00 by 2.00" in text
    assert "no better" not in text
    assert "do not use them yet" in summary_of({"score": {"srcc": entry(0.1), "rmse": entry(2.5)}})


def test_cross_validation_has_the_last_word() -> None:
    metrics = {"score": {"srcc": entry(0.8), "rmse": entry(2.5)}}
    good = CrossValidated(40, 8, 0.7, 0.6, 1.1)
    text = summary_of(metrics, crossed=good)
    assert "their 8 groups at a time: SRCC 0.70, off by 0.60" in text
    assert "do not use" not in text and "trust their order" not in text
    assert "trust their order" in summary_of(metrics, crossed=CrossValidated(40, 8, 0.7, 1.2, 1.1))


def test_few_groups_are_a_first_impression() -> None:
    assert "first impression" in summary_of({}, groups=3)
    assert "of one group." in summary_of({}, groups=1)
    assert "first impression" not in summary_of({}, groups=10)


def test_labels_beside_the_most_frequent_class() -> None:
    attributes = {
        "kind": {"top1": 0.9, "majority": 0.4},
        "style": {"top1": 0.5, "majority": 0.5},
        "empty": {"top1": None, "majority": None},
    }
    text = summary_of({"attributes": attributes})
    assert "kind: 90% right; the most frequent class alone would be 40%." in text
    assert "style: 50% right; the most frequent class alone would be 50%: no better" in text
    assert "empty" not in text


def test_comments_beside_copied_ones() -> None:
    metrics = {"comments": {"CIDEr-D": 0.4}}
    assert "does not beat that yet" in summary_of(metrics, neighbour_cider=0.5)
    assert "does not beat that yet" not in summary_of(metrics, neighbour_cider=0.3)


def test_what_would_help() -> None:
    rising, flat = LearningCurve(0.3, 0.5, 0.6), LearningCurve(0.88, 0.90, 0.91)
    text = summary_of({}, curves={"the score": rising, "kind": flat})
    assert (
        "More pictures would help most: the score was told with 0.30 from a quarter of them, 0.50 "
        "from half and 0.60 from all" in text
    )
    assert "twice as many may add about 0.05." in text, "half of what the last doubling brought"
    assert "would help little: kind was told" in summary_of({}, curves={"kind": flat})
    assert "More pictures" not in summary_of({})
    weak = Weakest("kind", "blur", 30, 0.9, 0.5)
    assert "where kind is blur (30 pictures) scores are off by 0.90" in summary_of({}, weakest=weak)


def test_a_doubling_brings_no_more_than_the_one_before() -> None:
    assert LearningCurve(0.5, 0.55, 0.7).doubled == pytest.approx(0.15)
    assert LearningCurve(0.3, 0.5, 0.6).doubled == pytest.approx(0.05)
    assert LearningCurve(0.6, 0.5, 0.6).doubled == pytest.approx(0.1)
    assert LearningCurve(None, 0.5, 0.6).doubled == pytest.approx(0.1)
    assert LearningCurve(0.6, 0.5, 0.4).doubled == 0.0


def test_more_raters_are_worth_what_simulated_ones_are() -> None:
    generator = np.random.default_rng(0)
    quality_N = generator.normal(size=40_000)
    judged_N = quality_N + generator.normal(size=40_000)
    # three raters, and six, with twice the deviation of the qualities each
    means = [
        quality_N + generator.normal(0.0, 2.0, (count, 40_000)).mean(axis=0) for count in (3, 6)
    ]
    three, six = (srcc(judged_N, mean_N) for mean_N in means)
    ceiling = Interval(srcc(quality_N, means[0]), 0.0, 1.0)
    gain = more_raters(three, ceiling)
    assert gain is not None and six - three > 0.05
    assert gain == pytest.approx(six - three, abs=0.01)
    assert more_raters(three, None) is None and more_raters(None, ceiling) is None


def test_raters_and_pictures_are_compared() -> None:
    ratings = raters_of_noise(0.4)
    metrics = {"score": {"srcc": entry(0.5), "rmse": entry(0.5)}}
    text = summary_of(metrics, table=ratings, curves={"the score": LearningCurve(0.4, 0.5, 0.51)})
    assert "More raters per picture would help most: twice as many would add about 0.0" in text
    text = summary_of(metrics, table=ratings, curves={"the score": LearningCurve(0.1, 0.3, 0.5)})
    assert "More pictures would help most" in text and "; twice as many raters per picture" in text


def test_without_held_out_pictures_that_is_said() -> None:
    candidate = Candidate("details", BackboneConfig(name="efficientnet-lite0"))
    (line,) = nothing_held_out(Standing(candidate, 0.5, {"score": 0.52}, 0.0, 1.0, 40))
    assert "nothing is known" in line and "score 0.52" in line
