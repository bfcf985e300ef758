"""How a run's table was read opens its log and is kept."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beholder.pipeline.data import load_data
from beholder.pipeline.manifest import READ
from beholder.pipeline.recipe import DataConfig


def test_what_was_understood_is_logged_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chance = np.random.default_rng(0)
    for number in range(12):
        pixels = chance.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"p{number}.png")
    (tmp_path / "extra").mkdir()
    Image.fromarray(255 - pixels).save(tmp_path / "extra" / "new.png")
    (tmp_path / "extra" / "._new.png").write_bytes(b"resource fork")
    rows = "".join(f"{n};p{n};{n / 4 + 1};{4 - n / 4}\n" for n in range(12))
    (tmp_path / "t.csv").write_text(f";name;mos_a;mos_b\n{rows}")
    config = DataConfig(
        annotations=str(tmp_path / "t.csv"), columns={"score": "mos_b"}, unlabelled="extra"
    )
    run = tmp_path / "run"
    run.mkdir()
    with caplog.at_level(logging.INFO, logger="beholder"):
        data = load_data(config, run)
    assert "p0.png" in data.table.keys and "extra/new.png" in data.table.keys
    assert len(data.table) == 13
    assert "Read as generic (text table with semicolons in utf-8)" in caplog.text
    read = json.loads((run / READ).read_text("utf-8"))
    assert read["columns"] == {"score": "mos_b", "image": "name"}
    assert read["score"] == {"low": 1.25, "high": 4.0, "rows": 12}
