"""What an earlier version has written still works: a run, a judge's folder and its one file, a
feature store, a checkpoint, batches that were stopped. See `tests/golden/before/README.md`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from beholder import Judge
from beholder.cli import main
from beholder.features.store import FeatureStore
from beholder.pipeline.recipe import load_recipe
from beholder.pipeline.runner import fit_recipe
from beholder.report import write_report

BEFORE = Path(__file__).parent / "golden" / "before"
PICTURES = 24
RANGE = (1.18, 4.03)  # of the scores that it was trained on


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in, which is the current folder as it was then."""
    folder = tmp_path / "before"
    shutil.copytree(BEFORE, folder)
    monkeypatch.chdir(folder)
    return folder


def verdicts(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def assert_same(line: dict[str, object], expected: dict[str, object]) -> None:
    """The fields that there were, with their values; there may be more now."""
    assert {name: line[name] for name in ("image", "comment")} == {
        name: expected[name] for name in ("image", "comment")
    }
    assert line["score"] == pytest.approx(expected["score"], abs=1e-4)
    # scores and intervals are cut to the judge's range since
    assert np.clip(line["interval"], *RANGE) == pytest.approx(
        np.clip(expected["interval"], *RANGE), abs=1e-4
    )
    for name, attribute in expected["attributes"].items():
        assert line["attributes"][name]["label"] == attribute["label"]
        assert line["attributes"][name]["probability"] == pytest.approx(
            attribute["probability"], abs=1e-4
        )


@pytest.mark.parametrize(
    ("judge", "expected"),
    [("run/judge", "folder_verdicts.jsonl"), ("run/judge.beholder", "file_verdicts.jsonl")],
)
def test_a_judge_says_what_it_said(before: Path, judge: str, expected: str) -> None:
    lines = verdicts(before / expected)
    assert len(lines) == PICTURES
    loaded_verdicts = Judge.load(judge, device="cpu")([str(line["image"]) for line in lines])
    for verdict, line in zip(loaded_verdicts, lines, strict=True):
        assert_same(verdict.to_dict(), line)


def test_a_run_is_still_done(before: Path) -> None:
    manifest = (before / "run/manifest.json").read_bytes()
    assert fit_recipe(load_recipe(Path("recipe.yaml")), Path("run")) == []
    assert (before / "run/manifest.json").read_bytes() == manifest
    write_report(Path("run"))
    assert "PLCC" in (before / "run/report.html").read_text("utf-8")


def test_a_training_goes_on_from_its_checkpoint(before: Path) -> None:
    others = ("errors", "attributes", "comments", "judge", "gate", "evaluation", "file")
    left_out = [f"stages.{name}=null" for name in others]
    recipe = load_recipe(Path("recipe.yaml"), ["stages.score.training.epochs=3", *left_out])
    assert fit_recipe(recipe, Path("run")) == ["score"]
    log = (before / "run/log.txt").read_text("utf-8")
    assert "step-00000004" in log and "epoch 3/3" in log and "epoch 2/3" not in log


def test_a_feature_store_is_read(before: Path) -> None:
    (folder,) = (before / "run/stages/features").glob("*/store")
    store = FeatureStore.open(folder)
    store.verify()
    assert store.keys == [f"{number:02}.png" for number in range(PICTURES)]
    _, pooled_BP = store.read(store.keys)
    assert pooled_BP.shape == (PICTURES, store.pooled_dim) and np.isfinite(pooled_BP).all()


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_stopped_batch_is_resumed(
    before: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Path("half") / f"verdicts.{ending}"
    with pytest.raises(SystemExit) as left:
        main(["judge", "run/judge.beholder", "pictures", "--output", str(output)])
    assert not left.value.code
    assert f"{PICTURES} pictures, {9 if ending == 'jsonl' else 8} of them before" in (
        capsys.readouterr().out
    )
    expected = verdicts(before / "file_verdicts.jsonl")
    if ending == "jsonl":
        lines = verdicts(output)
        assert len(lines) == PICTURES
        for line, known in zip(lines, expected, strict=True):
            assert_same(line, known)
        return
    frame = pl.read_parquet(output)
    assert frame["image"].to_list() == [line["image"] for line in expected]
    assert frame["score"].to_list() == pytest.approx([line["score"] for line in expected], abs=1e-4)
