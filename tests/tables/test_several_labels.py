"""Columns whose cells hold several labels at once, in every container that has them."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beholder.cli import main
from beholder.data.annotations import AnnotationTable
from beholder.data.check import check_annotations
from beholder.data.formats import read_annotations, scan_annotations
from beholder.data.formats.several_labels import label_lists, several_labels
from beholder.errors import DataError
from beholder.training.sources import Targets

CELLS = [["blur", "noise"], ["blur"], [], None, ["noise", "dark"], ["dark"], ["dark", "blur"], []]
EXPECTED = [
    ["blur", "noise"],
    ["blur"],
    [],
    None,
    ["dark", "noise"],
    ["dark"],
    ["blur", "dark"],
    [],
]


def names(count: int = len(CELLS)) -> list[str]:
    return [f"{row:02}.jpg" for row in range(count)]


def expect(table: AnnotationTable, name: str = "problems") -> None:
    assert table.multi_label == {name}
    assert table.classes[name] == ("blur", "dark", "noise")
    assert table.frame[f"attribute.{name}"].to_list() == EXPECTED


@pytest.mark.parametrize("separator", [";", "|", ", ", " ; "])
def test_a_text_table(separator: str, tmp_path: Path) -> None:
    cells = ["" if c is None else separator.join(c) or "none" for c in CELLS]
    rows = zip(names(), [1.5, 2, 3, 4, 2, 5, 2, 1], cells, strict=True)
    text = "\n".join(["image\tscore\tproblems", *(f"{n}\t{s}\t{c}" for n, s, c in rows)])
    (tmp_path / "t.tsv").write_text(text + "\n")
    scan = scan_annotations(tmp_path / "t.tsv")
    assert scan.table is not None
    expect(scan.table)
    assert any("several labels at once" in note for note in scan.read.notes)
    assert "problems: 3 labels, several at once, known of 7 pictures, none holds of 2" in "\n".join(
        scan.read.lines()
    )


def test_lists_of_json_and_parquet(tmp_path: Path) -> None:
    records = [
        {"image": name, **({} if cell is None else {"problems": cell})}
        for name, cell in zip(names(), CELLS, strict=True)
    ]
    (tmp_path / "t.json").write_text(json.dumps(records))
    expect(read_annotations(tmp_path / "t.json"))
    records[1]["problems"] = "blur"  # one label as text among lists
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, records)))
    expect(read_annotations(tmp_path / "t.jsonl"))
    frame = pl.DataFrame({"image": names(), "problems": CELLS})
    frame.write_parquet(tmp_path / "t.parquet")
    expect(read_annotations(tmp_path / "t.parquet"))
    expect(read_annotations(frame))
    texts = [None if cell is None else json.dumps(cell) for cell in CELLS]
    pl.DataFrame({"image": names(), "problems": texts}).write_csv(tmp_path / "t.csv")
    expect(read_annotations(tmp_path / "t.csv"))


def test_choices_of_label_studio(tmp_path: Path) -> None:
    def cell(labels: list[str] | None) -> str | None:
        if labels is None:
            return None
        return labels[0] if len(labels) == 1 else json.dumps({"choices": labels})

    frame = pl.DataFrame(
        {
            "image": [f"/data/upload/1/0a1b2c3d-{name}" for name in names()],
            "annotation_id": range(len(CELLS)), "annotator": [1] * len(CELLS),
            "lead_time": [2.5] * len(CELLS), "problems": [cell(labels) for labels in CELLS],
        }
    )  # fmt: skip
    frame.write_csv(tmp_path / "t.csv")
    expect(read_annotations(tmp_path / "t.csv"))
    tasks = [
        {
            "data": {"image": name},
            "annotations": [
                {"result": [{"from_name": "problems", "value": {"choices": labels}}]}
                if labels is not None
                else {"result": []}
            ],
        }
        for name, labels in zip(names(), CELLS, strict=True)
    ]
    (tmp_path / "t.json").write_text(json.dumps(tasks))
    expect(read_annotations(tmp_path / "t.json"))


def test_a_column_is_named_and_has_a_codebook(tmp_path: Path) -> None:
    cells = ["" if c is None else ";".join(c) or "none" for c in CELLS]
    codes = {"blur": "1", "dark": "2", "noise": "3"}
    for word, code in codes.items():
        cells = [cell.replace(word, code) for cell in cells]
    text = "\n".join(["image,what", *(f"{n},{c}" for n, c in zip(names(), cells, strict=True))])
    (tmp_path / "t.csv").write_text(text + "\n")
    (tmp_path / "book.yaml").write_text("problems: {1: blur, 2: dark, 3: noise}\n")
    table = read_annotations(
        tmp_path / "t.csv", columns={"attribute.problems": "what"},
        codebook=tmp_path / "book.yaml",
    )  # fmt: skip
    expect(table)
    (tmp_path / "book.yaml").write_text("problems: {1: blur, 2: dark}\n")
    with pytest.raises(DataError, match="can't be used") as refused:
        read_annotations(
            tmp_path / "t.csv", columns={"attribute.problems": "what"},
            codebook=tmp_path / "book.yaml",
        )  # fmt: skip
    assert "not each one of" in str(refused.value)


@pytest.mark.parametrize(
    "cells",
    [
        ["shirt, long", "shirt, short", "shirt, long", "trousers, long"] * 2,
        ["1,5", "2,5", "3,5", "2,5", "3", "1,5", "3", "2,5"],
        ["red", "green", "red", "green", "red", "red", "green", "red"],
        ["a sharp picture, of a house in the sun", "it is too dark, and has a lot of noise"] * 4,
        ["a.jpg;b.jpg", "b.jpg", "a.jpg", "b.jpg;a.jpg"] * 2,
        [f"word{row};other{row}" for row in range(8)],
    ],
)
def test_what_holds_no_labels_at_once(cells: list[str]) -> None:
    assert several_labels(pl.Series(cells)) is None


@settings(deadline=None)
@given(
    st.lists(
        st.none() | st.lists(st.sampled_from(["blur", "dark", "a b", "옷"]), unique=True),
        min_size=1,
    ),
    st.sampled_from([";", "|", ","]),
)
def test_cells_come_back_as_they_were_joined(cells: list[list[str] | None], separator: str) -> None:
    texts = [None if cell is None else separator.join(cell) or "none" for cell in cells]
    lists = label_lists(pl.Series("x", texts, dtype=pl.String), separator)
    assert lists.to_list() == cells


def test_the_table_keeps_them(tmp_path: Path) -> None:
    table = AnnotationTable.from_columns(
        names(), attributes={"problems": CELLS, "kind": ["a", "b"] * 4}, multi_label=["problems"],
        classes={"problems": ("noise", "blur", "dark")},
    )  # fmt: skip
    assert table.frame["attribute.problems"].to_list()[0] == ["noise", "blur"]
    table.to_parquet(tmp_path / "t.parquet")
    assert AnnotationTable.from_parquet(tmp_path / "t.parquet") == table
    assert table.with_opinion("attributes").keys == names()
    with pytest.raises(DataError, match="none"):
        AnnotationTable.from_columns(["a.png"], attributes={"x": [["none"]]}, multi_label=["x"])
    with pytest.raises(DataError, match="each one of"):
        AnnotationTable.from_columns(
            ["a.png"], attributes={"x": [["a", "b"]]}, multi_label=["x"], classes={"x": ("a",)}
        )


def test_targets_are_vectors(tmp_path: Path) -> None:
    table = AnnotationTable.from_columns(
        names(), attributes={"problems": CELLS}, multi_label=["problems"]
    )
    targets = Targets(table)
    vectors = targets.load(range(len(CELLS)))["attributes"]["problems"]
    assert vectors[0].tolist() == [1, 0, 1] and vectors[2].tolist() == [0, 0, 0]
    assert vectors[3].isnan().all()
    shares = targets.balanced_shares()
    assert shares.sum() == pytest.approx(1.0)
    for label in range(3):
        known = vectors[:, label]
        assert shares[known.numpy() == 1].sum() > (known == 1).sum() / len(CELLS) - 0.2


def test_check_tells_what_can_not_be_learnt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = ["blur;dark", "blur", "blur;dark", "blur", "blur;rare", "blur"] * 2
    cells[10] = "blur"
    text = "\n".join(
        ["image,problems", *(f"{n},{c}" for n, c in zip(names(12), cells, strict=True))]
    )
    (tmp_path / "t.csv").write_text(text + "\n")
    found = {problem.code: problem.message for problem in check_annotations(tmp_path / "t.csv")}
    assert "no_example" in found
    messages = [problem.message for problem in check_annotations(tmp_path / "t.csv")]
    assert any("Every picture" in message and "blur" in message for message in messages)
    assert any("Hardly a picture" in message and "rare" in message for message in messages)
    with pytest.raises(SystemExit) as left:
        main(["check", str(tmp_path / "t.csv"), "--format", "json"])
    assert left.value.code == 0
    read = json.loads(capsys.readouterr().out)["read"]
    assert read["attributes"] == {"problems": ["blur", "dark", "rare"]}
    assert read["multi_label"] == ["problems"]
    constant = AnnotationTable.from_columns(
        ["a.png", "b.png"], attributes={"x": [["a"], ["a"]]}, multi_label=["x"]
    )
    assert [p.code for p in check_annotations(constant) if p.severity == "error"] == ["one_class"]
