"""A tiny judge with every head, its graphs (written once: the exporter takes seconds), pictures."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_judge import make_model

from beholder.data.test_time_augmentation import ViewConfig
from beholder.export import graphs as onnx_graphs
from beholder.export import judge_file as export
from beholder.judge.calibration import Calibration
from beholder.judge.model import JudgeModel
from beholder.judge.store.folder import save_judge
from beholder.metrics.conformal import ConformalInterval


@pytest.fixture(scope="session")
def model() -> JudgeModel:
    return make_model(
        views=ViewConfig(flip=True),
        score_range=(1.0, 5.0),
        calibration=Calibration(
            temperatures={"light": 2.0},
            score=ConformalInterval(level=0.9, quantile=0.25, pictures=40),
        ),
    )


@pytest.fixture(scope="session")
def judge(model: JudgeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge") / "judge"
    save_judge(model, folder, beam_size=3, provenance={"recipe": "test", "seed": 1})
    return folder


@pytest.fixture(scope="session")
def written_graphs(model: JudgeModel) -> dict[str, Any]:
    return onnx_graphs.judge_graphs(model)


@pytest.fixture
def graphs(written_graphs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the next export writes: a copy of the judge's graphs."""
    copies = {name: copy.deepcopy(graph) for name, graph in written_graphs.items()}
    monkeypatch.setattr(export, "judge_graphs", lambda model: copy.deepcopy(copies))
    return copies


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """66 pictures of noise, the first of which is none."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for index in range(66):
        mean, spread = generator.uniform(40, 220, 3), generator.uniform(5, 90)
        noise = generator.normal(mean, spread, (70, 80, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noise).save(root / f"{index:02}.png")
    (root / "00.png").write_bytes(b"no picture")
    return root
