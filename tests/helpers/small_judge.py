"""A tiny judge with every head, whose opinions differ between pictures of noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from beholder.data.vocabulary import Vocabulary
from beholder.features.backbones import Backbone, create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge import Judge
from beholder.judge.model import JudgeConfig, JudgeModel
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


def load_uncut(path: Path) -> Judge:
    """A judge whose scores are not cut to its scale: those of random weights lie far off it."""
    judge = Judge.load(path)
    judge.score_range = None
    return judge
