"""The challenge's table: names with and without extension, mismatches, and nothing half-written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import polars as pl
import pytest

from beholder.challenges.samsung_iqa import write_challenge_table
from beholder.cli import main
from beholder.errors import DataError

SAMPLE = "img_name,mos,comments\nb,0,nothing\na.x,0,nothing\nc.jpg,0,nothing\n"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Predictions of three pictures in other orders and namings, and of one that is not asked."""
    paths = {name: tmp_path / file for name, file in (
        ("sample", "sample.csv"), ("scores", "predictions.csv"), ("comments", "verdicts.jsonl"),
    )}  # fmt: skip
    paths["sample"].write_text(SAMPLE)
    scores = "image,score,low\ntest/a.x.jpg,1.25,0\ntest/b.png,2.5,0\ntest/c.jpg,3,0\nd.jpg,9,0\n"
    paths["scores"].write_text(scores)
    lines = [
        {"image": "../pictures/test/c.jpg", "score": 0.0, "comment": 'Dark,\n "very" dark.'},
        {"image": "./test/a.x.jpg", "score": 0.0, "comment": "Bright."},
        {"image": "test\\b.png", "score": 0.0, "comment": "Sharp."},
    ]
    paths["comments"].write_text("".join(json.dumps(line) + "\n" for line in lines))
    return paths


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def refusal(files: dict[str, Path], target: Path) -> str:
    with pytest.raises(DataError) as caught:
        write_challenge_table(files["sample"], files["scores"], files["comments"], target)
    assert not target.exists()
    assert [path for path in target.parent.iterdir() if path.name.startswith(".")] == []
    return str(caught.value)


def test_rows_are_those_of_the_sample_in_its_order(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"--{name}={path}" for name, path in files.items()]
    with pytest.raises(SystemExit) as left:
        main(["submit", *arguments, "--into", str(tmp_path / "out" / "submission.csv")])
    assert left.value.code in (0, None)
    assert "3 pictures; predictions of 1 more are not used" in capsys.readouterr().out
    assert rows_of(tmp_path / "out" / "submission.csv") == [
        ["img_name", "mos", "comments"],
        ["b", "2.5", "Sharp."],
        ["a.x", "1.25", "Bright."],
        ["c.jpg", "3.0", 'Dark, "very" dark.'],
    ]


def test_every_mismatch_is_listed_and_nothing_is_written(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = SAMPLE + "e,0,x\nb,0,x\n"
    files["sample"].write_text(more)
    scores = "image,score\ntest/a.x.jpg,nan\nother/b.jpg,1\ntest/b.png,2\ntest/c.jpg,\n"
    files["scores"].write_text(scores)
    lines = [{"image": "test/a.x.jpg", "comment": "  "}, {"image": "test/c.jpg", "error": {}}]
    files["comments"].write_text("".join(json.dumps(line) + "\n" for line in lines))
    target = tmp_path / "submission.csv"
    text = refusal(files, target)
    for sentence in (
        "row 2", "predictions.csv answer to this name: other/b.jpg, test/b.png",
        "no score of this picture", "no comment of this picture", "not a finite number: 'nan'",
        "not a finite number: ''", "is empty",
    ):  # fmt: skip
        assert sentence in text, sentence
    target.write_text("before")
    arguments = [f"--{name}={path}" for name, path in files.items()]
    with pytest.raises(SystemExit) as left:
        main(["submit", *arguments, "--into", str(target)])
    assert left.value.code == 2
    assert "problem(s)" in capsys.readouterr().err
    assert target.read_text() == "before"


def test_what_was_predicted_is_taken_not_what_was_given(
    files: dict[str, Path], tmp_path: Path
) -> None:
    frame = pl.DataFrame(
        {"image": ["b", "a.x", "c.jpg"], "score": [5.0, 5.0, None],
         "predicted_score": [1.0, 2.0, 3.0], "comment": ["One.", "Two.", "Three."]}
    )  # fmt: skip
    both = tmp_path / "predictions.parquet"
    frame.write_parquet(both)
    done = write_challenge_table(files["sample"], both, both, tmp_path / "out.csv")
    assert (done.rows, done.unused) == (3, 0)
    assert [row[1:] for row in rows_of(tmp_path / "out.csv")[1:]] == [
        ["1.0", "One."], ["2.0", "Two."], ["3.0", "Three."],
    ]  # fmt: skip


def test_names_are_only_cut_at_a_pictures_extension(files: dict[str, Path], tmp_path: Path) -> None:
    """The part before the first dot would join `a.x` with `a.y`."""
    files["sample"].write_text("img_name,mos,comments\na.x,0,x\na.y,0,x\n")
    both = tmp_path / "both.csv"
    both.write_text("image,score,comment\na.y.jpg,2,Y.\na.x.jpg,1,X.\n")
    write_challenge_table(files["sample"], both, both, tmp_path / "out.csv")
    assert [row[2] for row in rows_of(tmp_path / "out.csv")] == ["comments", "X.", "Y."]


def test_korean_files_and_files_that_are_none(files: dict[str, Path], tmp_path: Path) -> None:
    files["sample"].write_bytes("img_name,mos,comments\n사진,0,어둡다\n".encode("cp949"))
    both = tmp_path / "both.csv"
    both.write_text("image,score,comment\ntest/사진.jpg,1,어두운 사진.\n", "utf-8-sig")
    write_challenge_table(files["sample"], both, both, tmp_path / "out.csv")
    assert rows_of(tmp_path / "out.csv")[1] == ["사진", "1.0", "어두운 사진."]
    files["sample"].write_text("name,mos\na,0\n")
    files["scores"].write_text("image,points\na,1\n")
    files["comments"].write_text("no json\n")
    text = refusal(files, tmp_path / "none.csv")
    assert "expected img_name, mos, comments" in text
    assert "no column predicted_score or score or mos" in text
    assert "no JSON object" in text
    files["scores"] = tmp_path / "nowhere.parquet"
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    files["comments"] = tmp_path / "broken.parquet"
    text = refusal(files, tmp_path / "none.csv")
    assert "nowhere.parquet: There is no such file" in text
    assert "The Parquet file can't be read" in text
