"""A run with one judge for everything: missing opinions, what large judges add, what ships."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from changed_recipes import changed_recipe
from outputs import output
from PIL import Image
from safetensors.torch import load_file

from beholder import Judge
from beholder.data.annotations import AnnotationTable
from beholder.errors import DataError, GateError, JudgeError, RecipeError
from beholder.export import judge_file as export
from beholder.judge.store.folder import load_judge
from beholder.pipeline.manifest import load_manifest
from beholder.pipeline.recipe import Recipe, parse_recipe
from beholder.pipeline.runner import fit_recipe
from beholder.pipeline.stages.pseudo_labels import with_comments

BODY = {
    "d_model": 16, "enc_layers": 1, "dec_layers": 1, "ff": 16, "heads": 2, "enc_expansions": [2],
    "dec_expansions": 2,
}  # fmt: skip
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
TRAIN, VAL = 24, 64
TASKS = {
    "score": {"kind": "score", "head": {"hidden": [4]}},
    "attributes": {"kind": "attributes"},
    "comments": {"kind": "caption", "head": BODY, "beam_sizes": [1]},
}
STAGES = (
    "features", "mos", "scores", "writer", "captions", "heads", "student", "judge", "file",
)  # fmt: skip


def make_data(root: Path) -> None:
    """Noisy pictures of three colours. The first four have a comment alone, others lack each of the
    three opinions in turn, one can't be read, and three in `further` have none."""
    (root / "pictures" / "further").mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = ["image,score,attribute.colour,comments,split"]
    for index in range(TRAIN + VAL + 3):
        name = list(COLOURS)[index % 3]
        noise = generator.integers(-25, 25, (40, 40, 3)) + COLOURS[name]
        known = index < TRAIN + VAL
        key = f"{index}.png" if known else f"further/{index}.png"
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(root / "pictures" / key)
        if known:
            only = index < 4
            score = "" if only or index % 4 == 1 else f"{index % 3 + index / 100}"
            colour = "" if only or index % 4 == 2 else name
            text = "" if not only and index % 4 == 3 else f"a {name} picture of {index % 5}"
            rows.append(f"{key},{score},{colour},{text},{'train' if index < TRAIN else 'val'}")
    (root / "pictures" / "10.png").write_bytes(b"no picture")
    (root / "opinions.csv").write_text("\n".join(rows) + "\n")


def raw_recipe(root: Path) -> dict[str, Any]:
    training = {"epochs": 2, "batch_size": 8, "save_every_steps": 1, "keep": 3}
    joint = {"kind": "joint", "tasks": TASKS, "weights": {"comments": 0.5}}
    return {
        "name": "together",
        "data": {
            "annotations": str(root / "opinions.csv"), "images": str(root / "pictures"),
            "unlabelled": "further",
        },
        "backbone": {"name": "timm/test_efficientnet", "weights": "random", "size": 64},
        "stages": {
            "features": {"kind": "extract", "batch_size": 8, "workers": 0},
            "mos": {
                "kind": "regress", "features": ["features"],
                "regressor": {"kind": "ensemble", "members": ["ridge"], "folds": 2},
            },
            "scores": {"kind": "average", "of": ["mos"]},
            "writer": {
                "kind": "train", "features": "features", "task": TASKS["comments"],
                "training": training,
            },
            "captions": {"kind": "write", "stage": "writer", "beam_size": 2},
            "heads": {
                "kind": "train", "features": "features", "targets": "scores",
                "comments_from": "captions", "task": joint, "training": training,
            },
            "student": {
                "kind": "train", "warm_start": "heads", "targets": "scores",
                "comments_from": "captions", "task": {**joint, "train_backbone": True},
                "training": training,
            },
            "judge": {"kind": "assemble", "heads": ["student"], "calibrate": "val", "beam_size": 2},
            "file": {"kind": "export", "judge": "judge", "precision": "fp32"},
        },
    }  # fmt: skip


def changed(root: Path, **changes: object) -> Recipe:
    of_stages = {f"stages__{path}": value for path, value in changes.items()}
    return changed_recipe(raw_recipe(root), **of_stages)


GRAPHS: dict[str, Any] = {}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("together")
    make_data(root)
    original = export.judge_graphs

    def noting(model: Any) -> dict[str, Any]:
        GRAPHS.update(original(model))
        return copy.deepcopy(GRAPHS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "judge_graphs", noting)
        assert fit_recipe(changed(root), root / "run") == list(STAGES)
    yield root


def test_one_run_gives_one_judge_with_three_opinions(finished: Path) -> None:
    run = finished / "run"
    judge = Judge.load(run / "judge")
    verdict = judge(finished / "pictures" / "30.png")
    assert verdict.score is not None
    assert verdict.interval is not None
    assert verdict.comment is not None
    assert verdict.attributes["colour"].label in COLOURS
    trained, saved = load_file(output(run, "student", "model")), load_judge(run / "judge").model
    for name, tensor in saved.state_dict().items():
        torch.testing.assert_close(tensor, trained[name], msg=name)
    heads = load_file(output(run, "heads", "model"))
    assert {name.split(".")[1] for name in heads} == {"score", "attributes", "comment"}
    manifest = load_manifest(run)
    assert manifest is not None
    record = manifest.find("student")
    assert record is not None
    assert {"overall", "score.srcc", "attributes.top1", "comments.CIDEr-D"} <= set(record.metrics)
    # 23 training pictures that can be read, and 3 without opinions, by 8
    assert record.metrics["steps_per_epoch"] == 4
    assert fit_recipe(changed(finished), run) == []


def test_what_was_written_is_what_the_writer_says(finished: Path) -> None:
    run = finished / "run"
    written = pl.read_parquet(output(run, "captions", "comments"))
    keys = [f"{index}.png" for index in range(TRAIN)]
    further = [f"further/{TRAIN + VAL + index}.png" for index in range(3)]
    assert written["image"].to_list() == keys + further
    assert written.filter(pl.col("written").is_null())["image"].to_list() == ["10.png"]
    comments = dict(written.iter_rows())
    only = changed(finished, judge={"kind": "assemble", "heads": ["writer"], "beam_size": 2})
    stages = {name: only.stages[name] for name in ("features", "writer", "judge")}
    fit_recipe(only.model_copy(update={"stages": stages}), finished / "writer")
    judge = Judge.load(finished / "writer" / "judge")
    for key in (keys[0], keys[7], further[2]):
        assert judge(finished / "pictures" / key).comment == comments[key]


def test_a_file_ships_that_says_the_same(finished: Path) -> None:
    run = finished / "run"
    judge, file = Judge.load(run / "judge"), Judge.load(run / "judge.beholder")
    for index in (0, 40, 80):
        by_folder, by_file = (
            model(finished / "pictures" / f"{index}.png") for model in (judge, file)
        )
        assert by_folder.score == pytest.approx(by_file.score, abs=1e-3)
        assert by_folder.comment == by_file.comment
        assert by_folder.attributes["colour"].label == by_file.attributes["colour"].label
    manifest = load_manifest(run)
    assert manifest is not None
    record = manifest.find("file")
    assert record is not None
    assert record.metrics["megabytes"] == (run / "judge.beholder").stat().st_size / 1e6
    assert record.metrics["same_comments"] == 1.0


def test_a_file_that_is_too_large_is_none(
    finished: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "judge_graphs", lambda model: copy.deepcopy(GRAPHS))
    (run / "judge.beholder").unlink()
    with pytest.raises(GateError, match=r"over the limit of 0\.1 MB"):
        fit_recipe(changed(finished, file__megabytes=0.1), run)
    assert not (run / "judge.beholder").exists()
    with pytest.raises(RecipeError, match=r"at least 64 pictures; the test split has 0"):
        fit_recipe(changed(finished, file__split="test"), run)


def test_written_comments_are_beside_people_s_or_instead() -> None:
    table = AnnotationTable.from_columns(
        ["a", "b", "c", "d"],
        comments=[["one", "two"], [], ["three"], []],
        split=["train", "train", "val", None],
    )
    written = pl.DataFrame({"image": ["a", "b", "d"], "written": ["A.", None, "D."]})
    beside = with_comments(table, written, instead=False).frame
    assert dict(beside.select("image", "comments").iter_rows()) == {
        "a": ["one", "two", "A."], "b": [], "d": ["D."],
    }  # fmt: skip
    assert beside["split"].to_list() == ["train"] * 3
    instead = with_comments(table, written, instead=True).frame
    assert instead["comments"].to_list() == [["A."], [], ["D."]]


def test_a_judge_writes_too(finished: Path, run: Path) -> None:
    """A judge of another run; when it changes, what has been learnt from it is learnt again."""
    judge = finished / "elsewhere"
    other = changed(finished, judge={"kind": "assemble", "heads": ["writer"]})
    stages = {name: other.stages[name] for name in ("features", "writer", "judge")}
    fit_recipe(other.model_copy(update={"stages": stages}), judge)
    writing = {"captions": {"kind": "write", "judge": str(judge / "judge"), "beam_size": 2}}
    alone = {"mos", "scores", "features", "heads"}
    recipe = changed(finished, **writing, heads__written="instead")
    recipe = recipe.model_copy(
        update={"stages": {n: s for n, s in recipe.stages.items() if n in alone | {"captions"}}}
    )
    before = pl.read_parquet(output(run, "captions", "comments"))
    assert fit_recipe(recipe, run) == ["captions", "heads"]
    assert pl.read_parquet(output(run, "captions", "comments")).equals(before)
    card = judge / "judge" / "judge.json"
    card.write_text(card.read_text() + "\n")
    assert "captions" in fit_recipe(recipe, run)


def test_a_joint_judge_writes_with_several_checkpoints(finished: Path, run: Path) -> None:
    stages = changed(finished, judge__ensemble=2).stages
    recipe = changed(finished).model_copy(
        update={"stages": {n: s for n, s in stages.items() if n != "file"}}
    )
    assert fit_recipe(recipe, run) == ["judge"]
    model = load_judge(run / "judge").model
    assert [sorted(other) for other in model.others] == [["backbone", "comment"]]
    assert Judge.load(run / "judge")(finished / "pictures" / "30.png").score is not None


def test_a_joint_stage_teaches_its_attributes(finished: Path, run: Path) -> None:
    student = {
        "kind": "train", "teacher": {"stages": ["heads"], "cached_views": 1},
        "task": {
            "kind": "joint", "train_backbone": True,
            "tasks": {**TASKS, "attributes": {"kind": "distillation"}},
        },
        "training": {"epochs": 1, "batch_size": 8},
    }  # fmt: skip
    recipe = changed(finished, student=student)
    recipe = recipe.model_copy(
        update={"stages": {n: s for n, s in recipe.stages.items() if n != "file"}}
    )
    assert fit_recipe(recipe, run) == ["student", "judge"]
    manifest = load_manifest(run)
    assert manifest is not None
    record = manifest.find("student")
    assert record is not None
    assert record.metrics["attributes.top1"] >= 0.0


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"heads__comments_from": "writer"}, RecipeError, "needs a stage of kind write"),
        ({"heads__comments_from": "nobody"}, RecipeError, "does not have"),
        ({"heads__comments_from": None, "heads__written": "instead"}, RecipeError, "of what"),
        (
            {"heads__task": TASKS["score"], "heads__targets": None},
            RecipeError,
            "for tasks that learn comments",
        ),
        (
            {"heads__task": {"kind": "joint", "tasks": {**TASKS, "words": {"kind": "captions"}}}},
            RecipeError,
            "captions",
        ),
        ({"captions": {"kind": "write"}}, RecipeError, "name one that writes"),
        ({"captions__judge": "x"}, RecipeError, "name one that writes"),
        ({"captions": {"kind": "write", "judge": "nowhere"}}, JudgeError, "no judge here"),
        ({"writer__task": TASKS["score"]}, RecipeError, "'writer' writes no comments"),
        ({"judge__heads": ["student", "heads"]}, RecipeError, "both give the judge its score"),
        ({"student__augment": {"mixup": 0.5}}, RecipeError, "attributes alone"),
        (
            {"student__task": {"kind": "joint", "tasks": {
                **TASKS, "attributes": {"kind": "distillation"}}}},
            RecipeError,
            "needs a teacher",
        ),
        (
            {"heads__task": {"kind": "joint", "tasks": {
                **TASKS, "score": {"kind": "score", "head": {"inputs": 9999}}}}},
            RecipeError,
            r"task\.tasks\.score\.head\.inputs",
        ),
    ],
)  # fmt: skip
def test_what_can_not_be_is_told_before_anything_runs(
    changes: dict[str, object], error: type, message: str, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        fit_recipe(changed(finished, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_sub_task_without_a_label_is_told(finished: Path, tmp_path: Path) -> None:
    rows = (finished / "opinions.csv").read_text().splitlines()
    cells = [row.split(",") for row in rows]
    table = tmp_path / "opinions.csv"
    table.write_text("\n".join(",".join([*c[:3], *c[4:]]) for c in cells) + "\n")
    raw = raw_recipe(finished)
    raw["data"]["annotations"] = str(table)
    for stage in ("writer", "captions"):
        del raw["stages"][stage]
    for stage in ("heads", "student"):
        del raw["stages"][stage]["comments_from"]
    with pytest.raises(DataError, match="No training row has a comment, which the caption task"):
        fit_recipe(parse_recipe(raw), tmp_path / "run")
