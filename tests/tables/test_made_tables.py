"""Tables made in every way that people write them, whose reading is known."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beholder.data.annotations import AnnotationTable
from beholder.data.formats import read_annotations, scan_annotations

NAMES = {
    "image": [
        "image", "img_name", "File Name", "imagePath", "사진", "图片名称", "画像", "Dateiname",
        "name",
    ],
    "score": [
        "mos", "MOS", "Score", "quality_mos", "점수", "评分", "スコア", "Bewertung", "GT-Score",
    ],
    "split": ["split", "set", "Subset", "partition"],
    "style": ["style", "Colour", "garmentType"],
}  # fmt: skip
KINDS = ["records", "lines", "columns", "parquet", "polars", "dicts"]
INDEX = ["", "Unnamed: 0"]
STYLES = ["casual", "formal", "sport"]
MISSING = ["", "nan", "NaN", "None", "NA", "null", "N/A"]


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """A table by column, and what it says."""
    count = draw(st.integers(6, 14))
    scores = draw(
        st.lists(st.floats(1, 5).map(lambda x: round(x, 3)), min_size=count, max_size=count)
    )
    scores[:2] = [1.25, 4.75]  # they vary
    folder = draw(st.sampled_from(["", "a/", "deep/er/"]))
    splits = draw(st.sampled_from([None, ["train", "test"], ["Training", "validation"]]))
    ending = draw(st.sampled_from(["jpg", "PNG"]))
    return {
        "image": [f"{folder}p{row:03d}.{ending}" for row in range(count)],
        "score": scores,
        "split": [splits[row % 2] for row in range(count)] if splits else None,
        "style": [STYLES[row % 3] for row in range(count)] if draw(st.booleans()) else None,
        "missing": draw(st.none() | st.integers(2, count - 1)),
    }  # fmt: skip


def expected(table_facts: dict[str, Any]) -> tuple[list[str], list[float | None]]:
    scores: list[float | None] = list(table_facts["score"])
    if table_facts["missing"] is not None:
        scores[table_facts["missing"]] = None
    return table_facts["image"], scores


@settings(max_examples=120, deadline=None)
@given(table_facts=tables(), data=st.data())
def test_a_text_table_however_it_is_written(
    tmp_path_factory: pytest.TempPathFactory, table_facts: dict[str, Any], data: st.DataObject
) -> None:
    columns = [
        name for name in ("image", "score", "split", "style") if table_facts[name] is not None
    ]
    columns = data.draw(st.permutations(columns))
    separator = data.draw(st.sampled_from([",", ";", "\t", "|"]))
    comma = separator != "," and data.draw(st.booleans())
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    names = [data.draw(st.sampled_from(NAMES[column])) for column in columns]
    index = data.draw(st.sampled_from([None, *INDEX]))
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    missing = data.draw(st.sampled_from(MISSING))
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, lineterminator=end)
    writer.writerow(([index] if index is not None else []) + names)
    for row in range(len(table_facts["image"])):
        cells = [str(table_facts[column][row]) for column in columns]
        if row == table_facts["missing"]:
            cells[columns.index("score")] = missing
        elif comma:
            cells[columns.index("score")] = cells[columns.index("score")].replace(".", ",")
        writer.writerow(([str(row)] if index is not None else []) + cells)
    path = tmp_path_factory.mktemp("made") / "table.txt"
    path.write_bytes(stream.getvalue().encode(encoding))
    table = read_annotations(path)
    images, scores = expected(table_facts)
    assert table.keys == images
    assert table.frame["score"].to_list() == scores
    assert table.frame["split"].null_count() == (0 if table_facts["split"] else len(images))
    if table_facts["style"]:
        (attribute,) = table.attribute_names
        assert table.frame[f"attribute.{attribute}"].to_list() == table_facts["style"]


@settings(max_examples=40, deadline=None)
@given(
    table_facts=tables(),
    kind=st.sampled_from(["records", "lines", "columns", "parquet", "polars", "dicts"]),
)
def test_the_same_table_in_other_containers(
    tmp_path_factory: pytest.TempPathFactory, table_facts: dict[str, Any], kind: str
) -> None:
    images, scores = expected(table_facts)
    columns = {"file_name": images, "mos": scores}
    if table_facts["split"]:
        columns["split"] = table_facts["split"]
    frame = pl.DataFrame(columns)
    folder = tmp_path_factory.mktemp("made")
    rows = frame.to_dicts()
    source: Any = folder / "table"
    if kind == "records":
        source.write_text(json.dumps(rows), "utf-8")
    elif kind == "lines":
        source.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    elif kind == "columns":
        source.write_text(json.dumps(frame.to_dict(as_series=False)), "utf-8")
    elif kind == "parquet":
        frame.write_parquet(source)
    else:
        source = frame if kind == "polars" else iter(rows)
    table = read_annotations(source)
    assert table.keys == images
    assert table.frame["score"].to_list() == pytest.approx(scores)


def test_frames_of_pandas(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"mos": [1.5, None, 4.0], "raters": [3, None, 5], "tag": ["a", None, "b"]},
        index=["a.jpg", "b.jpg", "c.jpg"],
    )
    table = read_annotations(frame)
    assert table.keys == ["a.jpg", "b.jpg", "c.jpg"]
    assert table.frame["score"].to_list() == [1.5, None, 4.0]
    assert table.frame["raters"].to_list() == [3, None, 5]
    again = read_annotations(frame.reset_index(names="image"))
    assert isinstance(again, AnnotationTable) and again == table


@pytest.mark.parametrize("header", ["image mos", None])
def test_blanks_and_no_header(tmp_path: Path, header: str | None) -> None:
    path = tmp_path / "t.txt"
    lines = ["a.png   3.5", "b.png 2.25", "c.png 1"]
    path.write_text("\n".join([header, *lines] if header else lines), "utf-8")
    assert read_annotations(path).frame["score"].to_list() == [3.5, 2.25, 1.0]


def test_lower_is_better_turns_scores_votes_and_ratings(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("image,dmos,rating.A\na.jpg,1.5,2\nb.jpg,4,5\n", "utf-8")
    warned = scan_annotations(path)
    assert "direction" in {problem.code for problem in warned.problems}
    scan = scan_annotations(path, lower_is_better=True)
    assert scan.table is not None
    assert scan.table.frame["score"].to_list() == [4.5, 2.0]
    assert [ratings[0]["score"] for ratings in scan.table.frame["ratings"]] == [4.0, 1.0]
    assert any("scale 1 to 5" in note for note in scan.read.notes)
    odd = tmp_path / "odd.csv"
    odd.write_text("image,dmos\na.jpg,-3.5\nb.jpg,120\n", "utf-8")
    assert "--scale" in str(scan_annotations(odd, lower_is_better=True).problems)
    table = read_annotations(odd, lower_is_better=True, score_range=(-10, 150))
    assert table.frame["score"].to_list() == [143.5, 20.0]


@pytest.mark.parametrize(
    ("content", "roles"),
    [
        ("".join(f"{n}.jpg {n % 3}\n" for n in range(9)), ["score=column2", "attribute.column2"]),
        ("image,beauty\n" + "".join(f"{n}.jpg,{n % 5 + 1}\n" for n in range(20)), ["score=beauty"]),
        ("left,right\na.jpg,b.jpg\nc.jpg,d.jpg\n", ["image=left", "image=right"]),
        ("image,calm,warm\na.jpg,0.5,1.5\nb.jpg,2.5,0.25\n", ["score=calm", "score=warm"]),
    ],
)
def test_of_equally_good_readings_none_is_guessed(
    tmp_path: Path, content: str, roles: list[str]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content, "utf-8")
    scan = scan_annotations(path)
    (problem,) = [candidate for candidate in scan.problems if candidate.severity == "error"]
    assert (scan.table, problem.code) == (None, "ambiguous")
    for role in roles:
        assert f"beholder check {path} --columns {role}" in problem.message
