"""Recipes with several backbones: every stage works with its own, and depends on no other."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from outputs import output
from PIL import Image
from safetensors.torch import load_file, save_file

from beholder import Judge
from beholder.errors import BackboneError, RecipeError
from beholder.features.backbones import create_backbone
from beholder.features.store import FeatureStore
from beholder.judge.store.folder import load_judge
from beholder.pipeline.context import RunContext
from beholder.pipeline.data import load_data
from beholder.pipeline.manifest import Manifest
from beholder.pipeline.origins import Origin, backbone_after, backbone_of, config_of
from beholder.pipeline.recipe import Recipe, parse_recipe
from beholder.pipeline.runner import fit_recipe
from beholder.pipeline.stages.shared import stage_backbone

STAGES = ["wide", "narrow", "narrow-flipped", "first", "second", "tuned", "judge", "evaluation"]


def raw_recipe(root: Path) -> dict[str, Any]:
    """Scores of 24 noisy pictures from frozen features of one backbone, and of another tuned."""
    if not (root / "scores.csv").exists():
        (root / "pictures").mkdir()
        generator = np.random.default_rng(0)
        rows = ["image,score,split"]
        for index in range(24):
            noise = generator.integers(0, 8 + index % 8 * 30, (64, 64, 3))
            Image.fromarray(noise.astype(np.uint8)).save(root / "pictures" / f"{index}.png")
            split = ("train", "train", "val", "test")[index // 6]
            rows.append(f"{index}.png,{index % 8},{split}")
        (root / "scores.csv").write_text("\n".join(rows) + "\n")
    extract = {"kind": "extract", "batch_size": 8, "workers": 0, "tokens": False}
    score = {"kind": "train", "task": {"kind": "score"}, "training": {"epochs": 1, "batch_size": 8}}
    return {
        "name": "several",
        "data": {"annotations": str(root / "scores.csv"), "images": str(root / "pictures")},
        "backbone": {"name": "timm/test_efficientnet", "weights": "random", "size": 64},
        "backbones": {
            "narrow": {"name": "timm/test_convnext", "weights": "random", "size": 32},
            "other": {"name": "timm/test_efficientnet", "weights": "random", "size": 64, "seed": 1},
        },
        "stages": {
            "wide": extract,
            "narrow": extract | {"backbone": "narrow"},
            "narrow-flipped": extract | {"backbone": "narrow", "flip": True},
            "first": score | {"features": "narrow"},
            "second": score
            | {"backbone": "other", "task": {"kind": "score", "train_backbone": True}},
            "tuned": extract | {"backbone_from": "second"},
            "judge": {"kind": "assemble", "heads": ["second"]},
            "evaluation": {"kind": "evaluate", "judge": "judge", "resamples": 100},
        },
    }


def changed(root: Path, *paths: tuple[str, object]) -> Recipe:
    """The recipe with values at dotted paths; None takes a key out."""
    raw = raw_recipe(root)
    for path, value in paths:
        *parents, last = path.split(".")
        target = raw
        for key in parents:
            target = target[key]
        target[last] = value
        if value is None:
            del target[last]
    return parse_recipe(raw)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several")
    fit_recipe(changed(root), root / "run")
    return root


def test_whose_backbone_a_stage_works_with(finished: Path) -> None:
    recipe = changed(finished)
    assert [backbone_of(recipe, name) for name in STAGES[:-1]] == [
        Origin(), Origin("narrow"), Origin("narrow"), Origin("narrow"), Origin("other"),
        Origin("other", "second"), Origin("other", "second"),
    ]  # fmt: skip
    assert backbone_after(recipe, "first") == Origin("narrow")
    assert config_of(recipe, Origin()) == recipe.backbone
    assert config_of(recipe, Origin("other", "second")) == recipe.backbones["other"]


def test_every_store_holds_features_of_its_own_backbone(finished: Path) -> None:
    recipe, key = changed(finished), "20.png"
    with Image.open(finished / "pictures" / key) as opened:
        picture = opened.convert("RGB")
    trained = load_file(output(finished / "run", "second", "model"))
    for stage in ("wide", "narrow", "narrow-flipped", "tuned"):
        backbone = create_backbone(config_of(recipe, backbone_of(recipe, stage)))
        if stage == "tuned":
            backbone_weights = {n.removeprefix("backbone."): t for n, t in trained.items()}
            backbone.load_state_dict({n: backbone_weights[n] for n in backbone.state_dict()})
        pixels = torch.from_numpy(backbone.transform(picture))
        with torch.no_grad():
            seen = pixels.flip(-1) if "flip" in stage else pixels
            expected = backbone(seen[None]).pooled_BP[0]
        store = FeatureStore.open(output(finished / "run", stage, "store"))
        (stored,) = store.read([key])[1]
        np.testing.assert_allclose(stored, expected.numpy(), atol=2e-3, err_msg=stage)


def test_the_judge_sees_with_the_backbone_of_its_head(finished: Path) -> None:
    judge = load_judge(finished / "run" / "judge").model
    assert judge.config.backbone == changed(finished).backbones["other"]
    trained = load_file(output(finished / "run", "second", "model"))
    assert judge.state_dict().keys() == trained.keys()
    for name, tensor in judge.state_dict().items():
        assert torch.equal(tensor, trained[name]), name
    verdict = Judge.load(finished / "run" / "judge")(finished / "pictures" / "20.png")
    assert verdict.score is not None


@pytest.mark.parametrize(
    ("path", "value", "ran"),
    [
        ("backbones.narrow.seed", 5, ["narrow", "narrow-flipped", "first"]),
        ("backbones.other.seed", 5, ["second", "tuned", "judge", "evaluation"]),
        ("backbone.seed", 5, ["wide"]),
        ("stages.narrow.backbone", "other", ["narrow", "first"]),
        ("stages.narrow-flipped.flip", False, ["narrow-flipped"]),
    ],
)
def test_another_backbone_reaches_those_that_work_with_it_and_no_others(
    path: str, value: object, ran: list[str], finished: Path, run: Path
) -> None:
    assert fit_recipe(changed(finished, (path, value)), run) == ran
    assert fit_recipe(changed(finished, (path, value)), run) == []


def test_a_new_backbone_in_the_recipe_runs_nothing(finished: Path, run: Path) -> None:
    new = ("backbones.unused", {"name": "timm/test_vit"})
    assert fit_recipe(changed(finished, new), run) == []


def test_only_the_last_backbone_stays_in_memory(finished: Path) -> None:
    recipe = changed(finished)
    data = load_data(recipe.data, finished / "run")
    context = RunContext(
        finished / "run", recipe, data, Manifest(name="x", seed=0, code_version="0")
    )
    narrow = weakref.ref(stage_backbone(context, "narrow"))
    assert stage_backbone(context, "narrow-flipped") is narrow()
    assert stage_backbone(context, "second").config == recipe.backbones["other"]
    gc.collect()
    assert narrow() is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([("stages.narrow.backbone", "narow")], "'narow', which is unknown .*known: 'narrow'"),
        ([("backbones", {}), ("stages.narrow.backbone", "x")], "'x', which is unknown[^(]*$"),
        ([("backbone", None)], "'wide' names no backbone(.|\n)*one of: narrow, other"),
        ([("backbone", None), ("backbones", {})], "'wide' names no backbone(.|\n)*efficientnet"),
        ([("stages.judge.heads", ["first"]), ("stages.first.warm_start", "second")],
         "features of 'narrow' are of the backbone 'narrow', but .*'second' has trained"),
        ([("backbones.narrow.sise", 3)], "backbones.narrow.sise: unknown key .*known: 'size'"),
        ([("stages.tuned.backbone", "narrow")], "backbone and backbone_from: choose one"),
        ([("stages.first.backbone", "narrow")], "bring their own backbone"),
    ],
)  # fmt: skip
def test_backbones_that_can_not_be_are_recipe_errors(
    changes: list[tuple[str, object]], message: str, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        fit_recipe(changed(finished, *changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_heads_of_different_backbones_are_no_judge(finished: Path, tmp_path: Path) -> None:
    attributes = {
        "kind": "train", "features": "narrow", "task": {"kind": "attributes"},
        "training": {"epochs": 1},
    }  # fmt: skip
    changes = ("stages.shop", attributes), ("stages.judge.heads", ["second", "shop"])
    with pytest.raises(RecipeError, match="'shop' to the backbone 'narrow'"):
        fit_recipe(changed(finished, *changes), tmp_path / "run")


def test_every_backbone_is_tried_before_the_first_stage_runs(
    finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(BackboneError, match="resnet5O"):
        fit_recipe(changed(finished, ("backbones.other.name", "timm/resnet5O")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_weights_are_named_by_their_place(finished: Path, run: Path) -> None:
    missing = changed(finished, ("backbones.other.weights", "none.safetensors"))
    with pytest.raises(BackboneError, match="does not exist") as caught:
        fit_recipe(missing, run)
    assert caught.value.where == "backbones.other.weights: none.safetensors"


def test_a_recipe_needs_no_backbone_that_nobody_uses(finished: Path, tmp_path: Path) -> None:
    recipe = changed(finished, ("backbone", None), ("stages.wide", None))
    assert fit_recipe(recipe, tmp_path / "run") == STAGES[1:]


def test_new_heads_on_a_tuned_backbone_and_on_weights_of_a_file(
    finished: Path, tmp_path: Path
) -> None:
    raw = raw_recipe(finished)
    score = raw["stages"]["second"] | {"backbone": None, "task": {"kind": "score"}}
    raw["stages"] = {
        "second": raw["stages"]["second"],
        "heads": score | {"backbone_from": "second"},
        "judge": {"kind": "assemble", "heads": ["heads"]},
    }
    run = tmp_path / "run"
    fit_recipe(parse_recipe(raw), run)
    tuned = load_file(output(run, "second", "model"))
    judge = load_judge(run / "judge").model
    assert judge.backbone is not None
    for name, tensor in judge.backbone.state_dict().items():
        torch.testing.assert_close(tensor, tuned[f"backbone.{name}"], rtol=0.0, atol=0.0)

    weights = tmp_path / "weights.safetensors"
    trunk = {n.removeprefix("backbone.trunk."): t for n, t in tuned.items() if "trunk." in n}
    save_file(trunk, weights)
    raw["backbone"]["weights"] = str(weights)
    raw["stages"] = {"heads": score, "judge": raw["stages"]["judge"]}
    again = tmp_path / "again"
    assert fit_recipe(parse_recipe(raw), again) == ["heads", "judge"]
    assert fit_recipe(parse_recipe(raw), again) == []
    picture = finished / "pictures" / "3.png"
    assert Judge.load(again / "judge")(picture).score == Judge.load(run / "judge")(picture).score
    # another file under the same name is another backbone
    save_file({name: tensor + 0.01 for name, tensor in trunk.items()}, weights)
    assert fit_recipe(parse_recipe(raw), again) == ["heads", "judge"]


def test_heads_need_a_stage_that_tunes_a_backbone(finished: Path, tmp_path: Path) -> None:
    raw = raw_recipe(finished)
    raw["stages"]["more"] = raw["stages"]["first"] | {"features": None, "backbone_from": "first"}
    with pytest.raises(RecipeError, match="'first' trains no backbone that 'more' could use"):
        fit_recipe(parse_recipe(raw), tmp_path / "run")
