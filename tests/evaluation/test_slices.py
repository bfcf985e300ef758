"""Coverage slice by slice: each is what a filter of the table gives, and none is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from beholder.evaluation.slices import LEAST, interval_slices


def rows(count: int, seed: int = 0) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    score = generator.uniform(1, 5, count)
    half = generator.uniform(0.1, 1.0, count)
    labels = [None if n % 11 == 0 else ("dark", "bright")[n % 2] for n in range(count)]
    return pl.DataFrame(
        {
            "image": [f"{n}.png" for n in range(count)], "score": score, "low": score - half,
            "high": score + half, "target.score": score + generator.normal(0, 0.5, count),
            "target.attributes.light": labels, "target.attributes.one": ["same"] * count,
        }
    )  # fmt: skip


def test_each_slice_is_a_filter_of_the_table(tmp_path: Path) -> None:
    frame = rows(150)
    for n in range(150):
        Image.new("RGB", (100 * (1 + n % 3), 100)).save(tmp_path / f"{n}.png")
    (tmp_path / "7.png").unlink()
    slices = interval_slices(frame, 0.9, tmp_path)
    by = {name: [part for part in slices if part["by"] == name] for name in ("score", "light")}
    assert {part["by"] for part in slices} == {"score", "light", "size"}
    assert sum(part["pictures"] for part in by["score"]) == 150
    assert [part["value"] for part in by["light"]] == ["bright", "dark"]
    dark = frame.filter(pl.col("target.attributes.light") == "dark")
    inside = dark.select(pl.col("target.score").is_between("low", "high")).to_series()
    found = by["light"][1]
    assert found["pictures"] == dark.height
    assert found["covered"] == pytest.approx(inside.mean())
    assert found["width"] == pytest.approx((dark["high"] - dark["low"]).mean())
    sizes = [part for part in slices if part["by"] == "size"]
    assert sum(part["pictures"] for part in sizes) == 149  # one is gone


def test_few_pictures_and_equal_values_are_no_slices() -> None:
    assert interval_slices(rows(LEAST - 1), 0.9, None) == []
    same = rows(60).with_columns(score=pl.lit(3.0)).drop("target.attributes.light")
    assert interval_slices(same, 0.9, None) == []
    assert all(part["winkler"] is None for part in interval_slices(rows(90), None, None))
