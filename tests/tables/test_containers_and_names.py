"""Containers that are no text, how names become pictures, the quick way of large tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from beholder.batch.requests import find_pictures, listed_pictures
from beholder.cli import main
from beholder.data.formats import (
    ReadOptions,
    listed_rows,
    read_annotations,
    regular_text,
    scan_annotations,
)
from beholder.data.formats.delimited import parse_delimited
from beholder.data.formats.options import columns_from
from beholder.data.picture_files import files_below, pictures_below
from beholder.errors import DataError


def write_pictures(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


# -- containers


def test_a_data_set_as_save_to_disk_writes_it(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        folder = tmp_path / split
        folder.mkdir()
        frame = pl.DataFrame(
            {
                "image": [{"bytes": None, "path": f"{split}{i}.jpg"} for i in range(count)],
                "mos": [i + 0.5 for i in range(count)],
            }
        )
        frame.write_ipc_stream(folder / "data-00000-of-00001.arrow")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    scan = scan_annotations(tmp_path)
    assert scan.table is not None and scan.format == "dataset"
    assert sorted(scan.table.keys) == [
        "test0.jpg",
        "test1.jpg",
        "train0.jpg",
        "train1.jpg",
        "train2.jpg",
    ]
    assert scan.read.to_dict()["splits"] == {"test": 2, "train": 3}
    assert any("paths of pictures, not the pictures" in note for note in scan.read.notes)


def test_an_imagefolder_with_splits(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
        lines = [json.dumps({"file_name": f"{i}.jpg", "text": "a red tree"}) for i in range(2)]
        (tmp_path / split / "metadata.jsonl").write_text("\n".join(lines))
    table = read_annotations(tmp_path)
    assert table.keys == ["train/0.jpg", "train/1.jpg", "validation/0.jpg", "validation/1.jpg"]
    assert table.frame["split"].to_list() == ["train", "train", "val", "val"]


def test_what_is_no_table_in_python_is_told() -> None:
    with pytest.raises(DataError, match="is not a table"):
        read_annotations(3)
    assert "not a mapping" in str(scan_annotations([{"image": "a.jpg", "score": 1.5}, 3]).problems)


def test_a_spread_of_pictures_comes_as_columns_or_lists(tmp_path: Path) -> None:
    rows = [{"img": f"{i}.jpg", "ratings": [1, 2, 3 + i][: 2 + i % 2]} for i in range(4)]
    table = read_annotations(rows)
    assert table.frame["score"].to_list() == pytest.approx([1.5, 7 / 3, 1.5, 3.0])
    assert table.frame["raters"].to_list() == [2, 3, 2, 3]


# -- names


def test_hidden_files_are_left_out_and_links_do_not_loop(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    write_pictures(root, "a.jpg", "sub/b.png", ".hidden/c.png", "sub/.d.jpg")
    (root / "._a.jpg").write_bytes(b"resource fork")
    write_pictures(other, "e.jpg")
    (root / "linked").symlink_to(other, target_is_directory=True)
    (root / "sub" / "loop").symlink_to(root, target_is_directory=True)
    assert pictures_below(root) == ["a.jpg", "linked/e.jpg", "sub/b.png"]
    assert list(files_below(tmp_path / "absent")) == []
    names = [request.path.relative_to(root).as_posix() for request in find_pictures([str(root)])]
    assert names == ["a.jpg", "linked/e.jpg", "sub/b.png"]


def test_names_that_several_files_fit_are_told(tmp_path: Path) -> None:
    write_pictures(tmp_path, "x/one.jpg", "y/one.png", "two.jpg")
    path = tmp_path / "t.csv"
    path.write_text("image,mos\none,1.5\ntwo,2.5\n")
    scan = scan_annotations(path, images=tmp_path)
    (problem,) = [p for p in scan.problems if p.severity == "error"]
    assert (problem.code, problem.row) == ("unclear_picture", 2)
    assert "x/one.jpg, y/one.png" in problem.message


def test_names_of_another_machine_are_found_by_their_file_name(tmp_path: Path) -> None:
    write_pictures(tmp_path, "in/a.jpg", "b.jpg")
    path = tmp_path / "t.csv"
    path.write_text("path,mos\nC:\\pics\\a.jpg,1.5\nC:\\pics\\b.jpg,2.5\n")
    table = read_annotations(path, images=tmp_path)
    assert table.keys == ["in/a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffimage;score\r\nsub\\a.jpg;1\r\nb.jpg;2\r\n",
        "sub/a.jpg\nb.jpg\n",
        "sub/a\nb\n",
        '[{"file": "sub/a.jpg"}, {"file": "b.jpg"}]',
    ],
)
def test_lists_are_read_where_tables_are(tmp_path: Path, content: str) -> None:
    write_pictures(tmp_path, "sub/a.jpg", "b.jpg")
    path = tmp_path / "list.csv"
    path.write_text(content, "utf-8", newline="")
    names = [request.name for request in listed_pictures(path)]
    assert names == ["sub/a.jpg", "b.jpg"]


def test_lists_with_own_columns_and_with_signs_in_names(tmp_path: Path) -> None:
    write_pictures(tmp_path, "a, b.jpg", "c.jpg")
    path = tmp_path / "list.txt"
    path.write_text("a, b.jpg\nc.jpg\n")
    assert [request.name for request in listed_pictures(path)] == ["a, b.jpg", "c.jpg"]
    path.write_text("left|right\na.jpg|b.jpg\nc.jpg|d.jpg\n")
    with pytest.raises(DataError, match="image=left"):
        listed_rows(path, ReadOptions())
    names = listed_rows(path, ReadOptions(columns={"image": "right"}))
    assert names["image"].to_list() == ["b.jpg", "d.jpg"]


# -- options


def test_options_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes("x:画像一.jpg:3\ny:画像二.jpg:4\nz:画像三.jpg:2\n".encode("shift_jis"))
    arguments = ["check", str(path), "--no-header", "--separator", ":", "--encoding", "shift_jis"]
    arguments += ["--columns", "image=column2", "--columns", "score=column3", "--scale", "1", "5"]
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--lower-is-better", "--format", "json"])
    read = json.loads(capsys.readouterr().out)["read"]
    assert left.value.code == 0
    assert read["score"] == {"low": 2.0, "high": 4.0, "rows": 3}
    assert (read["encoding"], read["pictures"]) == ("shift_jis", 3)


@pytest.mark.parametrize("pairs", [["score"], ["=x"], ["score=a", "score=b"]])
def test_wrong_columns_of_the_command_line(pairs: list[str]) -> None:
    with pytest.raises(DataError):
        columns_from(pairs)


def test_wrong_separators_and_scales() -> None:
    with pytest.raises(DataError, match="can't separate"):
        ReadOptions(separator="::")
    with pytest.raises(DataError, match="no room"):
        ReadOptions(score_range=(5, 1))


# -- large text tables


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.sampled_from(["a", "", " b ", "1.5", "é", "x y"]), min_size=3, max_size=3)
    ),
    ragged=st.booleans(),
    end=st.sampled_from(["", "\n", "\n\n"]),
)
def test_the_quick_way_gives_the_same_rows(rows: list[list[str]], ragged: bool, end: str) -> None:
    lines = ["image,score,comment", *(",".join(row) for row in rows)]
    if ragged and rows:
        lines.append("too,few")
    text = "\n".join(lines) + end
    slow = parse_delimited(text, "t.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regular_text, "_LEAST", 0)
        quick = parse_delimited(text, "t.csv")
    assert quick.frame.equals(slow.frame)
    assert quick.problems == slow.problems
