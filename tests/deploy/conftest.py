"""A tiny judge with every head, its graphs (written once: the exporter takes seconds), pictures."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from beholder.data.views import ViewConfig
from beholder.data.vocabulary import Vocabulary
from beholder.deploy import export, onnx_graphs
from beholder.features.backbones import Backbone, create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.calibration import Calibration
from beholder.judge.folder import save_judge
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.metrics.conformal import ConformalInterval
from beholder.models.config import HeadConfig
from beholder.models.expansionnet import ExpansionNetConfig

CLASSES = {"light": ("dark", "bright"), "kind.of": ("a", "b", "c")}
WORDS = " ".join(f"word{index}" for index in range(60))


def small_backbone(seed: int = 0) -> Backbone:
    return create_backbone(
        BackboneConfig(
            name="timm/test_efficientnet", weights="random", size=64, pooling="stages", seed=seed
        )
    )


def make_model(ensemble: int = 1, **changes: Any) -> JudgeModel:
    """A judge whose opinions differ between pictures of noise; `ensemble` captioners, each with a
    backbone of its own."""
    backbone = small_backbone()
    vocabulary = Vocabulary.build([WORDS])
    torch.manual_seed(0)
    reads_tokens = changes.get("comment_reads", "tokens") == "tokens"
    comment = ExpansionNetConfig(
        d_model=16, enc_layers=1, dec_layers=2, ff=16, heads=2, enc_expansions=(2, 3),
        dec_expansions=2, vocab_size=len(vocabulary), max_length=8,
        feature_dim=backbone.token_dim if reads_tokens else backbone.pooled_dim,
    )  # fmt: skip
    config = JudgeConfig(
        backbone=backbone.config, pooled_dim=backbone.pooled_dim, token_dim=backbone.token_dim,
        comment=comment, vocabulary=vocabulary.to_dict(), ensemble=ensemble,
        own_backbones=ensemble > 1,
        **{"score": HeadConfig(), "attributes": HeadConfig(), "classes": CLASSES, **changes},
    )  # fmt: skip
    others = [small_backbone(seed) for seed in range(1, ensemble)]
    model = JudgeModel(config, backbone, others).eval()
    _adapt(model)
    return model


@torch.no_grad()
def _adapt(model: JudgeModel) -> None:
    """Give heads inputs of mean 0 and deviation 1, so that they tell pictures apart."""
    noise = torch.randn(64, 3, 64, 64) * torch.rand(64, 1, 1, 1) + torch.randn(64, 3, 1, 1)
    assert model.backbone is not None
    seen = model.backbone(noise)
    for head in ("score", "attributes"):
        if head in model.heads:
            model.heads[head].fit_input(seen.pooled_BP)
    if model.comment_input is not None:
        model.comment_input.fit(seen.pooled_BP)
    for writer, tokens_BNC in model.writers(noise, seen):
        for parameter in writer.parameters():  # no norm is the identity
            parameter.add_(torch.randn_like(parameter) * 0.05)
        std_C, mean_C = torch.std_mean(tokens_BNC, dim=(0, 1))
        writer.input.weight.mul_(2 / (std_C + 1e-3))
        writer.input.bias.copy_(-(writer.input.weight @ mean_C))
        writer.output.weight.mul_(4)  # surer than a fresh one


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
    own = {name: copy.deepcopy(graph) for name, graph in written_graphs.items()}
    again: Callable[[JudgeModel], dict[str, Any]] = lambda model: copy.deepcopy(own)  # noqa: E731
    monkeypatch.setattr(export, "judge_graphs", again)
    return own


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
