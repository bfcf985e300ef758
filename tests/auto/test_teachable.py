"""What a table can teach: each opinion by itself, and sentences on what is left out."""

from __future__ import annotations

import pytest

from beholder.auto.teachable import find_opinions
from beholder.data.annotations import AnnotationTable
from beholder.errors import DataError

KEYS = [f"{number:02}.png" for number in range(12)]
SCORES = [1.0 + number / 4 for number in range(12)]
LABELS = ["hat", "shoe"] * 6
COMMENTS = [["a picture"]] * 12


def test_all_that_there_is() -> None:
    table = AnnotationTable.from_columns(
        KEYS, score=SCORES, comments=COMMENTS, attributes={"kind": LABELS}
    )
    teachable = find_opinions(table)
    assert teachable.opinions == ("score", "attributes", "comments")
    assert teachable.notes == ()


@pytest.mark.parametrize(
    ("columns", "opinion"),
    [
        ({"score": SCORES}, "score"),
        ({"attributes": {"kind": LABELS}}, "attributes"),
        ({"comments": COMMENTS}, "comments"),
    ],
)
def test_one_kind_alone(columns: dict[str, object], opinion: str) -> None:
    assert find_opinions(AnnotationTable.from_columns(KEYS, **columns)).opinions == (opinion,)


def test_what_teaches_nothing_is_left_out_and_told() -> None:
    table = AnnotationTable.from_columns(
        KEYS, score=[3.0] * 12, comments=[["one"]] * 3 + [[]] * 9, attributes={"kind": LABELS}
    )
    teachable = find_opinions(table)
    assert teachable.opinions == ("attributes",)
    assert teachable.notes == (
        "all 12 scores are 3",
        "3 pictures with a comment are too few, 8 are the least",
    )


def test_nothing_at_all_says_why_for_each() -> None:
    table = AnnotationTable.from_columns(KEYS, attributes={"kind": ["hat"] * 12})
    with pytest.raises(DataError) as caught:
        find_opinions(table)
    for reason in ("no scores", "kind is always 'hat'", "no comments"):
        assert reason in caught.value.what


def test_what_is_asked_for_alone_must_be_there() -> None:
    table = AnnotationTable.from_columns(KEYS, score=SCORES, comments=COMMENTS)
    assert find_opinions(table, ["comments"]).opinions == ("comments",)
    with pytest.raises(DataError, match="no labels"):
        find_opinions(table, ["score", "attributes"])


def test_rare_classes_are_named() -> None:
    table = AnnotationTable.from_columns(KEYS, attributes={"kind": ["hat"] * 10 + ["shoe", "sock"]})
    assert find_opinions(table).notes == (
        "classes of 'kind' with fewer than 5 pictures: 'shoe' (1), 'sock' (1)",
    )
