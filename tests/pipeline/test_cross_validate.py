"""Stage `cross_validate`: who predicts what, what it tells of intervals, and what stops it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from outputs import output
from PIL import Image

from beholder.errors import DataError, RecipeError
from beholder.metrics.conformal import fit_conformal_by_score
from beholder.pipeline import smoke
from beholder.pipeline.overrides import apply_overrides
from beholder.pipeline.recipe import Recipe, parse_recipe
from beholder.pipeline.runner import fit_recipe
from beholder.training import loop

GROUPS, EACH = 12, 6


def raw_recipe(root: Path) -> dict[str, Any]:
    """Colours of twelve groups, whose scores follow no rule; two groups are left for the test."""
    pictures = root / "pictures"
    if not pictures.exists():
        pictures.mkdir()
        generator = np.random.default_rng(0)
        colours = generator.integers(40, 216, (GROUPS, 3))
        scores = generator.permutation(GROUPS)
        rows = ["image,score,split,group"]
        for group in range(GROUPS):
            split = "train" if group < 8 else "val" if group < 10 else "test"
            for number in range(EACH):
                pixels = colours[group] + generator.normal(0.0, 6.0, (48, 48, 3))
                name = f"{group}-{number}.png"
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(pictures / name)
                score = "" if (group, number) == (3, 1) else scores[group] + number / 50
                rows.append(f"{name},{score},{split},g{group}")
        (root / "scores.csv").write_text("\n".join(rows) + "\n")
    return {
        "name": "small",
        "data": {"annotations": str(root / "scores.csv"), "images": str(pictures)},
        "backbone": {
            "name": "timm/test_efficientnet", "weights": "random", "size": 48, "pooling": "early",
        },
        "stages": {
            "features": {"kind": "extract", "tokens": False, "workers": 0, "batch_size": 8},
            "score": {
                "kind": "train",
                "features": "features",
                "task": {"kind": "score", "head": {"hidden": [32]}},
                "training": {"epochs": 30, "batch_size": 16, "lr": 3e-3, "evaluate_every": 10},
            },
            "errors": {"kind": "cross_validate", "of": "score", "folds": 5},
            "judge": {"kind": "assemble", "heads": ["score"], "intervals": "errors", "level": 0.8},
        },
    }  # fmt: skip


def changed(root: Path, *overrides: str) -> Recipe:
    return parse_recipe(apply_overrides(raw_recipe(root), overrides))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cross")
    fit_recipe(parse_recipe(raw_recipe(root)), root / "run")
    return root


def predictions(run: Path) -> pl.DataFrame:
    return pl.read_parquet(output(run, "errors", "predictions"))


def test_every_picture_is_predicted_once_by_what_has_not_seen_its_group(finished: Path) -> None:
    frame = predictions(finished / "run").with_columns(
        group=pl.col("image").str.split("-").list.first()
    )
    expected = {f"{g}-{n}.png" for g in range(10) for n in range(EACH)} - {"3-1.png"}
    assert set(frame["image"]) == expected and len(frame) == len(expected)
    assert (frame.group_by("group").agg(pl.col("fold").n_unique())["fold"] == 1).all()
    assert frame["fold"].n_unique() == 5
    # a head that had seen a group would know its score by the colour: scores have no other rule
    errors = (frame["score"] - frame["predicted"]).to_numpy()
    assert np.sqrt(np.mean(errors**2)) > 0.8 * frame["score"].to_numpy().std()


def test_its_errors_are_how_wide_the_judges_intervals_are(finished: Path) -> None:
    frame = predictions(finished / "run")
    card = json.loads((finished / "run" / "judge" / "judge.json").read_text())
    interval = card["config"]["calibration"]["score"]
    groups = frame["image"].str.split("-").list.first().to_list()
    wanted = fit_conformal_by_score(
        frame["score"], frame["predicted"], groups, level=0.8,
        scale=tuple(card["config"]["score_range"]),
    )  # fmt: skip
    assert interval["quantile"] == pytest.approx(wanted.quantile, rel=1e-12)
    assert interval["errors"] == pytest.approx(list(wanted.errors))
    assert interval["pictures"] == len(frame) and interval["level"] == 0.8
    assert interval["groups"] == 10


def test_a_fold_that_is_done_is_not_done_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Path] = []

    def stopped(*args: Any, **kwargs: Any) -> Any:
        if len(trained) == 2:
            raise KeyboardInterrupt
        return noting_folder(*args, **kwargs)

    def noting_folder(*args: Any, **kwargs: Any) -> Any:
        folder = kwargs["checkpoint_dir"].parent
        if smoke.FOLDER not in folder.parts and folder.name.startswith("fold-"):
            trained.append(folder)
        return real(*args, **kwargs)

    real = loop.train
    monkeypatch.setattr(loop, "train", stopped)
    recipe = parse_recipe(raw_recipe(finished))
    with pytest.raises(KeyboardInterrupt):
        fit_recipe(recipe, tmp_path / "run")
    trained.clear()
    monkeypatch.setattr(loop, "train", noting_folder)
    fit_recipe(recipe, tmp_path / "run")
    assert [fold_folder.name for fold_folder in trained] == ["fold-2", "fold-3", "fold-4"]
    assert predictions(tmp_path / "run").equals(predictions(finished / "run"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.score.features=null", "score can't be cross-validated"),
        ("stages.errors.of=features", "errors.*features"),
        ("stages.errors.folds=2", r"stages\.errors\.folds"),
        ("stages.judge.intervals=score", "of kind cross_validate; .score. is of kind"),
        (
            "stages.judge.test_time_augmentation.flip=true",
            "leave soup and test_time_augmentation out",
        ),
    ],
)
def test_what_can_not_be(finished: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        fit_recipe(changed(finished, override), tmp_path / "run", dry_run=True)
    assert not (tmp_path / "run" / "stages").exists()


def test_there_are_no_more_folds_than_groups(finished: Path, tmp_path: Path) -> None:
    few = changed(finished, "stages.errors.folds=99", "stages.score.training={epochs: 1}")
    fit_recipe(few, tmp_path / "run")
    assert predictions(tmp_path / "run")["fold"].n_unique() == 10
    table = pl.read_csv(finished / "scores.csv")
    table.filter(pl.col("group").is_in(["g1", "g8", "g11"])).write_csv(finished / "few.csv")
    few = changed(finished, f"data.annotations={finished / 'few.csv'}")
    with pytest.raises(DataError, match="of 2 groups: too few to leave some out, it takes 3"):
        fit_recipe(few, tmp_path / "other", dry_run=True)


def test_errors_of_another_head_are_refused(finished: Path, tmp_path: Path) -> None:
    raw = raw_recipe(finished)
    raw["stages"]["other"] = raw["stages"]["score"]
    raw["stages"]["judge"]["heads"] = ["other"]
    with pytest.raises(RecipeError, match="errors of score, whose head is not among them"):
        fit_recipe(parse_recipe(raw), tmp_path / "run", dry_run=True)
