"""A table with several labels at once, learnt beside scores and plain labels: as a part of a joint
task trained end to end, and as a head on frozen features, up to verdicts, evaluation and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from beholder import Judge
from beholder.data.annotations import AnnotationTable
from beholder.pipeline.recipe import load_recipe
from beholder.pipeline.runner import fit_recipe
from beholder.report import write_report

TRAINING = {"epochs": 2, "batch_size": 16}
ATTRIBUTES = {"kind": "attributes", "class_weight_power": 0.5}
FROZEN = {
    "features": {"kind": "extract", "tokens": False},
    "attributes": {
        "kind": "train", "features": "features", "task": ATTRIBUTES, "training": TRAINING,
    },
    "judge": {"kind": "assemble", "heads": ["attributes"], "calibrate": "val"},
}  # fmt: skip
END_TO_END = {
    "all": {
        "kind": "train",
        "task": {
            "kind": "joint", "train_backbone": True,
            "tasks": {"score": {"kind": "score"}, "attributes": ATTRIBUTES},
        },
        "training": TRAINING,
    },
    "judge": {"kind": "assemble", "heads": ["all"], "calibrate": "val"},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pictures, dark or noisy or both or neither; of one nothing is known."""
    root = tmp_path_factory.mktemp("several")
    rng = np.random.default_rng(0)
    (root / "pictures").mkdir()
    lines = ["image,score,problems,kind,split"]
    for index in range(48):
        dark, noisy = index % 2 == 0, index % 3 == 0
        pixels = rng.integers(0, 256, (2, 2, 3)).repeat(16, axis=0).repeat(16, axis=1) / 1.5
        pixels = pixels + rng.normal(0, 60, (32, 32, 3)) * noisy
        Image.fromarray((pixels * (0.3 if dark else 1)).clip(0, 255).astype(np.uint8)).save(
            root / "pictures" / f"{index:02}.png"
        )
        held = [name for name, holds in (("dark", dark), ("noise", noisy)) if holds]
        cell = "" if index == 5 else ";".join(held) or "none"
        split = ("train", "train", "val", "test")[index // 12]
        lines.append(f"{index:02}.png,{4 - len(held)},{cell},{'ab'[index % 2]},{split}")
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("stages", [FROZEN, END_TO_END], ids=["frozen", "end to end"])
def test_a_run(folder: Path, stages: dict[str, Any], tmp_path: Path) -> None:
    recipe = {
        "name": "several",
        "data": {"annotations": str(folder / "table.csv"), "images": str(folder / "pictures")},
        "backbone": {
            "name": "timm/test_efficientnet", "weights": "random", "size": 32, "pooling": "stages",
        },
        "stages": {**stages, "evaluation": {"kind": "evaluate", "judge": "judge", "explain": 1}},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = tmp_path / "run"
    fit_recipe(load_recipe(tmp_path / "recipe.yaml"), run)
    assert AnnotationTable.from_parquet(run / "annotations.parquet").multi_label == {"problems"}
    judge = Judge.load(run / "judge", device="cpu")
    assert judge.multi_label == {"problems"} and set(judge.classes) == {"kind", "problems"}
    assert set(judge.calibration.thresholds["problems"]) == {"dark", "noise"}
    problems = judge(folder / "pictures" / "00.png").attributes["problems"]
    assert problems.multi_label and set(problems.labels) <= {"dark", "noise"}
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text("utf-8"))
    assert metrics["multi_label"]["problems"]["pictures"] == 12
    assert set(metrics["attributes"]) == {"kind"}
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("problems" in key for entry in logged for key in entry)
    page = write_report(run).read_text("utf-8")
    assert 'id="labels"' in page and "average precision" in page and 'id="attributes"' in page
