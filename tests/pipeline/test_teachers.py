"""Teachers of a recipe: what is refused before anything is trained, and whose weights they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torchrun import torchrun

from beholder import Judge
from beholder.errors import RecipeError
from beholder.features.store import FeatureStore
from beholder.models.teachers import Teacher
from beholder.pipeline import runner
from beholder.pipeline.manifest import load_manifest
from beholder.pipeline.recipe import Recipe, parse_recipe
from beholder.pipeline.runner import fit_recipe
from beholder.pipeline.smoke import smoke_run
from beholder.pipeline.stages.extract import ExtractStage


def recipe(
    root: Path,
    teacher: dict[str, Any] | None,
    student: dict[str, Any] | None = None,
    **task: Any,
) -> Recipe:
    """Light and dark pictures; a teacher, and a student that learns from it.

    `student`: further fields of its stage."""
    (root / "pictures").mkdir(exist_ok=True)
    rows = ["image,attribute.light,split"]
    for index in range(12):
        dark = index % 2
        level = np.random.default_rng(index).integers(0, 60, (32, 32, 3)) + 180 * (1 - dark)
        Image.fromarray(level.astype(np.uint8)).save(root / "pictures" / f"{index}.png")
        rows.append(f"{index}.png,{('bright', 'dark')[dark]},{('train', 'val')[index // 8]}")
    (root / "light.csv").write_text("\n".join(rows) + "\n")
    training = {"epochs": 2, "batch_size": 4, "save_every_epochs": 1, "keep": 2}
    raw = {
        "name": "light",
        "data": {
            "annotations": str(root / "light.csv"), "images": str(root / "pictures"),
        },
        "backbone": {"name": "timm/test_efficientnet", "weights": "random", "size": 32},
        "stages": {
            "teacher": {
                "kind": "train", "task": {"kind": "attributes", "train_backbone": True},
                "training": training,
            },
            "student": {
                "kind": "train", "teacher": teacher,
                "task": {"kind": "distillation", **task}, "training": training, **(student or {}),
            },
            "judge": {"kind": "assemble", "heads": ["student"]},
        },
    }  # fmt: skip
    return parse_recipe(raw)


def test_a_student_needs_a_teacher(tmp_path: Path) -> None:
    for teacher in (None, {}):
        with pytest.raises(RecipeError, match="teacher"):
            recipe(tmp_path, teacher)


@pytest.mark.parametrize("epoch", [3, 9])
def test_an_epoch_that_there_will_not_be(tmp_path: Path, epoch: int) -> None:
    with pytest.raises(RecipeError, match=f"no checkpoint of epoch {epoch}"):
        fit_recipe(recipe(tmp_path, {"stages": ["teacher"], "epoch": epoch}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_epochs_are_counted_in_the_pictures_that_can_be_used(tmp_path: Path) -> None:
    student = {"training": {"epochs": 1, "batch_size": 4}}
    plain = recipe(tmp_path, {"stages": ["teacher"], "epoch": 1}, student)
    (tmp_path / "pictures" / "broken.png").write_text("no picture")
    with (tmp_path / "light.csv").open("a") as stream:
        stream.write("broken.png,dark,train\n")
    stages = {"features": ExtractStage(kind="extract", workers=0), **plain.stages}
    with_quarantine = plain.model_copy(update={"stages": stages})
    fit_recipe(with_quarantine, tmp_path / "run")
    # 8 of 9 pictures in steps of 4: the first epoch ends after step 2, not 3
    manifest = load_manifest(tmp_path / "run")
    assert manifest is not None
    taught = manifest.find("teacher")
    assert taught is not None
    assert taught.metrics["steps_per_epoch"] == 2


def test_a_run_with_stage_and_judge_as_teachers(tmp_path: Path) -> None:
    first = recipe(tmp_path, {"stages": ["teacher"], "epoch": 1}, train_backbone=True)
    assert fit_recipe(first, tmp_path / "run") == ["teacher", "student", "judge"]
    weights = load_file(next((tmp_path / "run/stages/student").rglob("model.safetensors")))
    assert all(name.startswith(("heads.", "backbone.")) for name in weights)
    judge = tmp_path / "run" / "judge"
    assert Judge.load(judge)(tmp_path / "pictures" / "0.png").attributes["light"].label
    both = recipe(tmp_path, {"stages": ["teacher"], "judges": [str(judge)]})
    assert fit_recipe(both, tmp_path / "both") == ["teacher", "student", "judge"]
    assert fit_recipe(both, tmp_path / "both") == []
    # another judge in that folder is another teacher
    again = recipe(tmp_path, {"stages": ["teacher"], "epoch": 2}, train_backbone=True)
    fit_recipe(again, tmp_path / "run")
    assert fit_recipe(both, tmp_path / "both") == ["student", "judge"]


def test_a_teacher_of_other_classes_shows_both_lists(tmp_path: Path) -> None:
    fit_recipe(recipe(tmp_path, {"stages": ["teacher"]}), tmp_path / "run")
    judge = str(tmp_path / "run" / "judge")
    other = recipe(tmp_path, {"judges": [judge]})
    table = tmp_path / "light.csv"
    table.write_text(table.read_text().replace("dark", "gloomy"))
    with pytest.raises(RecipeError, match=r"(?s)teacher: light: bright, dark.*student: .*gloomy"):
        fit_recipe(other, tmp_path / "other")


def test_cached_views_give_the_weights_of_a_live_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    forward = Teacher.forward

    def counted(self: Teacher, pixels: Any) -> Any:
        counts.append(len(pixels))
        return forward(self, pixels)

    def before_the_run(*args: Any) -> Any:
        costs = smoke_run(*args)
        counts.clear()
        return costs

    monkeypatch.setattr(Teacher, "forward", counted)
    monkeypatch.setattr(runner, "smoke_run", before_the_run)
    augment = {"flip": 0.5, "brightness": 0.4}
    training = {"epochs": 3, "batch_size": 4, "save_every_epochs": 1, "keep": 3}
    weights = {}
    for name, views in {"live": None, "cached": 3, "few": 1}.items():
        teacher = {"stages": ["teacher"], "cached_views": views}
        base = recipe(tmp_path, teacher, {"augment": augment, "training": training})
        fit_recipe(base, tmp_path / name)
        assert sum(counts) == 8 * (views or 3)
        last = next((tmp_path / name / "stages/student").rglob("step-00000006"))
        weights[name] = load_file(last / "weights.safetensors")
    for name, tensor in weights["live"].items():
        torch.testing.assert_close(weights["cached"][name], tensor, rtol=1e-4, atol=1e-5)
    assert any(
        (weights["few"][name] - tensor).abs().max() > 1e-4
        for name, tensor in weights["live"].items()
    )

    # another student of the same teacher and views asks nothing again
    faster = recipe(tmp_path, {"stages": ["teacher"], "cached_views": 3},
                    {"augment": augment, "training": {**training, "lr": 0.01}})  # fmt: skip
    assert fit_recipe(faster, tmp_path / "cached") == ["student", "judge"]
    assert counts == []
    brighter = recipe(tmp_path, {"stages": ["teacher"], "cached_views": 3},
                      {"augment": {"brightness": 0.3}, "training": training})  # fmt: skip
    fit_recipe(brighter, tmp_path / "cached")
    assert sum(counts) == 8 * 3


def test_mixing_where_it_can_not_be_is_refused(tmp_path: Path) -> None:
    mixing = {"augment": {"mixup": 0.8}}
    with pytest.raises(RecipeError, match="asked live"):
        recipe(tmp_path, {"stages": ["teacher"], "cached_views": 2}, mixing)
    with pytest.raises(RecipeError, match="attributes alone"):
        recipe(tmp_path, None, {**mixing, "task": {"kind": "score"}})
    both = {"augment": {"mixup": 0.8, "cutmix": 1.0, "rand_changes": 2}}
    mixed = recipe(tmp_path, {"stages": ["teacher"]}, both, train_backbone=True)
    assert fit_recipe(mixed, tmp_path / "run") == ["teacher", "student", "judge"]


def test_several_views_of_what_does_not_change(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="set cached_views to 1"):
        recipe(tmp_path, {"stages": ["teacher"], "cached_views": 2})


@pytest.mark.slow
def test_cached_views_in_two_processes_give_the_weights_of_one(tmp_path: Path) -> None:
    fit_recipe(recipe(tmp_path, {"stages": ["teacher"]}), tmp_path / "first")
    cached = {"judges": [str(tmp_path / "first" / "judge")], "cached_views": 2}
    augment = {"augment": {"flip": 0.5}}
    plain = {"head": {"input_dropout": 0.0}}
    taught = recipe(tmp_path, cached, augment, **plain)
    del taught.stages["teacher"]  # of batch norm, whose statistics are each process's own
    fit_recipe(taught, tmp_path / "one")
    written = tmp_path / "recipe.yaml"
    written.write_text(yaml.safe_dump(taught.model_dump(mode="json", exclude_unset=True)))
    torchrun("-m", "beholder", "fit", written, "--into", tmp_path / "two")
    alone, shared = (
        load_file(tmp_path / run / "judge" / "weights.safetensors") for run in ("one", "two")
    )
    assert alone.keys() == shared.keys()
    for name, value in alone.items():
        torch.testing.assert_close(shared[name], value, atol=1e-5, rtol=1e-5)
    stores = [FeatureStore.open(next((tmp_path / run).rglob("teacher"))) for run in ("one", "two")]
    assert stores[0].keys == stores[1].keys
