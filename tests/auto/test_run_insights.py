"""What a run tells of itself: the pictures that it does worst on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from beholder.auto.run_insights import weakest_slice
from beholder.data.annotations import AnnotationTable
from beholder.pipeline.data import RunData


def run_with(folder: Path, off_where_dark: float) -> RunData:
    """A run with an evaluation of 200 pictures, a quarter of them dark."""
    generator = np.random.default_rng(0)
    keys = [f"{row}.png" for row in range(200)]
    labels = ["dark" if row % 4 == 0 else "light" for row in range(200)]
    target_N = generator.uniform(1.0, 5.0, 200)
    spread_N = np.where(np.array(labels) == "dark", off_where_dark, 0.3)
    (folder / "evaluation").mkdir()
    pl.DataFrame(
        {
            "image": keys, "target.score": target_N,
            "score": target_N + spread_N * generator.normal(size=200),
        }
    ).write_parquet(folder / "evaluation" / "predictions.parquet")  # fmt: skip
    table = AnnotationTable.from_columns(
        keys, score=target_N.tolist(), attributes={"kind": labels},
        classes={"kind": ("dark", "light")},
    )  # fmt: skip
    return RunData(table, folder, "", {key: key for key in keys})


def test_where_it_does_worst(tmp_path: Path) -> None:
    weakest = weakest_slice(run_with(tmp_path, 0.9), tmp_path)
    assert weakest is not None and (weakest.by, weakest.value) == ("kind", "dark")
    assert weakest.pictures == 50
    frame = pl.read_parquet(tmp_path / "evaluation" / "predictions.parquet")
    error_N = (frame["score"] - frame["target.score"]).abs().to_numpy()
    assert np.isclose(weakest.off, error_N[::4].mean())
    assert np.isclose(weakest.others, np.delete(error_N, np.s_[::4]).mean())


def test_chance_is_no_weakness(tmp_path: Path) -> None:
    assert weakest_slice(run_with(tmp_path, 0.32), tmp_path) is None
    assert weakest_slice(RunData(AnnotationTable.from_columns(["a"]), tmp_path, "", {}),
                         tmp_path / "empty") is None  # fmt: skip
