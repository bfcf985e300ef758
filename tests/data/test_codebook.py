"""Codebooks in their three forms, tables read with them, and everything that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beholder.cli import main
from beholder.data.check import check_annotations
from beholder.data.formats import read_annotations, scan_annotations
from beholder.data.formats.codebook import read_codebook
from beholder.errors import DataError

HEADER = "image_name,BBox_xmin,BBox_ymin,BBox_xmax,BBox_ymax,Daily,Gender,Embellishment"
DAILY = ["formal", "semi-formal", "casual", "sport", "outdoor", "home", "special"]
BOOK = {
    "daily": DAILY,
    "gender": {
        "0": "male", "1": "half male", "2": "unisex", "3": "half female", "4": "female",
        "5": "kids",
    },
    "embellishment": ["plain", "simple", "rich"],
}  # fmt: skip


def write(path: Path, content: object, encoding: str = "utf-8") -> Path:
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    path.write_bytes(text.encode(encoding))
    return path


def as_csv() -> str:
    lines = ["Attribute;Value;Name"]
    for attribute, classes in BOOK.items():
        pairs = enumerate(classes) if isinstance(classes, list) else classes.items()
        lines += [f"{attribute};{value};{name}" for value, name in pairs]
    return "\n".join(lines)


YAML = """
Daily: [formal, semi-formal, casual, sport, outdoor, home, special]
gender: {5: kids, 0: male, 1: half male, 2: unisex, 3: half female, 4: female}
Embellishment:
  - plain
  - simple
  - rich
"""


@pytest.mark.parametrize("content", [BOOK, YAML, as_csv()], ids=["json", "yaml", "csv"])
def test_the_three_forms_say_the_same(tmp_path: Path, content: object) -> None:
    book = read_codebook(write(tmp_path / "book", content))
    assert list(book) == ["daily", "gender", "embellishment"]
    assert list(book["daily"].items()) == [(str(i), name) for i, name in enumerate(DAILY)]
    assert list(book["gender"]) == ["0", "1", "2", "3", "4", "5"]
    assert book["gender"]["5"] == "kids"


def test_values_that_are_no_numbers_keep_their_order_and_stay_text(tmp_path: Path) -> None:
    book = read_codebook(
        write(tmp_path / "book.yaml", "worn:\n  yes: worn\n  no: new\n  01: odd\n")
    )
    assert book == {"worn": {"yes": "worn", "no": "new", "01": "odd"}}
    assert list(book["worn"]) == ["yes", "no", "01"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("[1, 2]", "not a mapping"),
        ("a: {0: x, 0: y}", "twice"),
        ("a: b", "neither a list of names nor"),
        ("a: {0: x, 1: x}\nb: 3", "Two values have the name 'x'"),
        ("a: []", "no class"),
        ("a: {0: ''}", "is empty"),
        ("a: [x\n", "neither JSON nor YAML"),
        ("attribute,value,name\na,0,x\na,0,y\n", "the value '0' is there already"),
        ("attribute,value,name\na,0\n", "fields"),
    ],
)
def test_what_is_wrong_with_a_codebook_is_said(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_codebook(write(tmp_path / "book", content))
    assert message.lower() in str(caught.value).lower()
    if "b: 3" in content:
        assert len(caught.value.problems) == 2


def test_fascode_table_with_names_gaps_and_boxes_in_euc_kr(tmp_path: Path) -> None:
    rows = ["바지.jpg,1,2,30,40,0,5,2", "치마.jpg,0,0,9,9,6.0,,1", "c.jpg,,,,,casual,2.0,"]
    table = write(tmp_path / "t.csv", "\n".join([HEADER, *rows]), "euc-kr")
    book = write(tmp_path / "book.json", BOOK)
    read = read_annotations(table, codebook=book)
    assert read.keys == ["바지.jpg", "치마.jpg", "c.jpg"]
    assert read.classes["daily"] == tuple(DAILY)
    assert read.frame["attribute.daily"].to_list() == ["formal", "special", "casual"]
    assert read.frame["attribute.gender"].to_list() == ["kids", None, "unisex"]
    assert read.frame["attribute.embellishment"].to_list() == ["rich", "simple", None]
    assert read.frame["box"].to_list() == [[1, 2, 30, 40], [0, 0, 9, 9], None]


def test_headers_in_euc_kr_are_readable_in_the_error_and_can_be_mapped(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "사진,성별\na.jpg,0\nb.jpg,1\n", "euc-kr")
    (problem,) = scan_annotations(table).problems
    assert "사진, 성별" in problem.message
    book = write(tmp_path / "book.json", {"gender": ["남성", "여성"]})
    columns = {"image": "사진", "attribute.gender": "성별"}
    read = read_annotations(table, columns=columns, codebook=book)
    assert read.frame["attribute.gender"].to_list() == ["남성", "여성"]


def test_everything_wrong_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    for name in "abcd":
        pixels = generator.integers(0, 255, (50, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    rows = [
        "a.png,0,0,40,50,7,0,0",  # no such class
        "b.png,-5,0,60,50,1,9,0",  # no such class; box reaches out
        "c.png,50,60,70,80,2,1,0",  # box lies outside
        "d.png,30,0,10,50,3,2,0",  # empty box
    ]
    table = write(tmp_path / "t.csv", "\n".join([HEADER, *rows]))
    book = write(tmp_path / "book.json", BOOK | {"style": ["a", "b"], "embellishment": ["plain"]})
    problems = check_annotations(table, tmp_path, codebook=book)
    codes = {(p.severity, p.code, p.key) for p in problems}
    assert codes >= {
        ("error", "unknown_class", "a.png"),
        ("error", "unknown_class", "b.png"),
        ("warning", "box_outside", "b.png"),
        ("error", "box_empty", "c.png"),
        ("error", "box", "d.png"),
        ("error", "one_class", None),
        ("warning", "codebook", None),
    }
    texts = [p.message for p in problems if p.code == "unknown_class"]
    assert "'7' is not one of 0 (formal), 1 (semi-formal)" in texts[0]
    with pytest.raises(SystemExit) as left:
        main(["check", str(table), "--images", str(tmp_path), "--codebook", str(book)])
    assert left.value.code == 2
    out = capsys.readouterr().out
    assert "warning box_outside (1)" in out
    assert "one class alone, plain" in out


def test_a_bad_codebook_is_told_with_the_table(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "image,score,attribute.x\na.png,high,1\nb.png,1,0\n")
    book = write(tmp_path / "book.json", {"x": []})
    codes = {problem.code for problem in scan_annotations(table, codebook=book).problems}
    assert codes >= {"codebook", "not_a_number"}
    codes = {p.code for p in scan_annotations(table, codebook=tmp_path / "none").problems}
    assert codes >= {"codebook", "not_a_number"}


def test_parquet_has_names_of_its_own(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "image,attribute.x\na.png,1\nb.png,0\n")
    read_annotations(table).to_parquet(tmp_path / "t.parquet")
    book = write(tmp_path / "book.json", {"x": ["no", "yes"]})
    with pytest.raises(DataError, match="can't be used") as caught:
        read_annotations(tmp_path / "t.parquet", codebook=book)
    assert "leave the codebook out" in str(caught.value)
