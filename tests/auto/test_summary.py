"""The sentences at the end: what is good is said with its figure, and what is not as well."""

from __future__ import annotations

from typing import Any

from beholder.auto.run_insights import CrossValidated
from beholder.auto.search import Candidate, Standing
from beholder.auto.summary import nothing_held_out, sentences
from beholder.data.annotations import AnnotationTable
from beholder.features.config import BackboneConfig

TABLE = AnnotationTable.from_columns(
    ["a", "b", "c", "d"],
    score=[2.0, 4.0, 1.0, 5.0],
    split=["train", "train", "test", "test"],
)


def entry(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def summary_of(metrics: dict[str, Any], groups: int = 20, **further: Any) -> str:
    whole = {"counts": {"pictures": 2, "failed": 0}, **metrics}
    facts = {"neighbour_cider": None, "halved": {}, **further}
    return "\n".join(sentences(whole, TABLE, test_groups=groups, **facts))


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
    text = summary_of({}, halved={"the score": (0.5, 0.6), "kind": (0.9, 0.91)})
    assert "More pictures would help most: with half of them the score was told with 0.50" in text
    assert "would help little" in summary_of({}, halved={"kind": (0.9, 0.91)})


def test_without_held_out_pictures_that_is_said() -> None:
    candidate = Candidate("details", BackboneConfig(name="efficientnet-lite0"))
    (line,) = nothing_held_out(Standing(candidate, 0.5, {"score": 0.52}, 0.0, 1.0, 40))
    assert "nothing is known" in line and "score 0.52" in line
