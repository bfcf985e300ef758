"""Extraction: the backbone's own features, whatever the workers; bad pictures quarantined."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from beholder.data.annotations import AnnotationTable
from beholder.errors import DataError, StoreError
from beholder.features.backbones import Backbone, create_backbone
from beholder.features.config import BackboneConfig
from beholder.features.extract import extract
from beholder.features.store import FeatureStore


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return create_backbone(
        BackboneConfig(name="timm/test_efficientnet", weights="random", size=64, pooling="stages")
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for index in range(7):
        pixels = generator.integers(0, 256, (80, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{index}.png")
    return tmp_path / "pictures"


def table_of(count: int, **columns: list[object]) -> AnnotationTable:
    return AnnotationTable.from_columns([f"{index}.png" for index in range(count)], **columns)


@pytest.mark.parametrize(("workers", "batch_size"), [(0, 3), (2, 2), (1, 16)])
def test_features_are_the_backbones_whatever_the_workers(
    backbone: Backbone, root: Path, tmp_path: Path, workers: int, batch_size: int
) -> None:
    table = table_of(7)
    summary = extract(
        backbone, table, root, tmp_path / "store",
        batch_size=batch_size, workers=workers, dtype="float32", device="cpu",
    )  # fmt: skip
    assert (summary.written, summary.reused, summary.quarantined) == (7, 0, 0)
    store = FeatureStore.open(tmp_path / "store", expect_fingerprint=backbone.fingerprint())
    tokens, pooled = store.read(table.keys)
    pixels = np.stack([backbone.transform.read(root / key) for key in table.keys])
    with torch.inference_mode():
        expected = backbone(torch.from_numpy(pixels))
    np.testing.assert_allclose(tokens, expected.tokens_BNC.numpy(), atol=1e-5)
    np.testing.assert_allclose(pooled, expected.pooled_BP.numpy(), atol=1e-5)


def test_box_and_flip_reach_the_pixels(backbone: Backbone, root: Path, tmp_path: Path) -> None:
    box = [5.0, 6.0, 75.0, 76.0]
    extract(
        backbone, table_of(1, box=[box]), root, tmp_path / "store",
        workers=0, dtype="float32", device="cpu", flip=True, tokens=False,
    )  # fmt: skip
    tokens, pooled = FeatureStore.open(tmp_path / "store").read(["0.png"])
    assert tokens.shape == (1, 0, 0)
    pixels = torch.from_numpy(backbone.transform.read(root / "0.png", box))[None].flip(-1)
    with torch.inference_mode():
        np.testing.assert_allclose(pooled, backbone(pixels).pooled_BP.numpy(), atol=1e-5)


def test_unchanged_pictures_are_reused_and_changed_ones_done_again(
    backbone: Backbone, root: Path, tmp_path: Path
) -> None:
    options = {"workers": 0, "dtype": "float32", "device": "cpu"}
    extract(backbone, table_of(5), root, tmp_path / "store", **options)
    before = FeatureStore.open(tmp_path / "store").read(["3.png", "4.png"])[1]
    Image.new("RGB", (64, 64), "red").save(root / "3.png")
    again = extract(backbone, table_of(7), root, tmp_path / "store", **options)
    assert (again.written, again.reused) == (3, 4)
    after = FeatureStore.open(tmp_path / "store").read(["3.png", "4.png"])[1]
    assert not np.array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])
    moved = table_of(5, box=[[0.0, 0.0, 70.0, 70.0], *[None] * 4])
    assert extract(backbone, moved, root, tmp_path / "store", **options).written == 1


def test_bad_pictures_are_quarantined_with_their_reason_and_never_replaced(
    backbone: Backbone, root: Path, tmp_path: Path
) -> None:
    (root / "2.png").write_text("no picture, really")
    (root / "4.png").unlink()
    (root / "5.png").write_bytes((root / "5.png").read_bytes()[:500])
    summary = extract(
        backbone, table_of(7), root, tmp_path / "store", batch_size=2, workers=2, device="cpu"
    )
    assert (summary.written, summary.quarantined) == (4, 3)
    assert FeatureStore.open(tmp_path / "store").keys == ["0.png", "1.png", "3.png", "6.png"]
    with (tmp_path / "store" / "quarantine.csv").open(encoding="utf-8") as stream:
        rows = {row["image"]: row for row in csv.DictReader(stream)}
    assert {key: row["code"] for key, row in rows.items()} == {
        "2.png": "not_a_picture", "4.png": "missing", "5.png": "truncated",
    }  # fmt: skip
    assert all(row["message"] for row in rows.values())
    extract(backbone, table_of(2), root, tmp_path / "store", workers=0, device="cpu")
    assert not (tmp_path / "store" / "quarantine.csv").exists()


def test_missing_root_is_refused_and_nothing_written(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        extract(backbone, table_of(2), tmp_path / "none", tmp_path / "store", device="cpu")
    assert not (tmp_path / "store").exists()


def test_store_of_another_backbone_is_refused_and_left_as_it_was(
    backbone: Backbone, root: Path, tmp_path: Path
) -> None:
    extract(backbone, table_of(2), root, tmp_path / "store", workers=0, device="cpu")
    before = {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()}
    other = create_backbone(backbone.config.model_copy(update={"seed": 9}))
    with pytest.raises(StoreError, match="not of timm/test_efficientnet"):
        extract(other, table_of(2), root, tmp_path / "store", workers=0, device="cpu")
    assert {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()} == before


def test_extraction_shows_its_progress(
    backbone: Backbone, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    extract(backbone, table_of(7), root, tmp_path / "store", workers=0, device="cpu")
    printed = capfd.readouterr().err
    assert "7/7 pictures" in printed
    assert "pictures/s" in printed
