"""Recipes and runs that name kinds and options as earlier versions did."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from beholder.errors import RecipeError
from beholder.pipeline.identity import result_identity
from beholder.pipeline.manifest import load_manifest
from beholder.pipeline.plan import may_be_done
from beholder.pipeline.recipe import load_recipe, parse_recipe
from beholder.pipeline.runner import fit_recipe

BEFORE = Path(__file__).parents[1] / "golden" / "before"
TRAINING = {"epochs": 1, "batch_size": 4}
RECIPE: dict[str, Any] = {
    "name": "former",
    "data": {"annotations": "table.csv"},
    "backbone": {"name": "timm/test_efficientnet", "weights": "random"},
    "stages": {
        "features": {"kind": "extract"},
        "first": {
            "kind": "train", "features": "features",
            "task": {"kind": "score"}, "training": TRAINING,
        },
        "score": {
            "kind": "train", "features": "features", "start_from": "first",
            "task": {"kind": "score"}, "training": TRAINING,
        },
        "errors": {"kind": "cross", "of": "first"},
        "judge": {"kind": "export", "heads": ["score"], "views": {"flip": True}},
        "file": {"kind": "ship", "judge": "judge"},
    },
}  # fmt: skip
RENAMED = {"errors": "cross_validate", "judge": "assemble", "file": "export"}


def test_each_former_name_is_read_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="beholder"):
        recipe = parse_recipe(copy.deepcopy(RECIPE))
    assert {name: recipe.stages[name].kind for name in RENAMED} == RENAMED
    score, judge = recipe.stages["score"], recipe.stages["judge"]
    assert score.model_dump()["warm_start"] == "first"
    assert judge.model_dump()["test_time_augmentation"]["flip"] is True
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 5, lines
    for former, name in (
        ("'cross'", "'cross_validate'"), ("'export'", "'assemble'"), ("'ship'", "'export'"),
        ("start_from", "warm_start"), ("views", "test_time_augmentation"),
    ):  # fmt: skip
        assert [line for line in lines if former in line and f"now called {name}" in line], former


def test_names_of_today_are_read_in_silence_and_hash_as_they_did(
    caplog: pytest.LogCaptureFixture,
) -> None:
    former = parse_recipe(copy.deepcopy(RECIPE))
    caplog.clear()
    recipe = parse_recipe(former.model_dump(mode="json", exclude_unset=True))
    assert not caplog.records
    assert recipe == former
    # a former configuration, and nothing else, is what was hashed
    assert result_identity(recipe.stages["errors"]) == {"kind": "cross", "of": "first"}
    assert result_identity(recipe.stages["file"]) == {"kind": "ship", "judge": "judge"}
    assert result_identity(recipe.stages["judge"]) == {
        "kind": "export", "heads": ["score"], "views": {"flip": True}
    }  # fmt: skip
    assert result_identity(recipe.stages["score"])["start_from"] == "first"


def test_both_names_of_an_option_are_refused() -> None:
    raw = copy.deepcopy(RECIPE)
    raw["stages"]["score"]["warm_start"] = "first"
    with pytest.raises(RecipeError, match="start_from is the old name of warm_start: give one"):
        parse_recipe(raw)


def test_overrides_reach_a_stage_of_a_former_kind(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(RECIPE))
    overrides = ["stages.file.megabytes=3", "stages.judge.views.flip=false", "stages.errors=null"]
    recipe = load_recipe(path, overrides)
    assert recipe.stages["file"].model_dump()["megabytes"] == 3
    assert recipe.stages["judge"].model_dump()["test_time_augmentation"]["flip"] is False
    assert "errors" not in recipe.stages


def test_a_former_run_is_done_under_both_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "before"
    shutil.copytree(BEFORE, folder)
    monkeypatch.chdir(folder)
    former = load_recipe(Path("recipe.yaml"))
    text = Path("recipe.yaml").read_text("utf-8")
    for old, new in (("export", "assemble"), ("ship", "export"), ("cross", "cross_validate")):
        text = text.replace(f"kind: {old}\n", f"kind: {new}\n").replace(f"{old},", f"{new},")
    text = text.replace("start_from", "warm_start")
    Path("today.yaml").write_text(text, "utf-8")
    caplog.clear()
    today = load_recipe(Path("today.yaml"))
    assert not caplog.records and today == former
    assert may_be_done(today, load_manifest(Path("run")))
    assert not caplog.records, "the run's own former names are no news"
    assert fit_recipe(today, Path("run")) == []
    # a change that counts still runs, and what follows from it
    changed = load_recipe(Path("today.yaml"), ["stages.file.megabytes=24"])
    assert not may_be_done(changed, load_manifest(Path("run")))
    assert fit_recipe(changed, Path("run"), dry_run=True) == ["file"]
