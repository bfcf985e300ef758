"""The pictures of the quality benchmark, their scores, and what it trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

import quality
import quality_pictures
import quality_tuned
from beholder.data.sample.catalogue import CROP_SIZE, crop_variants, photo_names
from beholder.data.sample.distortions import KINDS, LEVELS, PRISTINE
from quality_photos import webp_pictures
from quality_pictures import Job, Pictures, distorted, drawn_crop, every_second_level


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth and rough parts in colour."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    grain = np.random.default_rng(seed + 1).normal(0.0, 12.0, smooth.shape)
    grain[: height // 2] = 0.0
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def test_webp_files_are_found_within_another_file(tmp_path: Path) -> None:
    contents = []
    for index in range(2):
        photo(40, 30, index).save(tmp_path / f"{index}.webp")
        contents.append((tmp_path / f"{index}.webp").read_bytes())
    junk = b"RIFF\xff\xff\xff\x7fWAVE" + b"RIFF"
    assert list(webp_pictures(b"head" + contents[0] + junk + contents[1] + b"RIFF")) == contents


def test_drawn_crops_are_parts_of_the_photograph_and_the_same_every_time() -> None:
    image = photo(700, 300)
    first = drawn_crop(image, "lake", 0)
    assert first.size == (CROP_SIZE, CROP_SIZE)
    assert np.array_equal(first, drawn_crop(image, "lake", 0))
    assert not np.array_equal(first, drawn_crop(image, "lake", 1))
    # no border from beyond the photograph's edges
    white = Image.new("RGB", (1280, 345), "white")
    assert all(np.asarray(drawn_crop(white, "w", scene)).min() == 255 for scene in range(8))


def test_two_crops_have_every_level_between_them() -> None:
    halves = [every_second_level(crop_variants("lake", crop)) for crop in (2, 3)]
    assert [half[0].kind for half in halves] == [PRISTINE, PRISTINE]
    distortions = [(entry.kind, entry.level) for half in halves for entry in half[1:]]
    assert sorted(distortions) == sorted((kind, level) for kind in KINDS for level in LEVELS)


def test_pictures_are_made_once_and_anew_for_another_photograph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file = tmp_path / "lake.png"
    photo(300, 280).save(file)
    job = Job(file, 0, True)
    first = distorted(tmp_path, "third", [job])
    assert len(first) == 13 and set(first.photos) == {"lake"}
    assert first.scores[0] == first.scores.max() == pytest.approx(4.76, abs=0.01)
    assert all((first.root / key).is_file() for key in first.keys)
    monkeypatch.setattr(quality_pictures, "_make", None)
    assert np.array_equal(distorted(tmp_path, "third", [job]).scores, first.scores)
    photo(300, 280, seed=5).save(file)
    monkeypatch.undo()
    assert distorted(tmp_path, "third", [job]).root != first.root


def some(root: Path, photos: list[str]) -> Pictures:
    keys = np.array([f"{photo}/{n}.webp" for photo in photos for n in range(4)])
    return Pictures(root, keys, np.tile(np.arange(4.0), len(photos)), np.repeat(photos, 4))


def test_fine_tuning_is_a_recipe_over_one_table(tmp_path: Path) -> None:
    home, third = some(tmp_path / "sample" / "images", ["a"]), some(tmp_path / "third", ["a"])
    table = quality_tuned.table_of({"train": [home, third], "test": [home]}, tmp_path)
    assert table["image"][0] == "sample/images/a/0.webp"
    assert table["image"][4] == "third/a/0.webp"
    assert table["split"].to_list() == ["train"] * 8 + ["test"] * 4
    recipe = quality_tuned.recipe(tmp_path / "q.csv", tmp_path, "efficientnet-lite1", 3, 10)
    stage = recipe.stages["score"]
    assert stage.kind == "train" and stage.task.train_backbone and stage.features is None
    assert stage.augment is not None and stage.augment.preserves_quality
    assert recipe.backbone is not None and recipe.backbone.pooling == "early"


def test_what_the_judge_says_goes_to_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fitted(recipe: quality_tuned.Recipe, run: Path) -> None:
        table = pl.read_csv(recipe.data.annotations).filter(pl.col("split") == "test")
        (run / "evaluation").mkdir(parents=True)
        predictions = table.select("image", predicted_score=pl.col("score") * 10.0).reverse()
        predictions.write_parquet(run / "evaluation" / "predictions.parquet")

    monkeypatch.setattr(quality_tuned, "fit_recipe", fitted)
    first, other = some(tmp_path / "a", ["x"]), some(tmp_path / "b", ["y", "z"])
    splits = {"train": [first], "val": [other], "test": [other, first]}
    predicted = quality_tuned.fine_tuned(tmp_path, "one", "efficientnet-lite0", splits, 5)
    for picture, score in zip(splits["test"], predicted, strict=True):
        assert score.tolist() == (picture.scores * 10.0).tolist()


def test_folds_share_no_photograph_and_are_scored_one_by_one(tmp_path: Path) -> None:
    folds = quality.photo_folds()
    assert len({name for fold in folds for name in fold}) == 12
    sample = some(tmp_path, list(photo_names()))
    predicted = sample.scores.copy()
    predicted[sample.of(folds[0])] *= -1.0
    assert quality.fold_srcc(sample, predicted, folds) == " 0.500 (-1.000)"


def test_validation_is_on_photographs_of_its_own(tmp_path: Path) -> None:
    third = some(tmp_path, [f"p{n:02}" for n in range(40)])
    chosen = quality_pictures.validation_photos(third)
    assert len(set(chosen)) == quality_pictures.VALIDATION
    assert chosen == quality_pictures.validation_photos(third.part(third.scores > 1.0))
