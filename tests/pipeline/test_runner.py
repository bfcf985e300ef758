"""Runs of recipes: what they leave, what runs again, and what must not."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from changed_recipes import changed_recipe
from PIL import Image
from torchrun import torchrun

from beholder import Judge
from beholder.cli import main
from beholder.data.annotations import AnnotationTable
from beholder.errors import BackboneError, DataError, GateError, RecipeError
from beholder.pipeline.context import RunContext
from beholder.pipeline.data import RunData, load_data
from beholder.pipeline.manifest import load_manifest
from beholder.pipeline.recipe import (
    Recipe,
    load_recipe,
    parse_recipe,
)
from beholder.pipeline.runner import check, fit_recipe
from beholder.pipeline.stages.gate import GateStage


def small_recipe(root: Path, **changes: object) -> Recipe:
    """Scores of 24 pictures, a third of them blurred by their name's number."""
    rows = ["image,score,split"]
    generator = np.random.default_rng(0)
    (root / "pictures").mkdir(exist_ok=True)
    for index in range(24):
        level = index % 8
        noise = generator.integers(0, 8 + level * 30, (64, 64, 3))
        Image.fromarray(noise.astype(np.uint8)).save(root / "pictures" / f"{index}.png")
        split = ("train", "train", "val", "test")[index // 6]
        rows.append(f"{index}.png,{level},{split}")
    (root / "scores.csv").write_text("\n".join(rows) + "\n")
    raw = {
        "name": "small",
        "data": {"annotations": str(root / "scores.csv"), "images": str(root / "pictures")},
        "backbone": {
            "name": "timm/test_efficientnet", "weights": "random", "size": 64, "pooling": "stages",
        },
        "stages": {
            "features": {"kind": "extract", "batch_size": 8, "workers": 0},
            "score": {
                "kind": "train", "features": "features", "task": {"kind": "score"},
                "training": {"epochs": 2, "batch_size": 8},
            },
            "judge": {"kind": "assemble", "heads": ["score"]},
            "evaluation": {"kind": "evaluate", "judge": "judge"},
        },
    }  # fmt: skip
    return changed_recipe(raw, **changes)


def test_calibration_is_fitted_stored_and_told(tmp_path: Path) -> None:
    stages = small_recipe(tmp_path).model_dump(mode="json")["stages"]
    stages["noise"] = stages.pop("score") | {"task": {"kind": "attributes"}}
    stages["judge"] = {"kind": "assemble", "heads": ["noise"], "calibrate": "val"}
    raw = small_recipe(tmp_path).model_dump(mode="json")
    rows = (tmp_path / "scores.csv").read_text().splitlines()[1:]
    noisy = [f"{image},{int(level) > 3},{split}" for image, level, split in map(_cells, rows)]
    (tmp_path / "scores.csv").write_text("\n".join(["image,attribute.noisy,split", *noisy]))
    fit_recipe(parse_recipe(raw | {"stages": stages}), tmp_path / "run")
    manifest = load_manifest(tmp_path / "run")
    assert manifest is not None
    record = manifest.find("judge")
    assert record is not None
    assert record.metrics.keys() >= {"ece_before.noisy", "ece_after.noisy"}
    calibration = Judge.load(tmp_path / "run" / "judge").calibration
    assert calibration.temperatures["noisy"] == pytest.approx(
        record.metrics["temperature.noisy"], abs=1e-6
    )


def _cells(line: str) -> list[str]:
    return line.split(",")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small run, its data beside it; tests work on copies."""
    root = tmp_path_factory.mktemp("small")
    fit_recipe(small_recipe(root), root / "run")
    return root


def test_run_leaves_what_it_promises(finished: Path) -> None:
    run = finished / "run"
    for name in (
        "recipe.yaml", "manifest.json", "log.txt", "metrics.jsonl", "annotations.parquet",
        "pictures.parquet", "judge/judge.json", "evaluation/metrics.json",
    ):  # fmt: skip
        assert (run / name).is_file(), name
    assert list((run / "tensorboard" / "score").iterdir())
    again = load_recipe(run / "recipe.yaml")
    assert again == small_recipe(finished)
    predictions = pl.read_parquet(run / "evaluation" / "predictions.parquet")
    assert predictions["image"].to_list() == [f"{index}.png" for index in range(18, 24)]
    overlays = json.loads((run / "evaluation" / "explanations" / "index.json").read_text())
    assert len(overlays) == 4
    assert {entry["image"] for entry in overlays} <= set(predictions["image"])
    judge = Judge.load(run / "judge")
    for key, predicted in predictions.select("image", "score").iter_rows():
        verdict = judge(finished / "pictures" / key)
        assert verdict.score == pytest.approx(predicted, abs=1e-5)
        assert verdict.interval is None


def test_only_what_changed_and_what_depends_on_it_runs_again(finished: Path, run: Path) -> None:
    before = load_manifest(run)
    changed = small_recipe(finished, stages__evaluation__resamples=500)
    assert fit_recipe(changed, run) == ["evaluation"]
    training = {"epochs": 2, "batch_size": 8, "lr": 0.01}
    changed = small_recipe(finished, stages__score__training=training)
    assert fit_recipe(changed, run) == ["score", "judge", "evaluation"]
    after = load_manifest(run)
    assert before is not None
    assert after is not None
    assert before.find("features") == after.find("features")
    assert len(list((run / "stages" / "score").iterdir())) == 1


def test_codebook_of_a_recipe_names_the_classes(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    rows = (tmp_path / "scores.csv").read_text().splitlines()[1:]
    noisy = [f"{image},{int(level) > 3:d},{split}" for image, level, split in map(_cells, rows)]
    (tmp_path / "scores.csv").write_text("\n".join(["image,attribute.noisy,split", *noisy]))
    (tmp_path / "book.yaml").write_text("noisy: [quiet, loud]")
    data = recipe.data.model_copy(update={"codebook": str(tmp_path / "book.yaml")})
    table = load_data(data, tmp_path / "run").table
    assert table.classes == {"noisy": ("quiet", "loud")}
    assert table.frame["attribute.noisy"].to_list()[:5] == ["quiet"] * 4 + ["loud"]
    with pytest.raises(DataError, match="sample names its classes itself"):
        load_data(data.model_copy(update={"annotations": "sample"}), tmp_path / "other")


def test_boxes_are_counted_and_those_outside_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = small_recipe(tmp_path, stages__features={"kind": "extract", "workers": 0})
    rows = (tmp_path / "scores.csv").read_text().splitlines()
    boxed = [rows[0] + ",xmin,ymin,xmax,ymax", *(f"{row},0,0,64,64" for row in rows[1:])]
    boxed[2] = boxed[2].replace("0,0,64,64", "-9,0,64,200")
    (tmp_path / "scores.csv").write_text("\n".join(boxed))
    with caplog.at_level(logging.WARNING):
        load_data(recipe.data, tmp_path / "run")
    assert "1 of 24 boxes reach out" in caplog.text
    boxed[5] = boxed[5].replace("0,0,64,64", "70,0,99,64")
    boxed[7] = boxed[7].replace("0,0,64,64", "0,64,64,99")
    (tmp_path / "scores.csv").write_text("\n".join(boxed))
    with pytest.raises(DataError, match="2 boxes lie outside") as caught:
        load_data(recipe.data, tmp_path / "run")
    assert {problem.key for problem in caught.value.problems} == {"4.png", "6.png"}


def test_gate_lets_a_small_judge_pass_and_stops_a_large_one(
    finished: Path, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half = {"kind": "assemble", "heads": ["score"], "dtype": "float16"}
    gate = {"kind": "gate", "judge": "judge", "megabytes": 4}
    recipe = small_recipe(finished, stages__judge=half, stages__gate=gate)
    with caplog.at_level(logging.INFO):
        assert fit_recipe(recipe, run) == ["judge", "evaluation", "gate"]
    manifest = load_manifest(run)
    assert manifest is not None
    record = manifest.find("gate")
    assert record is not None
    size = (run / "judge" / "weights.safetensors").stat().st_size
    assert record.metrics["megabytes"] == size / 1e6 == record.metrics["megabytes_float16"]
    assert record.metrics["megabytes_int8_weights"] < size / 1e6
    assert "of 4 ship" in caplog.text
    (verdict,) = Judge.load(run / "judge")([finished / "pictures" / "1.png"])
    assert verdict.score is not None
    limit = size / 1e6 - 0.001
    recipe = small_recipe(finished, stages__judge=half, stages__gate=gate | {"megabytes": limit})
    with pytest.raises(GateError, match=f"{size:,} bytes") as caught:
        fit_recipe(recipe, run)
    assert "largest tensors" in str(caught.value)


def test_gate_is_asked_before_anything_runs(finished: Path, tmp_path: Path) -> None:
    gate = {"kind": "gate", "judge": "judge", "megabytes": 0.01}
    with pytest.raises(GateError, match="backbone alone"):
        fit_recipe(small_recipe(finished, stages__gate=gate), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    several = {"kind": "assemble", "heads": ["score"], "ensemble": 2}
    config = GateStage(kind="gate", judge="judge")
    recipe = small_recipe(finished, stages__judge=several, stages__gate=config.model_dump())
    manifest = load_manifest(finished / "run")
    assert manifest is not None
    data = RunData(AnnotationTable.from_columns(["a"]), finished, "", {})
    context = RunContext(finished, recipe, data, manifest)
    with pytest.raises(RecipeError, match="lets one model pass"):
        check(["gate"], context)


def test_a_calibrated_judge_gives_intervals_of_scores(finished: Path, run: Path) -> None:
    judge = {"kind": "assemble", "heads": ["score"], "calibrate": "val", "level": 0.8}
    assert fit_recipe(small_recipe(finished, stages__judge=judge), run) == ["judge", "evaluation"]
    loaded = Judge.load(run / "judge")
    table = pl.read_csv(finished / "scores.csv").filter(pl.col("split") == "val")
    errors = [
        abs((loaded(finished / "pictures" / key).score or 0.0) - score)
        for key, score in table.select("image", "score").iter_rows()
    ]
    margin = sorted(errors)[5]  # ceil(7 * 0.8) of 6
    frame = pl.read_parquet(run / "evaluation" / "predictions.parquet")
    for key, score, low, high in frame.select("image", "score", "low", "high").rows():
        ends = np.clip((score - margin, score + margin), *loaded.score_range)
        assert (low, high) == pytest.approx(tuple(ends), abs=1e-5)
        assert loaded(finished / "pictures" / key).interval == pytest.approx((low, high), abs=1e-5)
    interval = json.loads((run / "evaluation" / "metrics.json").read_text())["interval"]
    assert (interval["level"], interval["calibrated_on"], interval["pictures"]) == (0.8, 6, 6)
    assert (
        interval["covered"] == frame["target.score"].is_between(frame["low"], frame["high"]).mean()
    )


def test_changed_picture_is_extracted_again_and_only_that_one(
    finished: Path, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished / "pictures", tmp_path / "pictures")
    shutil.copy(finished / "scores.csv", tmp_path)
    moved = small_recipe(finished).model_dump(mode="json")
    moved["data"]["images"] = str(tmp_path / "pictures")
    assert fit_recipe(parse_recipe(moved), run) == []  # the same content at another place
    Image.new("RGB", (64, 64), "red").save(tmp_path / "pictures" / "3.png")
    assert "features" in fit_recipe(parse_recipe(moved), run)
    manifest = load_manifest(run)
    assert manifest is not None
    record = manifest.find("features")
    assert record is not None
    assert record.metrics["written"] == 1
    assert record.metrics["reused"] == 23


def test_split_that_is_made_keeps_look_alikes_together_and_one_that_leaks_is_refused(
    finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    generator = np.random.default_rng(1)
    for index in range(24):
        blocks = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        large = blocks.resize((64, 64), Image.Resampling.BICUBIC)
        large.save(tmp_path / "pictures" / f"{index}.png")
        large.save(tmp_path / "pictures" / f"{index}-again.jpg", quality=90)
    names = [f"{index}{end}" for index in range(24) for end in (".png", "-again.jpg")]
    rows = [f"{name},{number % 7}" for number, name in enumerate(names)]
    (tmp_path / "scores.csv").write_text("\n".join(["image,score", *rows]) + "\n")
    recipe = small_recipe(finished).model_dump(mode="json")
    recipe["data"] |= {
        "annotations": str(tmp_path / "scores.csv"),
        "images": str(tmp_path / "pictures"),
        "split": {"train": 0.5, "val": 0.25, "test": 0.25},
    }
    fit_recipe(parse_recipe(recipe), tmp_path / "run")
    split = dict(
        pl.read_parquet(tmp_path / "run" / "annotations.parquet").select("image", "split").rows()
    )
    assert set(split.values()) == {"train", "val", "test"}
    for index in range(24):
        assert split[f"{index}.png"] == split[f"{index}-again.jpg"]
    assert fit_recipe(parse_recipe(recipe), tmp_path / "run") == []
    rows = [f"{n},{i % 7},{'train' if i % 2 else 'test'},g{i // 2}" for i, n in enumerate(names)]
    (tmp_path / "scores.csv").write_text("\n".join(["image,score,split,group", *rows]) + "\n")
    with pytest.raises(DataError, match="leaks"):
        fit_recipe(parse_recipe(recipe), tmp_path / "leaking")


def test_unchanged_recipe_loads_no_torch(finished: Path, run: Path, tmp_path: Path) -> None:
    # The bar is two seconds; what costs seconds is counted here instead of timed.
    recipe = tmp_path / "recipe.yaml"
    shutil.copy(run / "recipe.yaml", recipe)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from beholder.pipeline.recipe import load_recipe\n"
        "from beholder.pipeline.runner import fit_recipe\n"
        f"assert fit_recipe(load_recipe(Path({str(recipe)!r})), Path({str(run)!r})) == []\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lost_output_runs_again(finished: Path, run: Path) -> None:
    shutil.rmtree(run / "judge")
    assert fit_recipe(small_recipe(finished), run)[0] == "judge"


def test_same_recipe_gives_the_same_judge(finished: Path, tmp_path: Path) -> None:
    fit_recipe(small_recipe(finished), tmp_path / "again")
    ours = (tmp_path / "again" / "judge" / "weights.safetensors").read_bytes()
    assert ours == (finished / "run" / "judge" / "weights.safetensors").read_bytes()


def test_dry_run_plans_and_writes_no_stage(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stages = fit_recipe(small_recipe(finished), tmp_path / "run", dry_run=True)
    assert stages == ["features", "score", "judge", "evaluation"]
    assert "about" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_broken_picture_is_quarantined_and_the_rest_goes_on(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "pictures", tmp_path / "pictures")
    (tmp_path / "pictures" / "5.png").write_bytes(b"not a picture")
    (tmp_path / "pictures" / "20.png").unlink()
    recipe = small_recipe(finished).model_dump(mode="json")
    recipe["data"]["images"] = str(tmp_path / "pictures")
    fit_recipe(parse_recipe(recipe), tmp_path / "run")
    quarantined = pl.read_csv(tmp_path / "run" / "quarantine.csv")
    assert dict(quarantined.select("image", "code").iter_rows()) == {
        "5.png": "not_a_picture", "20.png": "missing",
    }  # fmt: skip
    metrics = json.loads((tmp_path / "run" / "evaluation" / "metrics.json").read_text())
    assert metrics["counts"] == {"pictures": 5, "failed": 1, "groups": 5}


def test_mistake_in_a_late_stage_is_found_before_the_first_one_runs(
    finished: Path, tmp_path: Path
) -> None:
    nowhere = small_recipe(finished, stages__evaluation__split="val", data__columns={})
    raw = nowhere.model_dump(mode="json")
    raw["stages"]["comments"] = {
        "kind": "train", "features": "features", "task": {"kind": "caption"},
        "training": {"epochs": 1},
    }  # fmt: skip
    with pytest.raises(DataError, match="comment"):
        fit_recipe(parse_recipe(raw), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_contradictions_are_recipe_errors(finished: Path, tmp_path: Path) -> None:
    task = {"kind": "score", "train_backbone": True}
    with pytest.raises(RecipeError, match="frozen features"):
        fit_recipe(small_recipe(finished, stages__score__task=task), tmp_path / "run")
    training = {"epochs": 1, "layer_decay": 0.5}
    with pytest.raises(RecipeError, match="no layer of a backbone"):
        fit_recipe(small_recipe(finished, stages__score__training=training), tmp_path / "run")
    with pytest.raises(BackboneError, match="no backbone"):
        fit_recipe(small_recipe(finished, backbone={"name": "timm/resnet5O"}), tmp_path / "run")


def test_training_end_to_end_on_pictures(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = small_recipe(finished).model_dump(mode="json")
    del recipe["stages"]["features"]
    recipe["stages"]["score"] |= {
        "features": None,
        "task": {"kind": "score", "train_backbone": True},
        "augment": {"flip": 0.5, "brightness": 0.1},
    }
    fit_recipe(parse_recipe(recipe), tmp_path / "run")
    assert "changes what the scores are of" in caplog.text
    from safetensors.numpy import load_file

    frozen = load_file(finished / "run" / "judge" / "weights.safetensors")
    tuned = load_file(tmp_path / "run" / "judge" / "weights.safetensors")
    assert frozen.keys() == tuned.keys()
    moved = [n for n in frozen if n.startswith("backbone") and (frozen[n] != tuned[n]).any()]
    assert moved


def test_second_run_in_the_same_folder_is_refused(
    finished: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from beholder.pipeline.lock import run_lock\n"
        f"with run_lock(Path({str(run)!r})):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(SystemExit) as left:
            main(["fit", str(run / "recipe.yaml"), "--into", str(run)])
        assert left.value.code == 2
        assert "Another process" in capsys.readouterr().err
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.slow  # two nodes are compared with one process in test_multi_node
def test_run_under_torchrun_equals_a_single_process(finished: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    shutil.copy(finished / "run" / "recipe.yaml", recipe)
    head = "stages.score.task.head={hidden: [4], input_dropout: 0, dropout: 0}"
    torchrun("-m", "beholder", "fit", recipe, head, "--into", tmp_path / "two")
    fit_recipe(load_recipe(recipe, [head]), tmp_path / "one")
    from safetensors.numpy import load_file

    alone = load_file(tmp_path / "one" / "judge" / "weights.safetensors")
    two = load_file(tmp_path / "two" / "judge" / "weights.safetensors")
    assert alone.keys() == two.keys()
    for name, value in alone.items():
        np.testing.assert_allclose(two[name], value, atol=1e-5, rtol=0, err_msg=name)
