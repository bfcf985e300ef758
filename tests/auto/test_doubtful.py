"""Doubtful opinions of a run: planted mistakes come first, and it is told what is covered."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

from beholder.auto.doubtful import find_doubtful
from beholder.cli import main
from beholder.pipeline.manifest import Output, StageRecord, load_manifest
from beholder.pipeline.recipe import parse_recipe
from beholder.pipeline.runner import fit_recipe
from beholder.report.doubtful import render_doubtful

PICTURES, PLANTED = 120, 6
TINTS = {"red": (1.0, 0.5, 0.5), "green": (0.5, 1.0, 0.5), "blue": (0.5, 0.5, 1.0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tinted pictures, bright or dark, smooth or noisy, with a few wrong opinions of each kind, and
    a run that has extracted their features."""
    root = tmp_path_factory.mktemp("doubtful")
    (root / "pictures").mkdir()
    generator = np.random.default_rng(0)
    wrong = generator.permutation(PICTURES)[: 3 * PLANTED].reshape(3, PLANTED)
    rows = []
    for index in range(PICTURES):
        tint = list(TINTS)[index % 3]
        light, noisy = generator.uniform(60.0, 200.0), index % 2 == 0
        pixels = light * np.array(TINTS[tint]) + generator.normal(0.0, 1 + 24 * noisy, (48, 48, 3))
        key = f"{index:03}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "pictures" / key)
        held = {"noise"} if noisy else set()
        held |= {"dark"} if light < 130 else set()
        if index in wrong[2]:
            held ^= {"noise"}
        score = light / 40 + generator.normal(0.0, 0.05)
        rows.append(
            {
                "image": key,
                "score": 6.5 - score if index in wrong[0] else score,
                "tint": list(TINTS)[(index + 1) % 3] if index in wrong[1] else tint,
                "problems": ";".join(sorted(held)) or "none",
                "group": f"g{index // 2}",
            }
        )
    pl.DataFrame(rows).write_csv(root / "table.csv")
    kinds = ("score", "attributes.tint", "attributes.problems")
    planted = [(f"{i:03}.png", kind) for kind, part in zip(kinds, wrong, strict=True) for i in part]
    pl.DataFrame(planted, ["image", "kind"], orient="row").write_csv(root / "planted.csv")
    recipe = {
        "name": "tinted",
        "data": {"annotations": str(root / "table.csv"), "images": str(root / "pictures")},
        "backbone": {
            "name": "timm/test_efficientnet", "weights": "random", "size": 48, "pooling": "early",
        },
        "stages": {"features": {"kind": "extract", "tokens": False, "workers": 0}},
    }  # fmt: skip
    fit_recipe(parse_recipe(recipe), root / "run")
    return root


def planted_in(folder: Path, rows: pl.DataFrame) -> np.ndarray:
    """Which rows are planted mistakes."""
    planted = set(pl.read_csv(folder / "planted.csv").iter_rows())
    return np.array([row in planted for row in rows.select("image", "kind").iter_rows()])


def test_planted_mistakes_come_first(folder: Path) -> None:
    doubtful = find_doubtful(folder / "run")
    assert doubtful.rows.height == 3 * PICTURES
    for (kind,), part in doubtful.rows.group_by("kind"):
        is_planted = planted_in(folder, part)
        precision = average_precision_score(is_planted, -part["rank"].to_numpy())
        assert is_planted.sum() == PLANTED and precision > 0.8, kind
        assert sorted(part["rank"]) == list(range(1, PICTURES + 1))
    first = doubtful.rows.head(9)
    assert planted_in(folder, first).mean() > 0.75 and first["probably_wrong"].all()
    assert first["kind"].n_unique() == 3, "kinds take turns"
    words = doubtful.covered["attributes.tint"]
    assert f"{PICTURES} of {PICTURES} opinions" in words and "linear models" in words


def test_scores_of_the_runs_own_folds_are_taken_and_the_rest_is_told(
    folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    table = pl.read_csv(folder / "table.csv").head(100)
    target = table["score"].to_numpy()
    predicted = target + np.where(np.arange(100) == 7, 3.0, 0.1)
    frame = table.select("image", "score").with_columns(predicted=predicted, fold=0)
    frame.write_parquet(run / "folds.parquet")
    manifest = load_manifest(run)
    assert manifest is not None
    record = StageRecord(
        name="errors", kind="cross_validate", inputs_hash="0", code_version="0", config={},
        outputs={"predictions": Output(path="folds.parquet", sha256="0")}, started="", seconds=0.0,
    )  # fmt: skip
    manifest.put(record, ["features", "errors"])
    manifest.save(run)
    doubtful = find_doubtful(run)
    first = doubtful.rows.filter(pl.col("kind") == "score").row(0, named=True)
    assert first["image"] == "007.png" and first["predicted_by"] == "cross-validation"
    assert first["predicted"] == f"{predicted[7]:.4g}" and first["doubt"] == pytest.approx(30.0)
    words = doubtful.covered["score"]
    assert "100 of 120 opinions" in words and "20 others are not ranked" in words


def test_the_command_writes_a_table_and_a_page(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder / "run"
    with pytest.raises(SystemExit) as left:
        main(["doubtful", str(run), "--most", "4"])
    assert not left.value.code
    printed = capsys.readouterr().out
    written = pl.read_csv(run / "doubtful.csv")
    assert written.equals(find_doubtful(run).rows)
    assert all(image in printed for image in written["image"].head(5))
    assert str(run / "doubtful.html") in printed
    page = (run / "doubtful.html").read_text("utf-8")
    assert page.count("data:image/webp") == 3 * 4 and 'src="http' not in page
    assert "probably wrong" in page and "doubtful.csv" in page


def test_what_is_no_run_or_has_lost_its_pictures_is_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        ([str(tmp_path)], "There is no finished run here"),
        ([str(folder / "run"), "--images", str(tmp_path / "no")], "The pictures are not"),
    ):
        with pytest.raises(SystemExit) as left:
            main(["doubtful", *arguments])
        assert left.value.code == 2
        assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_page_escapes_what_the_table_says(folder: Path) -> None:
    rows = find_doubtful(folder / "run").rows.with_columns(target=pl.lit("<b>red</b>"))
    page = render_doubtful("<i>", rows, {"score": "<u>"}, folder / "pictures", "all.csv", 2)
    assert "&lt;b&gt;red" in page
    assert not any(evil in page for evil in ("<b>red", "<i>", "<u>"))
