"""Verdicts that were changed since they were written are never taken for those asked for."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from brightness_judge import make_judge
from PIL import Image

from beholder.batch import local as batches
from beholder.batch.local import judge_to_file
from beholder.batch.output import Parts
from beholder.batch.requests import find_pictures
from beholder.errors import OutputError

COUNT = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("forty")
    for number in range(COUNT):
        Image.new("RGB", (9, 9), (6 * number,) * 3).save(root / f"{number:02}.png")
    return root


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CHUNK", 8)


def judged(folder: Path, output: Path) -> int:
    """How many were there before."""
    requests = find_pictures([str(folder)])
    return judge_to_file(make_judge(), requests, output, identity="a judge").before


def without_the_first(lines: list[str]) -> list[str]:
    return lines[20:]


def in_another_order(lines: list[str]) -> list[str]:
    return [lines[1], lines[0], *lines[2:]]


def one_twice(lines: list[str]) -> list[str]:
    return [*lines, lines[-1]]


def no_line_of_ours(lines: list[str]) -> list[str]:
    return [*lines[:7], "[1, 2]\n", *lines[8:]]


@pytest.mark.parametrize(
    ("change", "line"),
    [(without_the_first, 1), (in_another_order, 1), (one_twice, 41), (no_line_of_ours, 8)],
)
def test_lines_that_were_changed(change, line: int, folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    output = tmp_path / "verdicts.jsonl"
    assert judged(folder, output) == 0
    whole = output.read_text()
    changed = "".join(change(whole.splitlines(keepends=True)))
    output.write_text(changed)
    with pytest.raises(OutputError, match=f"Line {line} does not hold") as refused:
        judged(folder, output)
    assert output.read_text() == changed, "it is left as it is"
    follow_the_advice(refused.value, output)
    assert judged(folder, output) == 0 and output.read_text() == whole


@pytest.mark.parametrize("what", ["lost", "swapped", "torn", "emptied"])
def test_parts_that_were_changed(what: str, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "verdicts.parquet"
    assert judged(folder, output) == 0
    parts = sorted(output.glob("part-*"))
    assert len(parts) == 5
    if what == "lost":
        parts[1].unlink()
    elif what == "swapped":
        parts[1].write_bytes(parts[2].read_bytes())
    elif what == "torn":
        parts[1].write_bytes(parts[1].read_bytes()[:-9])
    else:
        pl.read_parquet(parts[1]).clear().write_parquet(parts[1])
    with pytest.raises(OutputError, match=r"part-00000001\.parquet (does not|is gone)") as refused:
        judged(folder, output)
    follow_the_advice(refused.value, output)
    assert judged(folder, output) == 0
    images = pl.concat(map(pl.read_parquet, sorted(output.iterdir())))["image"].to_list()
    assert images == [request.name for request in find_pictures([str(folder)])]


def follow_the_advice(error: OutputError, output: Path) -> None:
    """Remove it together with its state."""
    state = output.with_name(f"{output.name}.state.json")
    assert error.fix is not None and state.name in error.fix
    state.unlink()
    if output.is_dir():
        for part in output.iterdir():
            part.unlink()
        output.rmdir()
    else:
        output.unlink()


def test_parts_of_a_known_number_of_rows_may_be_missing(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(10)]
    for number in (0, 2):
        rows = names[4 * number : 4 * number + 4]
        pl.DataFrame({"image": rows}).write_parquet(tmp_path / f"part-{number:08}.parquet")
    assert Parts(tmp_path, {}).open(names, 4) == 6
    pl.DataFrame({"image": names[:4]}).write_parquet(tmp_path / "part-00000002.parquet")
    with pytest.raises(OutputError, match=r"part-00000002\.parquet does not hold"):
        Parts(tmp_path, {}).open(names, 4)
