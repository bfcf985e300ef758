"""Pictures inside a table: what each is called, and that they are unpacked as they are."""

from __future__ import annotations

import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from beholder.cli import main
from beholder.data.check import read_and_check
from beholder.data.formats import ReadOptions, read_annotations, scan_annotations
from beholder.data.formats.embedded_pictures import names_of, without_bytes
from beholder.data.keys import key_problem, make_key
from beholder.data.unpacked_pictures import Unpacked, pictures_at_hand, unpack_pictures
from beholder.errors import DataError, OutputError
from beholder.pipeline.data import load_data
from beholder.pipeline.recipe import DataConfig

SCORES = [1.5, 2.0, 3.25, 4.0, 4.75, 2.5]


def picture(number: int, kind: str = "JPEG") -> bytes:
    """A picture file of noise."""
    pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def hub_frame(paths: list[str | None], kinds: tuple[str, ...] = ("JPEG",)) -> pl.DataFrame:
    """The columns that `Dataset.push_to_hub` gives: `image` as struct of bytes and path."""
    images = [
        {"bytes": picture(index, kinds[index % len(kinds)]), "path": path}
        for index, path in enumerate(paths)
    ]
    return pl.DataFrame({"image": images, "mos": SCORES[: len(paths)]})


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# -- names


def test_paths_are_names_that_stay_in_the_folder(tmp_path: Path) -> None:
    paths = ["train/a.jpg", "..\\..\\b.jpg", "/data/c.jpg", "zip://d.jpg::/data/all.zip", "e", None]
    hub_frame(paths, ("JPEG", "PNG")).write_parquet(tmp_path / "t.parquet")
    wanted = ["train/a.jpg", "b.jpg", "data/c.jpg", "d.jpg", "e.jpg", "000005.png"]
    assert read_annotations(tmp_path / "t.parquet").keys == wanted
    assert unpack_pictures(tmp_path / "t.parquet", tmp_path / "out") == Unpacked(6, 0)
    contents = {name: picture(n, ("JPEG", "PNG")[n % 2]) for n, name in enumerate(wanted)}
    assert files_in(tmp_path / "out") == contents


def test_the_same_path_with_other_bytes_is_another_picture(tmp_path: Path) -> None:
    same, other = picture(0), picture(1)
    rows = [("0.jpg", same), ("0.jpg", other), ("0.jpg", same), ("0.JPG", other)]
    images = [{"bytes": content, "path": path} for path, content in rows]
    frame = pl.DataFrame({"image": images, "caption": ["a tree", "a dog", "a hill", "a cat"]})
    table = read_annotations(frame)
    assert table.keys == ["0.jpg", "0-000001.jpg"]
    assert table.frame["comments"].to_list() == [["a tree", "a hill"], ["a dog", "a cat"]]
    unpack_pictures(frame, tmp_path)
    assert files_in(tmp_path) == {"0.jpg": same, "0-000001.jpg": other}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.none() | st.text(max_size=12), st.integers(0, 3)), max_size=12))
def test_names_are_keys_and_tell_pictures_apart(rows: list[tuple[str | None, int]]) -> None:
    heads = [b"\xff\xd8\xff%d" % number for _, number in rows]
    images = [{"bytes": h, "path": p} for h, (p, _) in zip(heads, rows, strict=True)]
    types_ = {"image": pl.Struct({"bytes": pl.Binary, "path": pl.String})}
    column = without_bytes(pl.DataFrame({"image": images}, schema=types_))["image"]
    names = names_of(column)[0].to_list()
    assert all(key_problem(name) is None and make_key(name) == name for name in names)
    contents: dict[str, set[bytes]] = {}
    for name, head in zip(names, heads, strict=True):
        contents.setdefault(name.casefold(), set()).add(head)
    assert all(len(held) == 1 for held in contents.values())


def test_columns_of_bytes_are_pictures_only_where_they_hold_some(tmp_path: Path) -> None:
    frame = pl.DataFrame({"photo": [picture(n) for n in range(4)], "mos": SCORES[:4]})
    assert read_annotations(frame).keys == [f"{n:06d}.jpg" for n in range(4)]
    only_names = pl.DataFrame(
        {"photo": [b"a.jpg", b"b.jpg"], "x": [b"\xff\x00", None], "mos": [1.5, 2]}
    )
    assert read_annotations(only_names).keys == ["a.jpg", "b.jpg"]
    assert unpack_pictures(only_names, tmp_path / "out") is None
    assert not (tmp_path / "out").exists()


# -- containers


class StandIn:
    """What Beholder uses of a `datasets.Dataset`."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    def with_format(self, kind: str) -> StandIn:
        assert kind == "arrow"
        return self

    def iter(self, batch_size: int) -> Any:
        return self.frame.iter_slices(batch_size)


@pytest.fixture
def data_set(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    monkeypatch.setattr(StandIn, "__module__", "datasets.arrow_dataset")
    monkeypatch.setitem(sys.modules, "datasets", types.ModuleType("datasets"))
    monkeypatch.setattr(pl, "from_arrow", lambda table: table)
    return StandIn


def test_a_data_set_in_python(tmp_path: Path, data_set: type[StandIn]) -> None:
    frame = pl.concat([hub_frame([None] * 6)] * 60)  # more rows than a batch
    assert unpack_pictures(data_set(frame), tmp_path) == Unpacked(360, 0)
    table = read_annotations(data_set(frame), images=tmp_path)
    assert table.keys == [f"{n:06d}.jpg" for n in range(360)] == sorted(files_in(tmp_path))
    assert (tmp_path / "000299.jpg").read_bytes() == picture(299 % 6)


def test_records_with_pictures(tmp_path: Path) -> None:
    pixels = Image.open(io.BytesIO(picture(2)))
    rows = [
        {"image": {"bytes": picture(0), "path": "x/a.jpg"}, "mos": 1.5},
        {"image": picture(1), "mos": 2.5},
        {"image": pixels, "mos": 3.5},
        "no record",
    ]
    keys = ["x/a.jpg", "000001.jpg", "000002.png"]
    scan = scan_annotations(rows)
    assert scan.table is not None and scan.table.keys == keys
    assert unpack_pictures(rows, tmp_path) == Unpacked(3, 0)
    assert sorted(files_in(tmp_path)) == sorted(keys)
    with Image.open(tmp_path / "000002.png") as written:
        np.testing.assert_array_equal(np.asarray(written), np.asarray(pixels))
    with pytest.raises(DataError, match="only once"):
        unpack_pictures(iter(rows), tmp_path)
    with pictures_at_hand(iter(rows), None) as root:
        assert root is None


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_shards_of_a_data_set(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "set"
    for split, first in (("train", 0), ("test", 3)):
        frame = hub_frame([f"{n}.jpg" for n in range(6)])[first : first + 3]
        shard_folder = folder / (split if kind == "arrow" else "data")
        shard_folder.mkdir(parents=True, exist_ok=True)
        if kind == "arrow":
            frame.write_ipc_stream(shard_folder / "data-00000-of-00001.arrow")
        else:
            frame.write_parquet(shard_folder / f"{split}-00000-of-00001.parquet")
    if kind == "arrow":
        (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    scan = scan_annotations(folder)
    assert scan.table is not None and scan.format == "dataset"
    assert scan.read.to_dict()["splits"] == {"test": 3, "train": 3}
    unpack_pictures(folder, tmp_path / "out")
    assert files_in(tmp_path / "out") == {f"{n}.jpg": picture(n) for n in range(6)}


# -- files


def test_unpacking_goes_on_and_mends(tmp_path: Path) -> None:
    table, out = tmp_path / "t.parquet", tmp_path / "out"
    hub_frame([f"{n}.jpg" for n in range(6)]).write_parquet(table, row_group_size=2)
    assert unpack_pictures(table, out) == Unpacked(6, 0)
    times = {name: (out / name).stat().st_mtime_ns for name in files_in(out)}
    (out / "1.jpg").unlink()
    (out / "2.jpg").write_bytes(picture(2)[:-3])
    (out / "3.jpg").write_bytes(bytes(len(picture(3))))
    assert unpack_pictures(table, out) == Unpacked(3, 3)
    assert files_in(out) == {f"{n}.jpg": picture(n) for n in range(6)}
    assert (out / "0.jpg").stat().st_mtime_ns == times["0.jpg"]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    hub_frame(["a.jpg", "a.jpg/b.jpg"]).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(OutputError, match=r"a\.jpg/b\.jpg"):
        unpack_pictures(tmp_path / "t.parquet", tmp_path / "out")


def test_damaged_tables_are_told_not_unpacked(tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    hub_frame(["a.jpg", "b.jpg"]).write_parquet(table)
    table.write_bytes(table.read_bytes()[:-40])
    assert unpack_pictures(table, tmp_path / "out") is None
    assert "parquet" in str(read_and_check(table).problems).lower()


# -- commands


def test_check_opens_pictures_inside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = hub_frame([f"{n}.jpg" for n in range(6)])
    broken = {"bytes": picture(4)[:400], "path": "4.jpg"}
    images = [broken if n == 4 else cell for n, cell in enumerate(frame["image"])]
    frame = frame.with_columns(pl.Series("image", images))
    table = tmp_path / "t.parquet"
    frame.write_parquet(table)
    with pytest.raises(SystemExit) as left:
        main(["check", str(table), "--format", "json"])
    assert left.value.code == 2
    report = json.loads(capsys.readouterr().out)
    assert [p["key"] for p in report["problems"] if p["severity"] == "error"] == ["4.jpg"]
    assert report["read"]["notes"] == ["6 pictures are inside the table, in 'image'."]
    assert report["read"]["pictures"] == 6 and report["read"]["columns"]["image"] == "image"
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_a_run_has_the_pictures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table, run = tmp_path / "t.parquet", tmp_path / "run"
    hub_frame([f"{n}.jpg" for n in range(6)]).write_parquet(table)
    config = DataConfig(annotations=str(table))
    with caplog.at_level("INFO", "beholder"):
        data = load_data(config, run)
    assert data.root == run / "pictures"
    assert files_in(data.root) == {f"{n}.jpg": picture(n) for n in range(6)}
    assert "6 pictures inside the table are unpacked" in caplog.text
    again = load_data(config, run)
    assert again.digest == data.digest
    given_root = DataConfig(annotations=str(table), images=str(data.root))
    assert load_data(given_root, tmp_path / "other").root == data.root
    assert not (tmp_path / "other" / "pictures").exists()


def test_the_column_that_is_said_is_unpacked(tmp_path: Path) -> None:
    left, right = hub_frame(["a.jpg", "b.jpg"]), [picture(7), picture(8)]
    masks = [{"bytes": content, "path": f"{n}.jpg"} for n, content in enumerate(right)]
    frame = left.rename({"image": "left"}).with_columns(pl.Series("right", masks))
    options = ReadOptions(columns={"image": "right"})
    assert unpack_pictures(frame, tmp_path, options) == Unpacked(2, 0)
    assert files_in(tmp_path) == {"0.jpg": right[0], "1.jpg": right[1]}
