"""The order of stages, and recipes that can't be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beholder.errors import RecipeError
from beholder.pipeline.plan import stage_order
from beholder.pipeline.recipe import find_recipe, load_recipe, parse_recipe, shipped_recipes

TRAIN: dict[str, Any] = {
    "kind": "train",
    "features": "features",
    "task": {"kind": "score"},
    "training": {"epochs": 1},
}


def recipe(**stages: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "test",
        "data": {"annotations": "sample"},
        "backbone": {"name": "efficientnet-lite0"},
        "stages": stages,
    }


def test_order_follows_needs_and_otherwise_the_recipe() -> None:
    parsed = parse_recipe(
        recipe(
            judge={"kind": "assemble", "heads": ["b", "a"]},
            a=TRAIN,
            b=TRAIN | {"warm_start": "a"},
            features={"kind": "extract"},
        )
    )
    assert stage_order(parsed) == ["features", "a", "b", "judge"]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"a": TRAIN}, "'features', which the recipe does not have"),
        ({"features": {"kind": "assemble", "heads": ["a"]}, "a": TRAIN}, "is of kind 'assemble'"),
        (
            {
                "features": {"kind": "extract"},
                "a": TRAIN | {"warm_start": "b"},
                "b": TRAIN | {"warm_start": "a"},
            },
            "circle: a, b",
        ),
    ],
)
def test_impossible_needs_are_recipe_errors(stages: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        stage_order(parse_recipe(recipe(**stages)))


@pytest.mark.parametrize("name", ["a b", "../up", "", "x/y"])
def test_stage_names_are_fit_for_folders(name: str) -> None:
    with pytest.raises(RecipeError, match="stage name"):
        parse_recipe(recipe(**{name: {"kind": "extract"}}))


def test_unknown_key_of_a_shipped_recipe_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(find_recipe("demo"), ["stages.score.training.epoch=3", "bakbone.size=3"])
    text = str(caught.value)
    assert "stages.score.training.epoch: unknown key (nearest known: 'epochs')" in text
    assert "bakbone: unknown key (nearest known: 'backbone')" in text


def test_a_stage_set_to_null_is_left_out(tmp_path: Path) -> None:
    left_out = ["stages.errors=null", "stages.judge.intervals=null"]
    assert "errors" in load_recipe(find_recipe("demo")).stages
    assert "errors" not in load_recipe(find_recipe("demo"), left_out).stages
    with pytest.raises(RecipeError, match="'judge' needs stage 'errors'"):
        stage_order(load_recipe(find_recipe("demo"), left_out[:1]))
    with pytest.raises(RecipeError, match=r"stages\.eror"):  # no stage of that name
        load_recipe(find_recipe("demo"), ["stages.eror=null"])
    (tmp_path / "r.yaml").write_text("name: r\ndata: {annotations: a.csv}\nstages: {features: }\n")
    with pytest.raises(RecipeError, match=r"stages\.features"):  # forgotten, not left out
        load_recipe(tmp_path / "r.yaml")


def test_unknown_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(RecipeError, match="demo"):
        find_recipe("no-such-recipe")


def test_folder_named_like_a_shipped_recipe_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_recipe("demo").is_file()


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_is_valid_and_has_a_tiny_twin(name: str) -> None:
    path = find_recipe(name)
    shipped, twin = load_recipe(path), load_recipe(path.parent / "tiny" / path.name)
    assert {n: s.kind for n, s in shipped.stages.items()} == {
        n: s.kind for n, s in twin.stages.items()
    }
    assert stage_order(shipped) == stage_order(twin)


@pytest.mark.parametrize(
    ("kind", "needs"), [("assemble", {"heads": ["a"]}), ("evaluate", {"judge": "a"})]
)
def test_two_stages_that_write_the_same_folder_are_refused(kind: str, needs: dict) -> None:
    raw = {
        "name": "twice",
        "data": {"annotations": "sample"},
        "stages": {name: {"kind": kind, **needs} for name in ("one", "two")},
    }
    with pytest.raises(RecipeError, match="one, two all write"):
        parse_recipe(raw)
