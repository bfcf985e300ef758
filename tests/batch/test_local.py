"""Verdicts into a file: each picture once and in order, also after kill -9."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from brightness_judge import make_judge
from PIL import Image

from beholder.batch import local as batches
from beholder.batch.local import judge_to_file
from beholder.batch.output import identity_of
from beholder.batch.requests import find_pictures, listed_pictures
from beholder.cli import main
from beholder.errors import DataError, OutputError
from beholder.judge import Judge
from beholder.judge.runner import judge_pictures
from beholder.judge.verdict import Failure

COUNT = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many")
    for number in range(COUNT):
        path = root / f"{number:03}.png"
        if number % 50 == 7:
            path.write_bytes(b"not a picture")
        else:
            Image.new("RGB", (9, 9), (number,) * 3).save(path)
    return root


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CHUNK", 8)


def rows(path: Path) -> list[tuple[str, float | None]]:
    """Image and score of every row; the same for both kinds of files."""
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return [(row["image"], row.get("score")) for row in lines]
    frame = pl.concat(pl.read_parquet(part) for part in sorted(path.iterdir()))
    return frame.select("image", "score").rows()


def expected(folder: Path) -> list[tuple[str, float | None]]:
    outcomes = judge_pictures(make_judge(), find_pictures([str(folder)]))
    return [
        (verdict.image, None if isinstance(verdict, Failure) else verdict.score)
        for verdict in outcomes
    ]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("seconds", [0.3, 0.7])
def test_a_killed_work_is_gone_on_with(
    tmp_path: Path, folder: Path, ending: str, seconds: float
) -> None:
    output = tmp_path / f"verdicts.{ending}"
    program = [sys.executable, str(Path(__file__).with_name("slow_batches.py"))]
    command = [*program, str(folder), str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not output.exists() or not any(rows_so_far(output)):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    before = len(rows_so_far(output))
    assert 0 < before < COUNT
    done = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"{COUNT} pictures, {before} of them before; 4 could not be judged" in done
    assert rows(output) == expected(folder)
    quarantine = output.with_name(f"{output.name}.quarantine.csv").read_text("utf-8").splitlines()
    assert quarantine[0] == "image,code,reason"
    assert [line.split(",")[1] for line in quarantine[1:]] == ["not_a_picture"] * 4
    again = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"{COUNT} pictures, {COUNT} of them before" in again
    assert rows(output) == expected(folder)


def rows_so_far(path: Path) -> list[object]:
    """Whole rows, while it grows or after a kill."""
    if path.suffix == ".jsonl":
        return list(path.read_bytes().split(b"\n")[:-1])
    return [row for part in path.glob("part-*") for row in pl.read_parquet(part).rows()]


def test_what_is_slow_is_flushed_by_the_clock(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "SECONDS", 0.0)
    output = tmp_path / "verdicts.parquet"
    judge_to_file(make_judge(), find_pictures([str(folder)])[:5], output, identity="a")
    assert len(list(output.iterdir())) == 5


def test_half_a_part_is_removed(tmp_path: Path, folder: Path) -> None:
    requests = find_pictures([str(folder)])[:20]
    output = tmp_path / "verdicts.parquet"
    judge_to_file(make_judge(), requests, output, identity="a")
    whole = rows(output)
    last = output / "part-00000002.parquet"
    half = output / ".part-00000002.parquet.abc"
    half.mkdir()
    (half / last.name).write_bytes(last.read_bytes()[:50])
    last.unlink()
    judge_to_file(make_judge(), requests, output, identity="a")
    assert rows(output) == whole
    assert not half.exists()


def test_half_a_line_is_cut_off(tmp_path: Path, folder: Path) -> None:
    requests = find_pictures([str(folder)])[:20]
    output = tmp_path / "verdicts.jsonl"
    judge_to_file(make_judge(), requests, output, identity="a")
    whole = output.read_bytes()
    for kept in (len(whole) - 1, len(whole) // 2, 1, 0):
        output.write_bytes(whole[:kept])
        judge_to_file(make_judge(), requests, output, identity="a")
        assert output.read_bytes() == whole


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from beholder.cli import main
main(sys.argv[2:])
"""


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("room", [0, 1000])
def test_a_full_disk_is_told_and_gone_on_with(
    tmp_path: Path, folder: Path, judge: Path, ending: str, room: int
) -> None:
    """With room for the state, or for nothing; the operating system refuses larger files."""
    output = tmp_path / f"verdicts.{ending}"
    arguments = [str(argument) for argument in ("judge", judge, folder, "--output", output)]
    command = [sys.executable, "-c", LIMITED, str(room), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.search("error: The verdicts can't be written: .*File too large", done.stderr)
    assert f"where: {output}" in done.stderr
    elsewhere = tmp_path / f"elsewhere.{ending}"
    for target in (output, elsewhere):
        with pytest.raises(SystemExit) as left:
            main([*arguments[:-1], str(target)])
        assert left.value.code == 1  # some could not be judged
    assert rows(output) == rows(elsewhere)
    assert len(rows(output)) == COUNT


def test_a_place_that_is_none_is_told(tmp_path: Path, folder: Path) -> None:
    requests = find_pictures([str(folder)])[:2]
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match=r"Not a directory|File exists"):
        judge_to_file(make_judge(), requests, tmp_path / "file" / "v.jsonl", identity="a")


def test_other_work_is_not_gone_on_with(tmp_path: Path, folder: Path) -> None:
    requests = find_pictures([str(folder)])[:10]
    output = tmp_path / "verdicts.jsonl"
    judge_to_file(make_judge(), requests, output, identity="a")
    before = output.read_bytes()
    with pytest.raises(OutputError, match="another judge"):
        judge_to_file(make_judge(), requests, output, identity="b")
    with pytest.raises(OutputError, match="another list of pictures"):
        judge_to_file(make_judge(), requests[:9], output, identity="a")
    (tmp_path / "mine.jsonl").write_text("precious")
    with pytest.raises(OutputError, match="something here already"):
        judge_to_file(make_judge(), requests, tmp_path / "mine.jsonl", identity="a")
    with pytest.raises(OutputError, match=r"not as \.csv"):
        judge_to_file(make_judge(), requests, tmp_path / "verdicts.csv", identity="a")
    assert output.read_bytes() == before
    assert (tmp_path / "mine.jsonl").read_text() == "precious"


def test_another_backend_is_other_work(tmp_path: Path) -> None:
    file = tmp_path / "judge.beholder"
    file.write_bytes(b"a judge")
    assert identity_of(file) == identity_of(file, "onnxruntime") != identity_of(file, "openvino")


def test_a_row_of_parquet_says_what_a_verdict_says(tmp_path: Path, folder: Path) -> None:
    requests = find_pictures([str(folder)])[6:9]
    output = tmp_path / "verdicts.parquet"
    done = judge_to_file(make_judge(), requests, output, identity="a")
    assert (done.pictures, done.before, done.failed) == (3, 0, 1)
    assert 0 < done.busy <= 1
    first, broken, _ = pl.read_parquet(output / "part-00000000.parquet").to_dicts()
    (verdict,) = judge_pictures(make_judge(), requests[:1])
    assert first["score"] == verdict.score  # type: ignore[union-attr]
    assert first["attributes.light"] == "dark" and first["error"] is None
    assert broken["score"] is None and broken["error"]["code"] == "not_a_picture"


@pytest.mark.parametrize("ending", ["csv", "parquet", "txt"])
def test_pictures_are_listed_in_files(tmp_path: Path, folder: Path, ending: str) -> None:
    names = ["003.png", "001.png", "00 x.png"]
    path = tmp_path / f"list.{ending}"
    if ending == "txt":
        path.write_text("\n".join(names) + "\n", "utf-8")
    elif ending == "csv":
        pl.DataFrame({"score": [1, 2, 3], "image": names}).write_csv(path)
    else:
        pl.DataFrame({"image": names}).write_parquet(path)
    listed = listed_pictures(path, folder)
    assert [(request.name, request.path) for request in listed] == [
        (name, folder / name) for name in names
    ]
    assert [listed[index] for index in range(3)] == list(listed)
    assert list(listed[1:]) == list(listed)[1:]
    assert listed_pictures(path)[0].path == tmp_path / "003.png"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("width\n3\n", "can't be read"),
        ("image\n", "no picture"),
        ("image,b\na,1\n,2\n", "row 2"),
    ],
)
def test_bad_lists_are_told(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=reason):
        listed_pictures(path)


@pytest.mark.parametrize(
    "arguments",
    [[], ["a.png", "--list", "b.csv"], ["a.png", "--images", "."],
     ["a.png", "--output", "o.jsonl", "--explain", "score", "--into", "here"],
     ["a.png", "--output", "o.jsonl", "--format", "table"], ["a.png", "--output", "o.csv"],
     ["a.png", "--engine", "ray"], ["a.png", "--output", "o.jsonl", "--engine", "ray"],
     ["a.png", "--output", "o.parquet", "--ray-address", "auto"]],
)  # fmt: skip
def test_arguments_that_contradict_each_other_are_told_before_a_judge_is_loaded(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[object] = []
    monkeypatch.setattr(Judge, "load", loaded.append)
    with pytest.raises(SystemExit) as left:
        main(["judge", "model", *arguments])
    assert left.value.code == 2
    assert not loaded


def test_memory_does_not_grow_with_the_pictures(tmp_path: Path, folder: Path) -> None:
    """Only a few batches are decoded ahead, however many pictures there are."""
    judge = make_judge()
    prepared = 0
    prepare = judge.prepare

    def count(*args: object, **kwargs: object) -> object:
        nonlocal prepared
        prepared += 1
        return prepare(*args, **kwargs)  # type: ignore[arg-type]

    judge.prepare = count  # type: ignore[method-assign,assignment]
    outcomes = judge_pictures(judge, find_pictures([str(folder)]), batch_size=4)
    next(outcomes)
    assert prepared <= 3 * 4
