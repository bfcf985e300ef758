"""The model card tells what the run that made a judge holds, and of no other run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from beholder.export.card import UNKNOWN, render_card
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig
from beholder.judge.store.folder import Stored, load_judge
from beholder.judge.store.manifest import Manifest
from beholder.pipeline.recipe import parse_recipe
from beholder.pipeline.runner import fit_recipe

CHANGE = {"before": 0.9, "after": 0.8991, "against": "the given scores"}
PARITY = {
    "source": "pictures", "pictures": 65, "score_difference": 0.00012, "srcc": CHANGE,
    "same_labels": {}, "accuracy": {}, "same_comments": None, "cider": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    rows = ["image,score,split"]
    for index in range(16):
        pixels = generator.integers(0, 16 * (index + 1), (64, 64, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{index}.png")
        rows.append(f"{index}.png,{index},{('train', 'train', 'val', 'test')[index % 4]}")
    (root / "scores.csv").write_text("\n".join(rows) + "\n")
    backbone = {"name": "timm/test_efficientnet", "weights": "random", "size": 64}
    recipe = {
        "name": "grains", "seed": 5,
        "data": {"annotations": str(root / "scores.csv"), "images": str(root)},
        "backbone": backbone,
        "stages": {
            "features": {"kind": "extract", "workers": 0},
            "score": {
                "kind": "train", "features": "features", "task": {"kind": "score"},
                "training": {"epochs": 1, "batch_size": 8},
            },
            "judge": {"kind": "assemble", "heads": ["score"]},
            "evaluation": {"kind": "evaluate", "judge": "judge", "resamples": 100},
        },
    }  # fmt: skip
    fit_recipe(parse_recipe(recipe), root / "run")
    return root / "run"


def card_of(stored: Stored, judge: Path, config: JudgeConfig | None = None) -> str:
    backbone = stored.model.backbone
    assert backbone is not None
    manifest = Manifest(
        precision="fp16", heads=("score",), transform=backbone.transform.to_dict(),
        provenance=stored.provenance, parity=PARITY,
    )  # fmt: skip
    return render_card(manifest, config or stored.model.config, judge)


def test_data_metrics_and_recipe_of_its_run(run: Path) -> None:
    card = card_of(load_judge(run / "judge"), run / "judge")
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    for sentence in (
        "# Model card: grains", "- 16 pictures: 8 train, 4 val, 4 test",
        "16 scores, 0.000 to 15.000", "recipe grains, seed 5", "kind: extract",
        f"SRCC      {metrics['score']['srcc']['value']:.3f}  (95 %: ",
        metrics["signature"]["srcc"], "largest difference 0.00012; SRCC 0.9000 -> 0.8991",
        "robust      mirrored",
        "at most 0.005 of SRCC", "Trained from random weights", "not calibrated",
    ):  # fmt: skip
        assert sentence in card, card
    assert UNKNOWN not in card
    assert "annotations: scores.csv" in card
    assert str(run.parent) not in card


def test_the_hub_reads_the_evaluation_in_its_header(run: Path) -> None:
    card = ModelCard(card_of(load_judge(run / "judge"), run / "judge"))
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert card.data.library_name == "beholder"
    assert {(result.metric_type, result.metric_value) for result in card.data.eval_results} == {
        (name, metrics["score"][name]["value"]) for name in ("plcc", "srcc", "krcc", "rmse")
    }


def test_nothing_of_a_run_that_made_another_judge(run: Path, tmp_path: Path) -> None:
    stored = load_judge(run / "judge")
    copied = tmp_path / "judge"
    copied.mkdir()
    for file in (run / "judge").iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    assert card_of(stored, copied).count(UNKNOWN) == 2
    (tmp_path / "manifest.json").write_bytes((run / "manifest.json").read_bytes())
    assert "Its run holds no evaluation" in card_of(stored, copied)
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "metrics.json").write_text("{}")  # of another evaluation
    assert "Its run holds no evaluation" in card_of(stored, copied)
    (copied / "judge.json").write_text("{}")
    assert card_of(stored, copied).count(UNKNOWN) == 2


@pytest.mark.parametrize(
    ("name", "weights", "licence"),
    [
        ("efficientnet-lite0", "pretrained", "licence: `Apache-2.0`"),
        ("timm/tiny_vit_5m_224", "pretrained", "licence: `apache-2.0`"),
        ("timm/test_efficientnet", Path("/home/me/own.safetensors"), "own.safetensors; their"),
    ],
)
def test_licence_as_its_publisher_says_or_unknown(
    run: Path, name: str, weights: str | Path, licence: str
) -> None:
    stored = load_judge(run / "judge")
    backbone = BackboneConfig(name=name, weights=weights)
    config = stored.model.config.model_copy(update={"backbone": backbone})
    card = card_of(stored, run / "judge", config)
    assert licence in card
    assert "/home/me" not in card
