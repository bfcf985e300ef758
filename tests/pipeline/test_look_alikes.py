"""`data.near_duplicates` of a recipe, and what is kept of pictures' looks between runs."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from beholder.data.fingerprints import LOOK_BYTES
from beholder.data.splits import LARGE_SET
from beholder.pipeline.data import RunData, load_data
from beholder.pipeline.recipe import DataConfig

ALIKE = LARGE_SET + 5


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Many copies of one picture, as JPEG files of different qualities, and some others."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(ALIKE + 15):
        seed = 0 if number < ALIKE else number
        small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:02}.jpg", quality=50 + number)
    return folder


def load(root: Path, near_duplicates: str, split: dict[int, str] | None = None) -> RunData:
    table = root.parent / "table.csv"
    rows = [f"{n:02}.jpg,{n % 5},{(split or {}).get(n, '')}" for n in range(ALIKE + 15)]
    table.write_text("\n".join(["image,score,split", *rows]))
    config = DataConfig(annotations=str(table), images=str(root), near_duplicates=near_duplicates)  # type: ignore[arg-type]
    return load_data(config, root.parent)


def splits_of_copies(data: RunData) -> set[str]:
    frame = data.table.frame.sort("image")
    return set(frame["split"][:ALIKE])


def test_look_alikes_are_kept_together_only_told_or_not_looked_for(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "beholder")
    together = load(root, "group")
    assert len(splits_of_copies(together)) == 1
    assert len(set(together.units.values())) == 16
    assert f"{ALIKE} of {ALIKE + 15} pictures look alike" in caplog.text
    assert "in several splits" not in caplog.text
    caplog.clear()
    apart = load(root, "warn")
    assert len(splits_of_copies(apart)) == 3
    assert len(set(apart.units.values())) == ALIKE + 15
    assert "look alike are in several splits, 1 sets" in caplog.text
    assert "data.near_duplicates: group" in caplog.text
    caplog.clear()
    (root.parent / "pictures.parquet").unlink()
    ignored = load(root, "ignore")
    assert ignored.table == apart.table
    assert caplog.text == ""
    assert not pl.read_parquet(root.parent / "pictures.parquet")["opened"].any()


def test_what_looks_like_a_given_test_picture_is_not_trained_on(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "beholder")
    data = load(root, "group", split={3: "train", 4: "test", 5: "val"})
    split = dict(zip(data.table.keys, data.table.frame["split"], strict=True))
    assert [split[f"{n:02}.jpg"] for n in (3, 4, 5)] == ["train", "test", "val"]
    others = [split[f"{n:02}.jpg"] for n in range(ALIKE) if n not in (3, 4, 5)]
    assert set(others) == {"test"}
    assert "given splits are kept" in caplog.text


def test_looks_of_an_older_version_are_made_anew(root: Path) -> None:
    fresh = load(root, "group")
    cache = root.parent / "pictures.parquet"
    kept = pl.read_parquet(cache)
    (look,) = [name for name in kept.columns if name.startswith("look")]
    assert {len(value) for value in kept[look]} == {LOOK_BYTES}
    older = kept.with_columns(pl.lit(7, pl.UInt64).alias("look")).drop(look)
    older.select("image", "size", "mtime_ns", "sha256", "look", "opened").write_parquet(cache)
    assert load(root, "group").table == fresh.table
    assert pl.read_parquet(cache).equals(kept)
