"""An assembled judge knows what its training pictures look like, unless it is told not to."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from beholder import Judge
from beholder.cli import main
from beholder.pipeline.recipe import Recipe, parse_recipe
from beholder.pipeline.runner import fit_recipe

FROZEN = {
    "features": {"kind": "extract", "batch_size": 16, "workers": 0, "tokens": False},
    "score": {
        "kind": "train", "features": "features", "task": {"kind": "score"},
        "training": {"epochs": 1, "batch_size": 16},
    },
}  # fmt: skip
TUNED = {
    "score": {
        "kind": "train", "task": {"kind": "score", "train_backbone": True},
        "training": {"epochs": 1, "batch_size": 16},
    }
}  # fmt: skip


def run(*arguments: object) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code is None or isinstance(left.value.code, int)
    return left.value.code or 0


def noise(draws: np.random.Generator) -> Image.Image:
    values = draws.normal(draws.uniform(90, 160), draws.uniform(20, 60), (64, 64, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def recipe(root: Path, stages: dict[str, Any], pictures: int = 96, **judge: object) -> Recipe:
    """Scores of pictures of noise, half of them to train on and half to validate."""
    draws = np.random.default_rng(0)
    (root / "pictures").mkdir()
    rows = ["image,score,split"]
    for index in range(pictures):
        noise(draws).save(root / "pictures" / f"{index}.png")
        rows.append(f"{index}.png,{draws.uniform(1, 5)},{('train', 'val')[index % 2]}")
    (root / "scores.csv").write_text("\n".join(rows) + "\n")
    return parse_recipe(
        {
            "name": "familiar",
            "data": {"annotations": str(root / "scores.csv"), "images": str(root / "pictures")},
            "backbone": {
                "name": "timm/test_efficientnet", "weights": "random", "size": 64,
                "pooling": "stages",
            },
            "stages": stages | {"judge": {"kind": "assemble", "heads": ["score"], **judge}},
        }
    )  # fmt: skip


@pytest.mark.parametrize(("stages", "units"), [(FROZEN, 96), (TUNED, 48)])
def test_strange_pictures_are_unfamiliar(
    stages: dict[str, Any], units: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit_recipe(recipe(tmp_path, stages), tmp_path / "run")
    judge = Judge.load(tmp_path / "run" / "judge", device="cpu")
    known = judge.calibration.familiarity
    assert known is not None and known.units == units
    draws = np.random.default_rng(1)
    values = [judge(noise(draws)).familiarity for _ in range(40)]
    assert sum(value < 0.05 for value in values if value is not None) <= 8
    (tmp_path / "new").mkdir()
    for index in range(12):
        stripes = np.zeros((64, 64, 3), np.uint8)
        stripes[:, :: 2 + index] = 255
        Image.fromarray(stripes).save(tmp_path / "new" / f"{index}.png")
        assert judge(tmp_path / "new" / f"{index}.png").unfamiliar
    capsys.readouterr()
    batch = [str(tmp_path / "run" / "judge"), str(tmp_path / "new"), "--device", "cpu"]
    assert run("judge", *batch) == 0
    assert "unfamiliar: unlike the pictures" in capsys.readouterr().out
    assert run("judge", *batch, "--drift") == 0
    told = capsys.readouterr().out
    assert told.startswith("The batch of 12 pictures as a whole is unlike the pictures that")
    assert run("judge", *batch, "--format", "jsonl") == 0
    (tmp_path / "verdicts.jsonl").write_text(capsys.readouterr().out)
    assert run("judge", batch[0], tmp_path / "verdicts.jsonl", "--drift") == 0
    assert capsys.readouterr().out == told
    seen = [str(tmp_path / "pictures" / f"{index}.png") for index in range(30)]
    assert run("judge", batch[0], *seen, "--drift", "--format", "jsonl") == 0
    drift = json.loads(capsys.readouterr().out)
    assert (drift["pictures"], drift["drifted"]) == (30, False)


@pytest.mark.parametrize(("pictures", "judge"), [(96, {"familiarity": False}), (30, {})])
def test_a_judge_without_it_says_nothing(
    pictures: int,
    judge: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with caplog.at_level(logging.WARNING, "beholder"):
        fit_recipe(recipe(tmp_path, FROZEN, pictures, **judge), tmp_path / "run")
    warned = "will not know what is unfamiliar to it: 30 pictures are too few"
    assert (warned in caplog.text) == (pictures == 30)
    verdict = Judge.load(tmp_path / "run" / "judge", device="cpu")(tmp_path / "pictures/0.png")
    assert (verdict.familiarity, verdict.unfamiliar) == (None, None)
    assert verdict.to_dict()["unfamiliar"] is None
    assert run("judge", tmp_path / "run/judge", tmp_path / "pictures", "--drift") == 2
    assert "does not know what its training pictures look like" in capsys.readouterr().err
