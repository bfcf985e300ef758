"""The annotation table: validation, subsets and the way through Parquet."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest
from annotation_tables import small_table, tables
from hypothesis import given, settings

from beholder.data.annotations import COLUMNS, AnnotationTable
from beholder.data.keys import key_problem, make_key
from beholder.errors import DataError


@settings(max_examples=40, deadline=None)
@given(table=tables())
def test_parquet_gives_the_same_table(tmp_path_factory, table: AnnotationTable) -> None:
    path = tmp_path_factory.mktemp("parquet") / "annotations.parquet"
    table.to_parquet(path)
    assert AnnotationTable.from_parquet(path) == table
    assert list(path.parent.iterdir()) == [path]


def test_all_problems_in_one_error() -> None:
    with pytest.raises(DataError) as caught:
        AnnotationTable.from_columns(
            ["../a.jpg", "b.jpg", "b.jpg", "c\\d.jpg", "/e.jpg", "cafe\u0301.jpg"],
            score=[float("nan"), float("inf"), 1, 2, 3, 4],
            raters=[-1, 0, 0, 0, 0, 0],
            score_std=[0, 0, -0.5, 0, 0, 0],
            comments=[[" "], [None], ["fine"], [], [], []],
            box=[[1, 2], [4, 4, 1, 1], [0, 0, 1, float("inf")], None, None, [0, 0, 1, 1]],
            split=["dev", "train", None, "val", "test", None],
            attributes={"style": ["x", "y", None, None, None, None]},
            classes={"style": ["x", "x"]},
        )
    problems = {(problem.code, problem.row) for problem in caught.value.problems}
    assert problems == {
        ("classes", None),
        ("outside_root", 0),
        ("duplicate_key", 2),
        ("not_normal", 3),
        ("outside_root", 4),
        ("not_normal", 5),
        ("not_finite", 0),
        ("not_finite", 1),
        ("raters", 0),
        ("spread", 2),
        ("empty_comment", 0),
        ("empty_comment", 1),
        ("box", 0),
        ("box", 1),
        ("box", 2),
        ("split", 0),
        ("unknown_class", 1),
    }


def test_votes_are_counts_of_every_grade(tmp_path: Path) -> None:
    votes = [[0, 3, 1], None, [2, 0, 0]]
    table = AnnotationTable.from_columns(["a", "b", "c"], votes=votes, rating_bins=[1, 2, 5])
    table = table.with_split(["train", "val", "train"])
    table.to_parquet(tmp_path / "table.parquet")
    again = AnnotationTable.from_parquet(tmp_path / "table.parquet")
    assert again == table
    assert again.subset("train").frame["votes"].to_list() == [[0, 3, 1], [2, 0, 0]]
    assert again.subset("train").rating_bins == (1.0, 2.0, 5.0)
    assert table != AnnotationTable(table.frame, {}, (1, 2, 4))
    wrong = [[1, 2], [0, 0, 0], [1, -1, 1], [None, 1, 1], [1, 0, 0]]
    with pytest.raises(DataError) as caught:
        AnnotationTable.from_columns(list("abcde"), votes=wrong, rating_bins=[1, 1, 5])
    problems = [(problem.code, problem.row) for problem in caught.value.problems]
    assert problems == [("votes", None), *(("votes", row) for row in range(4))]
    with pytest.raises(DataError, match="Unknown column votes"):
        AnnotationTable.from_columns(["a"], votes=[[1]])


def test_ratings_are_finite_scores_of_named_raters(tmp_path: Path) -> None:
    def rating(rater: str | None, score: float | None) -> dict[str, object]:
        return {"rater": rater, "score": score}

    ratings = [[rating("ann", 3.0), rating("밥", 4.5)], None, [rating("ann", 1.0)]]
    table = AnnotationTable.from_columns(list("abc"), ratings=ratings)
    table = table.with_split(["train", "val", "train"])
    table.to_parquet(tmp_path / "table.parquet")
    again = AnnotationTable.from_parquet(tmp_path / "table.parquet")
    assert again == table
    assert again.subset("train").frame["ratings"].to_list() == [ratings[0], ratings[2]]
    assert len(again.subset("val").frame["ratings"].drop_nulls()) == 0
    wrong = [[rating("x", math.nan)], [rating("", 1.0)], [rating(None, 1.0)], [rating("x", None)]]
    with pytest.raises(DataError) as caught:
        AnnotationTable.from_columns(list("abcde"), ratings=[*wrong, []])
    problems = [(problem.code, problem.row) for problem in caught.value.problems]
    assert problems == [("ratings", row) for row in range(5)]


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.drop("score"),
        lambda frame: frame.with_columns(extra=pl.lit(1)),
        lambda frame: frame.select(reversed(frame.columns)),
        lambda frame: frame.with_columns(pl.col("score").cast(pl.String)),
        lambda frame: frame.with_columns(pl.lit(None, pl.List(pl.String)).alias("comments")),
    ],
)
def test_frames_of_another_shape_are_refused(change) -> None:
    table = small_table()
    with pytest.raises(DataError):
        AnnotationTable(change(table.frame), table.classes)


def test_classes_are_those_of_the_columns() -> None:
    with pytest.raises(DataError):
        AnnotationTable(small_table().frame, {})
    assert small_table().classes == {"style": ("casual", "formal")}


def test_subset_and_split() -> None:
    table = small_table(4).with_split(["train", "test", None, "test"])
    assert table.subset("test").keys == ["train/001.png", "train/003.png"]
    assert table.subset("test").classes == table.classes
    assert len(table.subset("val")) == 0
    assert list(table.frame.columns)[: len(COLUMNS)] == list(COLUMNS)


def test_equality_looks_at_classes_and_rows() -> None:
    table = small_table()
    assert table == small_table()
    assert table != small_table(11)
    assert table != AnnotationTable(table.frame, {"style": ("formal", "casual")})


def test_parquet_of_others_and_damaged_ones(tmp_path: Path) -> None:
    foreign, damaged, good = (tmp_path / name for name in ("f.parquet", "d.parquet", "g.parquet"))
    small_table().frame.write_parquet(foreign)
    small_table().to_parquet(good)
    damaged.write_bytes(good.read_bytes()[:-40])
    for path in (foreign, damaged, tmp_path / "missing.parquet"):
        with pytest.raises(DataError, match=path.name):
            AnnotationTable.from_parquet(path)


def test_a_failed_write_leaves_the_old_table(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "annotations.parquet"
    small_table().to_parquet(path)

    def fail(frame: pl.DataFrame, target: Path, **_: object) -> None:
        target.write_bytes(b"PAR1 half")
        raise OSError("disk full")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", fail)
    with pytest.raises(OSError, match="disk full"):
        small_table(3).to_parquet(path)
    monkeypatch.undo()
    assert AnnotationTable.from_parquet(path) == small_table()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("./train/a.jpg", "train/a.jpg"),
        ("train\\sub\\a.jpg", "train/sub/a.jpg"),
        (" a.jpg ", "a.jpg"),
        ("a//b/./c.jpg", "a/b/c.jpg"),
        ("a/../b.jpg", "b.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
        ("\u1112\u1161\u11ab.jpg", "한.jpg"),
        ("/data/images/a.jpg", "a.jpg"),
        ("\\data\\images\\a.jpg", "a.jpg"),
    ],
)
def test_keys_have_one_form(name: str, key: str) -> None:
    made_key = make_key(name, root="/data/images/")
    assert made_key == key
    assert key_problem(made_key) is None


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "../a.jpg", "a/../../b.jpg", "/a.jpg", "C:\\a.jpg", "a\0.jpg"]
)
def test_names_that_are_no_keys(name: str) -> None:
    assert key_problem(make_key(name)) is not None


def test_rows_with_an_opinion() -> None:
    table = AnnotationTable.from_columns(
        ["a", "b", "c"],
        score=[1.0, None, None],
        comments=[[], ["fine"], []],
        attributes={"style": [None, "x", None], "mood": [None, None, "y"]},
    )
    wanted = {"score": ["a"], "attributes": ["b", "c"], "comment": ["b"]}
    assert {opinion: table.with_opinion(opinion).keys for opinion in wanted} == wanted
    bare = AnnotationTable.from_columns(["a"], score=[1.0])
    assert bare.with_opinion("attributes").keys == []
