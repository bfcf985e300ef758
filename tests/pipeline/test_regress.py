"""Stages `regress` and `average`: which store is predicted by what, and what stops them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import timm
import yaml
from changed_recipes import changed_recipe
from former_runs import forget_files
from outputs import output
from PIL import Image

from beholder.data.annotations import AnnotationTable
from beholder.data.formats import read_annotations
from beholder.errors import DataError, MissingExtra, RecipeError, StoreError
from beholder.features.store import FeatureStore
from beholder.models.regressors.ensemble import ScoreEnsemble
from beholder.pipeline import runner
from beholder.pipeline.manifest import load_manifest
from beholder.pipeline.recipe import Recipe, shipped_recipes
from beholder.pipeline.runner import fit_recipe
from beholder.pipeline.smoke import smoke_run
from beholder.pipeline.stages.pseudo_labels import with_targets

STORES = ("one", "one-flipped", "two", "two-flipped")


def raw_recipe(root: Path) -> dict[str, Any]:
    """Noise of seven strengths, which is the score; 4 of 60 pictures come without one."""
    pictures = root / "pictures"
    if not pictures.exists():
        (pictures / "test").mkdir(parents=True)
        generator = np.random.default_rng(0)
        rows = ["image,score,split,group"]
        for index in range(64):
            level = index % 7
            noise = generator.integers(0, 20 + level * 30, (48, 48, 3)).astype(np.uint8)
            if index >= 60:
                Image.fromarray(noise).save(pictures / "test" / f"{index}.png")
                continue
            Image.fromarray(noise).save(pictures / f"{index}.png")
            split = "train" if index < 36 else ("val" if index < 48 else "test")
            rows.append(f"{index}.png,{level + index / 100},{split},{split}{index // 2}")
        (root / "scores.csv").write_text("\n".join(rows) + "\n")
    small = {"weights": "random", "size": 64, "pooling": "stages"}
    extract = {"kind": "extract", "tokens": False, "workers": 0, "batch_size": 8}
    stores = {name: {**extract, "backbone": name.split("-")[0]} for name in STORES}
    for name in STORES[1::2]:
        stores[name]["flip"] = True
    return {
        "name": "small",
        "data": {
            "annotations": str(root / "scores.csv"), "images": str(pictures), "unlabelled": "test",
        },
        "backbones": {
            "one": {"name": "timm/test_efficientnet", **small},
            "two": {"name": "timm/test_resnet", "weights": "random", "size": 64},
        },
        "stages": {
            **stores,
            "mos": {
                "kind": "regress", "features": list(STORES),
                "regressor": {"kind": "ensemble", "members": ["ridge", "kernel"], "folds": 3},
            },
            "scores": {"kind": "average", "of": ["mos"], "calibrate": "val"},
        },
    }  # fmt: skip


def changed(root: Path, **changes: object) -> Recipe:
    return changed_recipe(raw_recipe(root), **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("regress")
    assert fit_recipe(changed(root), root / "run") == [*STORES, "mos", "scores"]
    return root


def test_every_store_is_predicted_by_every_regressor_of_its_backbone(finished: Path) -> None:
    run = finished / "run"
    long = pl.read_parquet(output(run, "mos", "predictions"))
    pairs = set(long.select("regressor", "store").unique().rows())
    assert pairs == {
        (f"{b}{r}", f"{b}{s}") for b in ("one", "two") for r in ("", "-flipped")
        for s in ("", "-flipped")
    }  # fmt: skip
    assert long.height == 8 * 64
    models = output(run, "mos", "models")
    for regressor, store in pairs:
        features = FeatureStore.open(output(run, store, "store")).read(["50.png"], tokens=False)[1]
        expected = ScoreEnsemble.load(models / regressor).predict(features)[0]
        where = (pl.col("regressor") == regressor) & (pl.col("store") == store)
        score = long.filter(where & (pl.col("image") == "50.png"))["score"].item()
        assert score == pytest.approx(expected, abs=1e-6)


def test_scores_are_the_mean_of_all_predictions_of_all_pictures(finished: Path) -> None:
    run = finished / "run"
    frame = pl.read_parquet(output(run, "scores", "predictions"))
    assert frame.height == 64
    predictions = [name for name in frame.columns if " on " in name]
    assert len(predictions) == 8
    values = frame.select(predictions).to_numpy()
    np.testing.assert_allclose(frame["predicted_score"], values.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(frame["spread"], values.std(axis=1), rtol=1e-9)
    unlabelled = frame.filter(pl.col("split").is_null())
    assert unlabelled["image"].to_list() == [f"test/{index}.png" for index in range(60, 64)]
    assert unlabelled["score"].null_count() == 4
    known = frame.filter(pl.col("split") == "test")
    assert np.corrcoef(known["score"], known["predicted_score"])[0, 1] > 0.9
    table = read_annotations(output(run, "scores", "csv"))  # again a table of scores
    assert table.keys == frame["image"].to_list()
    np.testing.assert_allclose(table.frame["score"], frame["predicted_score"])


def test_intervals_come_from_the_calibration_split_and_are_measured_on_another(
    finished: Path, run: Path
) -> None:
    metrics = json.loads(output(run, "scores", "metrics").read_text())
    frame = pl.read_parquet(output(run, "scores", "predictions"))
    interval = metrics["interval"]
    training = frame.filter(pl.col("split") == "train")
    val = frame.filter(pl.col("split") == "val")
    assert interval["floor"] == pytest.approx(training["spread"].mean())
    ratios = (val["score"] - val["predicted_score"]).abs() / (val["spread"] + interval["floor"])
    assert interval["quantile"] == pytest.approx(ratios.sort()[11])  # ceil(13 * 0.9) of 12
    half = interval["quantile"] * (frame["spread"] + interval["floor"])
    np.testing.assert_allclose(frame["high"] - frame["predicted_score"], half)
    np.testing.assert_allclose(frame["predicted_score"] - frame["low"], half)
    test = frame.filter(pl.col("split") == "test")
    inside = (test["low"] <= test["score"]) & (test["score"] <= test["high"])
    assert metrics["test"]["coverage"] == inside.mean()
    assert metrics["test"]["interval_width"] == pytest.approx((test["high"] - test["low"]).mean())
    assert "coverage" not in metrics["val"]
    plain = changed(finished, stages__scores__normalised=False)
    assert fit_recipe(plain, run) == ["scores"]
    frame = pl.read_parquet(output(run, "scores", "predictions"))
    assert (frame["high"] - frame["low"]).round(9).n_unique() == 1
    assert fit_recipe(changed(finished, stages__scores__calibrate=None), run) == ["scores"]
    frame = pl.read_parquet(output(run, "scores", "predictions"))
    assert frame["low"].null_count() == frame["high"].null_count() == 64
    record = load_manifest(run).find("scores")  # type: ignore[union-attr]
    assert record is not None
    assert {"srcc.test", "plcc.val"} <= set(record.metrics)
    assert "coverage.test" not in record.metrics


def test_few_groups_to_calibrate_on_are_told(
    finished: Path, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit_recipe(changed(finished, stages__scores__level=0.8), run)
    assert "groups only" not in caplog.text  # 12 pictures in 6 groups, 4 are enough for 80 %
    fit_recipe(changed(finished, stages__scores__level=0.9), run)
    assert "12 pictures that intervals are calibrated on are of 6 groups only" in caplog.text


def test_a_stopped_regression_goes_on_with_what_is_done(
    finished: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pl.read_parquet(output(run, "mos", "predictions"))
    folder = output(run, "mos", "predictions").parent
    (folder / "predictions.parquet").unlink()
    (folder / "parts" / "two.parquet").unlink()  # stopped after its regressor was saved
    shutil.rmtree(folder / "models" / "two-flipped")
    (folder / "parts" / "two-flipped.parquet").unlink()
    fitted = []
    plain = ScoreEnsemble.fit.__func__  # type: ignore[attr-defined]

    def count(cls: type[ScoreEnsemble], features: np.ndarray, *rest: Any, **more: Any) -> Any:
        fitted.append(features.shape)
        return plain(cls, features, *rest, **more)

    def before_the_run(*args: Any) -> Any:
        costs = smoke_run(*args)
        fitted.clear()
        return costs

    monkeypatch.setattr(ScoreEnsemble, "fit", classmethod(count))
    monkeypatch.setattr(runner, "smoke_run", before_the_run)
    assert fit_recipe(changed(finished), run) == ["mos"]
    assert len(fitted) == 1
    assert pl.read_parquet(output(run, "mos", "predictions")).equals(before)


def test_unlabelled_pictures_are_extracted_and_never_trained_on(finished: Path) -> None:
    table = pl.read_parquet(finished / "run" / "annotations.parquet")
    assert table.filter(pl.col("image").str.starts_with("test/"))["split"].null_count() == 4
    store = FeatureStore.open(output(finished / "run", "one", "store"))
    assert "test/61.png" in store
    with pytest.raises(DataError, match="no further picture"):
        fit_recipe(changed(finished, data__unlabelled="nowhere"), finished / "none")


def test_a_broken_picture_is_left_out_of_all_predictions(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "pictures", tmp_path / "pictures")
    (tmp_path / "pictures" / "7.png").write_bytes(b"no picture")
    (tmp_path / "pictures" / "40.png").write_bytes(b"no picture either")
    recipe = changed(finished, data__images=str(tmp_path / "pictures"))
    fit_recipe(recipe, tmp_path / "run")
    frame = pl.read_parquet(output(tmp_path / "run", "scores", "predictions"))
    assert frame.height == 62
    assert not {"7.png", "40.png"} & set(frame["image"])
    quarantined = pl.read_csv(tmp_path / "run" / "quarantine.csv")
    assert quarantined["image"].to_list() == ["7.png", "40.png"]


def test_what_can_not_be_learnt_is_told_before_anything_runs(
    finished: Path, tmp_path: Path
) -> None:
    def refused(error: type[Exception], match: str, **changes: object) -> None:
        with pytest.raises(error, match=match):
            fit_recipe(changed(finished, **changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    folds = {"kind": "ensemble", "folds": 30}
    refused(DataError, "36 pictures in 18 groups can't be divided into 30 folds",
            stages__mos__regressor=folds)  # fmt: skip
    refused(RecipeError, "99% intervals need at least 99", stages__scores__level=0.99)
    refused(RecipeError, "no spread", stages__mos__features=["one"])
    refused(RecipeError, "needs a stage of kind extract", stages__mos__features=["scores"])
    lines = (finished / "scores.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    constant = [",".join([row[0], "3.0", *row[2:]]) for row in rows[1:]]
    (tmp_path / "constant.csv").write_text("\n".join([lines[0], *constant]))
    refused(DataError, "36 training pictures with a score have 1 different",
            data__annotations=str(tmp_path / "constant.csv"))  # fmt: skip


def test_autogluon_says_what_it_needs(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    try:
        import autogluon.tabular  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(MissingExtra, match="`autogluon` extra"):
            fit_recipe(
                changed(finished, stages__mos__regressor={"kind": "autogluon"}), tmp_path / "run"
            )


def test_a_store_that_lost_pictures_is_refused_with_both_differences(
    finished: Path, run: Path
) -> None:
    shutil.rmtree(output(run, "mos", "predictions").parent)
    index = output(run, "two", "store") / "index.parquet"
    rows = pl.read_parquet(index).filter(pl.col("image") != "3.png")
    other = rows.head(1).with_columns(image=pl.lit("foreign.png"))
    pl.concat([rows, other]).write_parquet(index)
    forget_files(run)
    with pytest.raises(StoreError, match=r"only in the table 1: 3\.png; only in the store 1: f"):
        fit_recipe(changed(finished), run)


def test_the_recipe_names_models_that_timm_publishes_at_their_sizes() -> None:
    recipe = yaml.safe_load(shipped_recipes()["samsung-iqa-score"].read_text())
    known = set(timm.list_pretrained())
    sizes = {}
    for name, backbone in recipe["backbones"].items():
        model = backbone["name"].removeprefix("timm/")
        assert model in known
        published = timm.get_pretrained_cfg(model)
        tested = (published.test_input_size or published.input_size)[-1]
        sizes[name] = (backbone["size"], tested)
    # the vision transformer's position embeddings are resampled from 24 x 24 to 37 x 37
    assert sizes == {
        "vit-h": (518, 336), "swin-384": (384, 384), "swin-192": (192, 192), "nfnet-f5": (544, 544),
    }  # fmt: skip
    assert recipe["backbones"]["vit-h"]["size"] % 14 == 0
    extracted = [s for s in recipe["stages"].values() if s["kind"] == "extract"]
    assert len(extracted) == 8
    assert recipe["stages"]["mos"]["features"] == [
        name for name, stage in recipe["stages"].items() if stage["kind"] == "extract"
    ]


def test_predictions_are_targets_where_no_score_is_given(finished: Path, run: Path) -> None:
    student = {
        "kind": "train", "features": "one", "targets": "scores", "task": {"kind": "score"},
        "training": {"epochs": 1, "batch_size": 4},
    }  # fmt: skip
    assert fit_recipe(changed(finished, stages__student=student), run) == ["student"]
    record = load_manifest(run)
    assert record is not None
    student_record = record.find("student")
    assert student_record is not None
    # 36 scored training pictures and 4 without a score, by 4
    assert student_record.metrics["steps"] == 10
    predictions = pl.read_parquet(output(run, "scores", "predictions"))
    table = AnnotationTable.from_parquet(run / "annotations.parquet")
    learnt = with_targets(table, predictions).frame
    assert learnt["split"].to_list() == ["train"] * 40
    targets = dict(table.frame.select("image", "score").iter_rows())
    predicted = dict(predictions.select("image", "predicted_score").iter_rows())
    for key, score in learnt.select("image", "score").iter_rows():
        expected = predicted[key] if key.startswith("test/") else targets[key]
        assert score == expected


def test_targets_are_for_scores_and_come_from_an_average(finished: Path, run: Path) -> None:
    student = {
        "kind": "train", "features": "one", "targets": "mos", "task": {"kind": "score"},
        "training": {"epochs": 1},
    }  # fmt: skip
    with pytest.raises(RecipeError, match="average"):
        fit_recipe(changed(finished, stages__student=student), run)
    student |= {"targets": "scores", "task": {"kind": "caption"}}
    with pytest.raises(RecipeError, match="tasks that learn scores"):
        changed(finished, stages__student=student)
