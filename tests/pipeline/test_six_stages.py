"""Stages that hand over features, weights and backbones: the comments recipe in small.

Runs on a tiny convolutional backbone; the recipe's tiny twin does the same with a Swin.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from changed_recipes import changed_recipe
from former_runs import forget_files
from outputs import output
from PIL import Image
from safetensors.torch import load_file, save_file

from beholder import Judge
from beholder.data.vocabulary import SubwordVocabulary
from beholder.decoding import beam_search
from beholder.errors import (
    BeholderError,
    CheckpointError,
    RecipeError,
)
from beholder.features.store import FeatureStore
from beholder.judge.store.folder import load_judge
from beholder.pipeline.origins import backbone_after, backbone_of
from beholder.pipeline.recipe import Recipe, find_recipe, load_recipe, parse_recipe
from beholder.pipeline.runner import fit_recipe
from beholder.training.checkpoints import CheckpointFolder, load_checkpoint

HEAD = {
    "d_model": 16, "enc_layers": 1, "dec_layers": 1, "ff": 16, "heads": 2, "enc_expansions": [2],
    "dec_expansions": 2,
}  # fmt: skip
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
STAGES = ("features", "xe", "xe-e2e", "tuned", "rf", "rf-e2e", "judge", "evaluation")


def raw_recipe(root: Path) -> dict[str, Any]:
    """24 noisy pictures of three colours, two comments each."""
    pictures = root / "pictures"
    generator = np.random.default_rng(0)
    if not pictures.exists():
        pictures.mkdir()
        rows = ["image,comments,split"]
        for index in range(24):
            name = list(COLOURS)[index % 3]
            noise = generator.integers(-25, 25, (48, 48, 3)) + COLOURS[name]
            Image.fromarray(noise.astype(np.uint8)).save(pictures / f"{index}.png")
            split = "train" if index < 15 else ("val" if index < 19 else "test")
            texts = (f"it is all {name} and {index % 5}", f"a {name} picture")
            rows += [f"{index}.png,{text},{split}" for text in texts]
        (root / "comments.csv").write_text("\n".join(rows) + "\n")
    caption: dict[str, Any] = {"kind": "caption", "head": HEAD}
    reward: dict[str, Any] = {
        "kind": "self_critical", "head": HEAD, "samples": 2, "sample_length": 8,
    }  # fmt: skip
    training = {"epochs": 2, "batch_size": 8, "lr": 1e-3, "save_every_steps": 1, "keep": 3}
    tuned = {"train_backbone": True}
    return {
        "name": "small",
        "data": {"annotations": str(root / "comments.csv"), "images": str(pictures)},
        "backbone": {"name": "timm/test_efficientnet", "weights": "random", "size": 64},
        "stages": {
            "features": {"kind": "extract", "batch_size": 8, "workers": 0},
            "xe": {"kind": "train", "features": "features", "task": caption, "training": training},
            "xe-e2e": {
                "kind": "train", "warm_start": "xe", "task": caption | tuned, "training": training,
            },
            "tuned": {
                "kind": "extract", "batch_size": 8, "workers": 0, "backbone_from": "xe-e2e",
            },
            "rf": {
                "kind": "train", "features": "tuned", "warm_start": "xe-e2e", "task": reward,
                "training": training,
            },
            "rf-e2e": {
                "kind": "train", "warm_start": "rf", "task": reward | tuned, "training": training,
            },
            "judge": {"kind": "assemble", "heads": ["rf-e2e"]},
            "evaluation": {"kind": "evaluate", "judge": "judge", "resamples": 100},
        },
    }  # fmt: skip


def changed(root: Path, **changes: object) -> Recipe:
    of_stages = {f"stages__{path}": value for path, value in changes.items()}
    return changed_recipe(raw_recipe(root), **of_stages)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("six")
    assert fit_recipe(changed(root), root / "run") == list(STAGES)
    return root


def heads(run: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_file(output(run, stage, "model"))


def test_whose_backbone_a_stage_works_with(finished: Path) -> None:
    recipe = changed(finished)
    before = {name: backbone_of(recipe, name).tuned_by for name in STAGES[:-1]}
    assert before == {
        "features": None, "xe": None, "xe-e2e": None, "tuned": "xe-e2e", "rf": "xe-e2e",
        "rf-e2e": "xe-e2e", "judge": "rf-e2e",
    }  # fmt: skip
    assert backbone_after(recipe, "rf").tuned_by == "xe-e2e"
    assert backbone_after(recipe, "rf-e2e").tuned_by == "rf-e2e"


def test_every_stage_goes_on_from_the_one_before(finished: Path) -> None:
    run = finished / "run"
    stores = [FeatureStore.open(output(run, name, "store")) for name in ("features", "tuned")]
    first, second = (store.read(["0.png"])[0] for store in stores)
    assert not np.allclose(first, second)
    judge = load_judge(run / "judge").model
    assert judge.backbone is not None
    assert not any(name.startswith("backbone.") for name in heads(run, "rf"))
    tuned = heads(run, "rf-e2e")
    for name, tensor in judge.state_dict().items():
        assert torch.equal(tensor, tuned[name]), name
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("reward" in line for line in lines if line["stage"] == "rf-e2e")
    assert Judge.load(run / "judge")(finished / "pictures" / "20.png").comment is not None


def test_the_start_is_the_start(finished: Path, run: Path) -> None:
    """With a learning rate of almost nothing, a stage's weights are those that it started from."""
    slow = {
        "epochs": 1, "batch_size": 8, "lr": 1e-12, "optimizer": {"name": "sgd"},
    }  # fmt: skip
    ran = fit_recipe(changed(finished, rf__training=slow, rf_e2e__training=slow), run)
    assert ran == ["rf", "rf-e2e", "judge", "evaluation"]
    start = heads(run, "xe-e2e")
    for stage in ("rf", "rf-e2e"):
        for name, tensor in heads(run, stage).items():
            if tensor.is_floating_point() and "running" not in name:
                torch.testing.assert_close(tensor, start[name], atol=1e-6, rtol=0, msg=name)


def test_a_changed_backbone_reaches_all_that_hangs_on_it(finished: Path, run: Path) -> None:
    training = raw_recipe(finished)["stages"]["xe-e2e"]["training"] | {"lr": 2e-3}
    ran = fit_recipe(changed(finished, xe_e2e__training=training), run)
    assert ran == list(STAGES[2:])


def test_another_head_in_all_stages_is_another_recipe(finished: Path, run: Path) -> None:
    """What the run has from before is of the old head, and no reason to refuse the new one."""
    raw = raw_recipe(finished)
    for name in ("xe", "xe-e2e", "rf", "rf-e2e"):
        raw["stages"][name]["task"]["head"] = HEAD | {"ff": 24}
    raw["backbone"]["name"] = "timm/test_convnext"
    assert fit_recipe(parse_recipe(raw), run, dry_run=True) == list(STAGES)


def test_weights_of_another_origin_are_refused(finished: Path, run: Path) -> None:
    path = output(run, "xe-e2e", "model")
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    forget_files(run)
    training = raw_recipe(finished)["stages"]["rf"]["training"] | {"lr": 2e-3}
    with pytest.raises(CheckpointError, match="not those that stage 'xe-e2e' has written"):
        fit_recipe(changed(finished, rf__training=training), run)


def test_features_of_another_origin_are_refused(finished: Path, run: Path) -> None:
    store_folder = output(run, "tuned", "store")
    shutil.rmtree(store_folder)
    shutil.copytree(output(run, "features", "store"), store_folder)
    forget_files(run)
    training = raw_recipe(finished)["stages"]["rf"]["training"] | {"lr": 2e-3}
    with pytest.raises(BeholderError, match=r"features|store"):
        fit_recipe(changed(finished, rf__training=training), run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuned__backbone_from": "xe"}, "'xe' trains no backbone"),
        ({"rf__features": "features"}, "'features' are of the recipe's backbone"),
        ({"judge__heads": ["rf-e2e", "xe"]}, "both give the judge its comment head"),
        ({"judge__ensemble": 4}, "it keeps 3"),
        ({"judge__soup": 3, "judge__ensemble": 3}, "choose one"),
    ],
)
def test_what_does_not_belong_together_is_refused_at_once(
    changes: dict[str, object], message: str, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        fit_recipe(changed(finished, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_heads_that_do_not_fit_are_found_before_anything_runs(
    finished: Path, tmp_path: Path
) -> None:
    task = raw_recipe(finished)["stages"]["rf"]["task"]
    with pytest.raises(RecipeError, match=r"vocabulary is not the(.|\n)*stages\.rf\.warm_start"):
        fit_recipe(changed(finished, rf__task=task | {"min_count": 6}), tmp_path / "run")
    wider = task | {"head": HEAD | {"ff": 32}}
    with pytest.raises(RecipeError, match=r"comment\.ff was 16, here it is 32"):
        fit_recipe(changed(finished, rf__task=wider), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_table_without_comments_is_refused(finished: Path, tmp_path: Path) -> None:
    lines = (finished / "comments.csv").read_text().splitlines()
    rows = [lines[0], *(f"{line.split(',')[0]},,{line.split(',')[2]}" for line in lines[1::2])]
    (tmp_path / "empty.csv").write_text("\n".join(rows) + "\n")
    raw = raw_recipe(finished)
    raw["data"]["annotations"] = str(tmp_path / "empty.csv")
    with pytest.raises(RecipeError, match="No training row has a comment"):
        fit_recipe(parse_recipe(raw), tmp_path / "run")


def test_a_soup_is_the_mean_of_the_checkpoints(finished: Path, run: Path) -> None:
    assert fit_recipe(changed(finished, judge__soup=3), run) == ["judge", "evaluation"]
    home = output(run, "rf-e2e", "model").parent
    paths = CheckpointFolder(home / "checkpoints", 3).steps()[-3:]
    parts = [load_checkpoint(path).tensors["weights"] for path in paths]
    steps = {path.name.split("-")[1] for path in paths}
    assert len(steps) == 3
    for name, tensor in load_judge(run / "judge").model.state_dict().items():
        if tensor.is_floating_point():
            mean = sum(part[f"model.{name}"].double() for part in parts) / 3
            torch.testing.assert_close(tensor, mean.to(tensor.dtype), msg=name)


@pytest.mark.parametrize("stage", ["rf-e2e", "rf"])
def test_an_ensemble_averages_probabilities(stage: str, finished: Path, run: Path) -> None:
    """Each of the three sees with its own backbone if it has tuned one."""
    recipe = changed(finished, judge__ensemble=3, judge__heads=[stage])
    assert fit_recipe(recipe, run) == ["judge", "evaluation"]
    judge = Judge.load(run / "judge")
    pictures = [finished / "pictures" / f"{index}.png" for index in range(19, 24)]
    pixels = torch.from_numpy(np.concatenate([judge.prepare(path) for path in pictures]))
    model = load_judge(run / "judge").model.eval()
    assert len(model.others) == 2
    assert all(("backbone" in other) == (stage == "rf-e2e") for other in model.others)
    models, tokens = [], []
    for path in reversed(
        CheckpointFolder(output(run, stage, "model").parent / "checkpoints", 3).steps()[-3:]
    ):
        weights = load_checkpoint(path).tensors["weights"]
        member = load_judge(run / "judge").model.eval()
        member_weights = {n.removeprefix("model."): t for n, t in weights.items()}
        member.load_state_dict(
            {n: t for n, t in member_weights.items() if not n.startswith("others.")}, strict=False
        )
        models.append(member.comment)
        with torch.no_grad():
            tokens.append(member.features({"pixels": pixels}).tokens_BNC)
    hypotheses = beam_search(
        models, tokens, beam_size=3, max_length=model.comment.config.max_length
    )
    assert judge.vocabulary is not None
    expected = [judge.vocabulary.decode(member_weights[0].tokens) for member_weights in hypotheses]
    comments = [verdict.comment or "" for verdict in judge(pictures)]
    assert [text.lower().rstrip(".") for text in comments] == expected


def test_subwords_go_all_the_way_to_the_judge(finished: Path, tmp_path: Path) -> None:
    raw = raw_recipe(finished)
    stages = raw["stages"]
    for name in ("xe-e2e", "tuned", "rf-e2e"):
        del stages[name]
    stages["xe"]["task"] = {**stages["xe"]["task"], "subwords": 48}
    stages["rf"] |= {"features": "features", "warm_start": "xe"}
    stages["rf"]["task"] = {**stages["rf"]["task"], "subwords": 48}
    stages["judge"]["heads"] = ["rf"]
    fit_recipe(parse_recipe(raw), tmp_path / "run")
    judge = Judge.load(tmp_path / "run" / "judge")
    assert isinstance(judge.vocabulary, SubwordVocabulary)
    assert len(judge.vocabulary) <= 48
    stored = json.loads((tmp_path / "run" / "judge" / "vocabulary.json").read_text("utf-8"))
    assert stored["kind"] == "subwords"
    assert judge(finished / "pictures" / "20.png").comment is not None


def test_evaluations_between_epochs(finished: Path, run: Path) -> None:
    training = raw_recipe(finished)["stages"]["rf-e2e"]["training"] | {"evaluate_every_steps": 1}
    task = raw_recipe(finished)["stages"]["rf-e2e"]["task"] | {"beam_sizes": [1, 3]}
    fit_recipe(changed(finished, rf_e2e__training=training, rf_e2e__task=task), run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    validations = [line for line in lines if line["stage"] == "rf-e2e" and line["split"] == "val"]
    assert [line["step"] for line in validations] == [0, 1, 2, 3, 4]
    assert {"CIDEr-D", "CIDEr-D@3", "bad_endings", "no_end", "cross_entropy"} <= set(validations[0])


def test_the_shipped_recipe_has_the_published_values() -> None:
    recipe = load_recipe(find_recipe("samsung-iqa-comments"))
    assert recipe.seed == 775533
    values = {}
    for name, stage in recipe.stages.items():
        if stage.kind != "train":
            continue
        t, task = stage.training, stage.task
        assert (t.optimizer.name, t.optimizer.betas, t.optimizer.eps) == (
            "radam",
            (0.9, 0.98),
            1e-9,
        )
        assert t.schedule.name == "custom_warmup_anneal"
        assert t.schedule.min_lr == 5e-7
        # the published schedule counts micro-batches; where it matters, so does ours
        exact = t.accumulate == 1 or t.schedule.warmup_steps <= 1
        assert exact or t.schedule.warmup_unit == "micro-batch"
        assert t.save_every_minutes == 60
        drops = {k: v for k, v in task.head.model_dump().items() if k.startswith("dropout")}
        assert set(drops.values()) == {0.1}
        assert len(drops) == 5
        schedule = (t.schedule.warmup_steps, t.schedule.coefficient, t.schedule.every_epochs)
        values[name] = (
            task.kind,
            task.train_backbone,
            t.batch_size,
            t.accumulate,
            t.lr,
            t.epochs,
            *schedule,
            t.keep,
            *task.beam_sizes,
        )
    assert values == {
        "cross-entropy": ("caption", False, 48, 1, 5e-4, 15, 300, 0.8, 2, 1, 3),
        "cross-entropy-end-to-end": ("caption", True, 8, 6, 1e-4, 5, 1, 0.55, 1, 1, 3),
        "self-critical": ("self_critical", False, 48, 1, 1e-4, 15, 300, 0.8, 1, 10, 5),
        "self-critical-end-to-end": ("self_critical", True, 4, 12, 1e-5, 2, 100, 0.7, 3, 10, 5),
    }  # fmt: skip


def test_calibrating_what_gives_only_comments_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Only attributes and scores are calibrated"):
        fit_recipe(changed(finished, judge__calibrate="val"), tmp_path / "run")
