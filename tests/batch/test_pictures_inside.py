"""`judge --list` and `evaluate` with a table that has its pictures inside."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from beholder.cli import main


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve grey pictures in a Parquet file, and temporary folders in `tmp_path/temporary`."""
    images = []
    for level in range(12):
        stream = io.BytesIO()
        Image.new("RGB", (40, 40), (20 * level,) * 3).save(stream, "PNG")
        images.append({"bytes": stream.getvalue(), "path": None})
    path = tmp_path / "t.parquet"
    pl.DataFrame({"image": images, "mos": [n / 4 for n in range(12)]}).write_parquet(path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return path


def run(*arguments: object) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def test_judge_lists_pictures_inside(
    judge: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("judge", judge, "--list", table, "--format", "jsonl") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["image"] for line in lines] == [f"{n:06d}.png" for n in range(12)]
    scores = [line["score"] for line in lines]
    assert scores == sorted(scores) and scores[0] < scores[-1]
    output = tmp_path / "verdicts.jsonl"
    assert run("judge", judge, "--list", table, "--output", output) == 0
    assert run("judge", judge, "--list", table, "--output", output) == 0  # nothing left to do
    written = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert [line["score"] for line in written] == pytest.approx(scores)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_evaluate_has_pictures_inside(
    judge: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", judge, table, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["score"]["srcc"]["value"] == pytest.approx(1.0)
    assert list((tmp_path / "temporary").iterdir()) == []
