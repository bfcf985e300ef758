"""A box reaches the judge in every way in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from PIL import Image
from small_exported import write_brightness_judge

from beholder.batch.requests import listed_pictures
from beholder.cli import main
from beholder.data.formats import read_annotations
from beholder.errors import DataError
from beholder.evaluation.evaluate import evaluate_judge
from beholder.judge import Judge

LEFT, RIGHT = [0.0, 0.0, 20.0, 20.0], [20.0, 0.0, 40.0, 20.0]
BOXES = [LEFT, RIGHT, None]
SCORES = [0.0, 250.0, 125.0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A judge of brightness, and pictures that are black on the left and white on the right."""
    write_brightness_judge(tmp_path / "judge.beholder")
    for name in ("a.png", "b.png", "c.png"):
        picture = Image.new("RGB", (40, 20), (0, 0, 0))
        picture.paste((250, 250, 250), (20, 0, 40, 20))
        picture.save(tmp_path / name)
    return tmp_path


def corners(path: Path, prefix: str = "") -> None:
    rows = [[name, *(box or [""] * 4)] for name, box in zip(NAMES, BOXES, strict=True)]
    header = ["image", *(f"{prefix}{edge}" for edge in ("xmin", "ymin", "xmax", "ymax"))]
    path.write_text("\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n")


def one_column(path: Path) -> None:
    texts = ['a.png,"0,0,20,20"', 'b.png,"[20.0, 0, 40, 20]"', "c.png,"]
    path.write_text("\n".join(["image,box", *texts]) + "\n")


def lists(path: Path) -> None:
    rows = [{"image": name, "box": box} for name, box in zip(NAMES, BOXES, strict=True)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")


def parquet(path: Path) -> None:
    pl.DataFrame({"image": NAMES, "box": BOXES}).write_parquet(path)


NAMES = ["a.png", "b.png", "c.png"]
FORMS: list[tuple[str, Callable[[Path], None]]] = [
    ("list.csv", corners),
    ("list.csv", lambda path: corners(path, "bbox_")),
    ("list.csv", one_column),
    ("list.jsonl", lists),
    ("list.parquet", parquet),
]


@pytest.mark.parametrize(("name", "write"), FORMS)
def test_of_a_list(
    folder: Path, name: str, write: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / name)
    requests = listed_pictures(folder / name)
    assert [request.box and list(request.box) for request in requests] == BOXES
    assert [requests[index] for index in range(3)] == list(requests) == list(requests[:3])
    with pytest.raises(SystemExit) as left:
        judge = str(folder / "judge.beholder")
        main(["judge", judge, "--list", str(folder / name), "--format", "jsonl"])
    assert not left.value.code
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["image"] for row in rows] == NAMES
    assert [row["score"] for row in rows] == pytest.approx(SCORES, abs=0.5)


def test_of_an_evaluation(folder: Path) -> None:
    """In the layout of FASCODE: the judge sees the box alone."""
    header = "image_name,BBox_xmin,BBox_ymin,BBox_xmax,BBox_ymax,Daily,Gender,Embellishment"
    rows = [
        f"{name},{','.join(map(str, box))},0,0,0"
        for name, box in zip("abc", [LEFT] * 3, strict=True)
    ]
    table = folder / "table.csv"
    table.write_text("\n".join([header, *(row.replace(",", ".png,", 1) for row in rows)]) + "\n")
    judge = Judge.load(folder / "judge.beholder")
    result = evaluate_judge(judge, read_annotations(table), folder)
    scores = result.predictions["score"].to_list()
    assert scores == pytest.approx([0.0] * 3, abs=0.5)


@pytest.mark.parametrize(
    "content",
    [
        "image,box\na.png,1 2 3 4\nb.png,1 2 3\n",
        "image,box\na.png,1 2 3 4\nb.png,none of it\n",
        "image,box\na.png,1 2 3 4\nb.png,3 0 1 2\n",
        "image,xmin,ymin,xmax,ymax\na.png,1,2,3,4\nb.png,1,2,,4\n",
    ],
)
def test_a_box_that_is_none_is_told_with_its_row(folder: Path, content: str) -> None:
    (folder / "list.csv").write_text(content)
    with pytest.raises(DataError, match=r"list.csv:3 box: The box is not xmin") as caught:
        listed_pictures(folder / "list.csv")
    assert len(caught.value.problems) == 1


def test_a_list_that_is_no_box_is_told(folder: Path) -> None:
    rows = [{"image": "a.png", "box": [1, 2, 3, 4]}, {"image": "b.png", "box": [1, 2, 3]}]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    with pytest.raises(DataError, match="The box is not xmin"):
        listed_pictures(folder / "list.jsonl")
