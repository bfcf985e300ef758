"""The commands as a user types them: what they print, their exit codes, and bad input."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from former_runs import forget_files
from PIL import Image

from beholder.cli import main
from beholder.features.device import asked_device
from beholder.pipeline.recipe import parse_recipe
from beholder.pipeline.runner import fit_recipe

BACKBONE = {
    "name": "timm/test_efficientnet", "weights": "random", "size": 64, "pooling": "stages",
}  # fmt: skip


def run(*arguments: object) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code is None or isinstance(left.value.code, int)
    return left.value.code or 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 16 scored pictures, and a finished run."""
    root = tmp_path_factory.mktemp("data")
    (root / "pictures").mkdir()
    generator = np.random.default_rng(0)
    rows = ["image,score,split"]
    for index in range(16):
        pixels = generator.integers(0, 16 * (index + 1), (64, 64, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(root / "pictures" / f"{index}.png")
        rows.append(f"{index}.png,{index},{('train', 'train', 'val', 'test')[index % 4]}")
    (root / "scores.csv").write_text("\n".join(rows) + "\n")
    recipe = {
        "name": "cli",
        "data": {"annotations": str(root / "scores.csv"), "images": str(root / "pictures")},
        "backbone": BACKBONE,
        "stages": {
            "features": {"kind": "extract", "workers": 0},
            "score": {
                "kind": "train", "features": "features", "task": {"kind": "score"},
                "training": {"epochs": 1, "batch_size": 8},
            },
            "judge": {"kind": "assemble", "heads": ["score"]},
            "evaluation": {"kind": "evaluate", "judge": "judge"},
        },
    }  # fmt: skip
    fit_recipe(parse_recipe(recipe), root / "run")
    return root


def test_judge_prints_a_line_per_picture_in_order(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    names = [data / "pictures" / "3.png", tmp_path / "bad.jpg", data / "pictures" / "1.png"]
    assert run("judge", data / "run" / "judge", *names, "--format", "jsonl") == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["image"] for line in lines] == [str(name) for name in names]
    agreed = {"image", "score", "interval", "comment", "attributes"}
    further = {
        "low", "high", "distribution", "alternatives", "probabilities", "familiarity",
        "unfamiliar", "judge",
    }  # fmt: skip
    assert [set(line) for line in lines] == [agreed | further, {"image", "error"}, agreed | further]
    card = hashlib.sha256((data / "run" / "judge" / "judge.json").read_bytes()).hexdigest()
    assert lines[0]["judge"] == f"run/judge@{card[:12]}"
    assert run("judge", data / "run" / "judge", data / "pictures", "--format", "csv") == 0
    assert len(capsys.readouterr().out.splitlines()) == 17


def test_judge_writes_overlays_on_request(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    names = [data / "pictures" / "3.png", tmp_path / "bad.jpg", data / "pictures" / "1.png"]
    shown = ("--explain", "score", "--into", tmp_path / "why", "--format", "jsonl")
    assert run("judge", data / "run" / "judge", *names, *shown) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    files = [line["explanations"]["score"] for line in lines if "error" not in line]
    assert sorted(map(str, (tmp_path / "why").iterdir())) == files
    for file in files:
        with Image.open(file) as overlay:
            assert overlay.size == (64, 64)
    judge = data / "run" / "judge"
    assert run("judge", judge, names[0], "--explain", "score") == 2
    assert run("judge", judge, names[0], "--explain", "mood", "--into", tmp_path / "no") == 2
    assert "Use one of: score" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_evaluate_prints_metrics(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = data / "scores.csv"
    arguments = (data / "run" / "judge", table, "--images", data / "pictures", "--split", "test")
    assert run("evaluate", *arguments, "--format", "json") == 0
    metrics = json.loads(capsys.readouterr().out)
    stored = json.loads((data / "run" / "evaluation" / "metrics.json").read_text())
    assert metrics["score"]["srcc"] == stored["score"]["srcc"]
    manifest = json.loads((data / "run" / "manifest.json").read_text())
    assert manifest["stages"][-1]["signature"] == metrics["signature"] == stored["signature"]
    assert run("evaluate", *arguments) == 0
    text = capsys.readouterr().out
    assert "SRCC" in text and "signature   srcc|mean ranks|95 % bootstrap interval: 2000" in text


def test_report_is_written_where_it_says(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", data / "run") == 0
    path = capsys.readouterr().out.split("Report: ")[1].strip()
    assert Path(path).read_text("utf-8").startswith("<!doctype html>")


def test_check_prints_problems_and_leaves_with_2(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", data / "scores.csv", "--images", data / "pictures") == 0
    table = tmp_path / "scores.csv"
    table.write_text("image,score\n0.png,1\nnone.png,2\n1.png,nan\n")
    assert run("check", table, "--images", data / "pictures") == 2
    text = capsys.readouterr().out
    assert "none.png" in text
    assert run("check", table, "--images", data / "pictures", "--format", "json") == 2
    report = json.loads(capsys.readouterr().out)
    assert {problem["key"] for problem in report["problems"]} >= {"none.png"}


def test_check_tells_how_far_raters_can_be_trusted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offsets = {"ann": 0.0, "bob": 0.1, "cem": 2.0}
    rows = [
        f"{index}.png,{rater},{index % 5 + offset + 0.3 * ((3 * index + position) % 4)}"
        for index in range(20)
        for position, (rater, offset) in enumerate(offsets.items())
    ]
    table = tmp_path / "ratings.csv"
    table.write_text("\n".join(["image,rater,score", *rows]))
    assert run("check", table) == 0
    text = capsys.readouterr().out
    assert "No problems found.\n\nopinions: 60 ratings, 3 raters of 20 pictures compared" in text
    assert "a perfect model's SRCC" in text
    assert run("check", table, "--format", "json") == 0
    opinions = json.loads(capsys.readouterr().out)["opinions"]
    biases = {entry["rater"]: entry["bias"] for entry in opinions["raters"]}
    assert biases["cem"] - biases["ann"] == pytest.approx(2.0, abs=0.2)
    assert 0 < opinions["srcc_ceiling"]["low"] < opinions["srcc_ceiling"]["high"] <= 1
    assert len(opinions["pictures"]) == 20


def write_recipe(folder: Path, data: Path, text: str = "", **changes: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {
        "name": "bad",
        "data": {"annotations": str(data / "scores.csv"), "images": str(data / "pictures")},
        "backbone": BACKBONE,
        "stages": {"features": {"kind": "extract", "workers": 0}},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(text or json.dumps(recipe))
    return path


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("missing table", "data.annotations=none.csv", "none.csv"),
        ("missing image root", "data.images=none", "does not exist"),
        ("unknown backbone", "backbone.name=timm/resnet5O", "no backbone"),
        ("unknown backbone family", "backbone.name=resnet50", "no backbone"),
        ("unknown recipe key", "data.imges=x", "nearest known: 'images'"),
        ("missing weights", "backbone.weights=none.safetensors", "does not exist"),
        ("out of range", "stages.features.batch_size=0", "greater than or equal to 1"),
    ],
)
def test_bad_recipe_says_what_and_writes_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    name: str, override: str, message: str,
) -> None:  # fmt: skip
    recipe = write_recipe(tmp_path / "in", data)
    assert run("fit", recipe, override, "--into", tmp_path / "run") == 2, name
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == [recipe.parent]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("colour,taste\nred,sweet\n", "colour"),
        ("image,score\n", "row"),
        ("", "empty"),
    ],
)
def test_bad_table_says_what(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (tmp_path / "scores.csv").write_text(content)
    recipe = write_recipe(tmp_path / "in", data)
    override = f"data.annotations={tmp_path / 'scores.csv'}"
    assert run("fit", recipe, override, "--into", tmp_path / "run") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_feature_store_of_another_backbone_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data / "run", tmp_path / "run")
    store = next((tmp_path / "run" / "stages" / "features").iterdir())
    path = tmp_path / "run" / "recipe.yaml"
    seed = "backbone.seed=5"
    other = tmp_path / "other"
    assert run("fit", path, seed, "stages.score.training.epochs=1", "--into", other) == 0
    foreign = next((other / "stages" / "features").iterdir())
    shutil.rmtree(store / "store")
    shutil.copytree(foreign / "store", store / "store")
    forget_files(tmp_path / "run")
    code = run("fit", path, "stages.score.training.lr=0.1", "--into", tmp_path / "run")
    assert code == 2
    assert "backbone" in capsys.readouterr().err


def test_evaluate_compares_caption_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    references, results = tmp_path / "references.csv", tmp_path / "results.json"
    references.write_text("image_id,caption\n1,a dog runs\n1,the dog runs\n2,a red car\n")
    results.write_text('[{"image_id": 1, "caption": "a dog runs"}, {"image_id": 2, "caption": ""}]')
    files = ("--references", references, "--hypotheses", results)
    assert run("evaluate", *files, "--metric", "CIDEr", "--metric", "Bleu", "--format", "json") == 0
    printed = capsys.readouterr()
    metrics = json.loads(printed.out)
    assert list(metrics["corpus"]) == ["CIDEr-D", *(f"BLEU-{order}" for order in range(1, 5))]
    assert metrics["metrics"]["CIDEr-D"]["direction"] == "max"
    assert [problem["key"] for problem in metrics["problems"]] == ["2"]
    assert run("evaluate", *files, "--metric", "ROUGE_L") == 0
    text = capsys.readouterr().out
    assert "ROUGE_L  0.5" in text and "signature: ROUGE_L|beta 1.2|tokens: ptb-coco" in text
    assert "2: an empty hypothesis" in text
    assert run("evaluate", *files, "--metric", "ROUG") == 2
    assert "no caption metric 'ROUG'" in capsys.readouterr().err
    results.write_text('[{"image_id": 1, "caption": 5}, {"image_id": 3, "caption": "x"}]')
    assert run("evaluate", *files) == 2
    error = capsys.readouterr().err
    assert "3 problem(s)" in error and "1: the hypothesis is int, not text" in error
    assert "3: a hypothesis without references" in error
    assert "2: references without a hypothesis" in error
    assert run("evaluate", "--references", references) == 2
    assert run("evaluate", "judge", references, "--metric", "BLEU") == 2


def test_output_folder_that_cannot_be_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    recipe = write_recipe(tmp_path / "in", data)
    assert run("fit", recipe, "--into", tmp_path / "file" / "run") == 2
    assert "can't be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("judge", "none", "picture.jpg"),
        ("evaluate", "none"),
        ("report", "none"),
        ("check", "none.csv"),
        ("fit", "none"),
        ("nonsense",),
        ("judge",),
    ],
)
def test_wrong_arguments_leave_with_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.err or "error" in printed.out
    assert list(tmp_path.iterdir()) == []


def test_module_runs_like_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "beholder", "judge", "none", "x"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: There is no judge here.")


@pytest.mark.parametrize("command", ["demo", "fit", "judge", "evaluate", "serve", "export"])
def test_every_command_that_computes_takes_a_device(
    command: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge, table = data / "run" / "judge", data / "scores.csv"
    arguments: dict[str, list[object]] = {
        "demo": ["--into", tmp_path / "run"],
        "fit": ["demo", "--into", tmp_path / "run"],
        "judge": [judge, data / "pictures"],
        "evaluate": [judge, table, "--images", data / "pictures"],
        "serve": [judge],
        "export": [judge, "--to", tmp_path / "file", "--pictures", data / "pictures"],
    }
    assert run(command, *arguments[command], "--device", "cuda:99") == 2
    printed = capsys.readouterr().err
    assert "There is no device 'cuda:99' here" in printed
    assert "where: --device" in printed
    assert "Use one of:" in printed
    assert "Traceback" not in printed
    assert asked_device() is None, "the next command is free again"


def test_the_environment_names_a_device_too(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = data / "pictures" / "3.png"
    monkeypatch.setenv("BEHOLDER_DEVICE", "abacus")
    assert run("judge", data / "run" / "judge", picture) == 2
    refusal = "'abacus' is not the name of a device.\n  where: BEHOLDER_DEVICE"
    assert refusal in capsys.readouterr().err
    assert run("judge", data / "run" / "judge", picture, "--device", "cpu") == 0
