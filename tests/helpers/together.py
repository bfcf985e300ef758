"""Sixteen pictures that lack opinions of every kind, and a joint task over all of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from sixteen import CLASSES, COMMENTS, POOLED_DIM, ROWS, TOKEN_DIM, TOKENS
from torch import nn

from beholder.data.vocabulary import Vocabulary
from beholder.features.backbones import Features
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.models.config import HeadConfig
from beholder.tasks import JointTaskConfig, create_task
from beholder.tasks.base import Task
from beholder.tasks.config import CommentHeadConfig

VOCABULARY = Vocabulary.build(text for captions in COMMENTS for text in captions)
PIXELS = 6
BODY = {
    "d_model": 16, "enc_layers": 1, "dec_layers": 1, "ff": 16, "heads": 2, "enc_expansions": (2,),
    "dec_expansions": 2, "dropout_encoder": 0.0, "dropout_decoder": 0.0,
    "dropout_encoder_input": 0.0, "dropout_decoder_input": 0.0, "dropout_other": 0.0,
}  # fmt: skip
TASKS: dict[str, dict[str, Any]] = {
    "quality": {"kind": "score"},
    "labels": {"kind": "attributes"},
    "words": {"kind": "caption"},
}


class Line(nn.Module):
    """A backbone of two matrices; counts how often it looks."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Linear(PIXELS, TOKENS * TOKEN_DIM)
        self.pooled = nn.Linear(PIXELS, POOLED_DIM)
        self.token_dim, self.pooled_dim, self.looked = TOKEN_DIM, POOLED_DIM, 0

    def forward(self, pixels: torch.Tensor, *, tokens: bool = True) -> Features:
        self.looked += 1
        return Features(
            self.tokens(pixels).reshape(-1, TOKENS, TOKEN_DIM)[:, : TOKENS if tokens else 0],
            self.pooled(pixels).tanh(),
        )


def make_model() -> JudgeModel:
    torch.manual_seed(0)
    head = HeadConfig(hidden=(8,))
    comment = CommentHeadConfig.model_validate(BODY).build(
        vocab_size=len(VOCABULARY), max_length=10, feature_dim=TOKEN_DIM
    )
    config = JudgeConfig(
        backbone=BackboneConfig(name="efficientnet-lite0"), pooled_dim=POOLED_DIM,
        token_dim=TOKEN_DIM, score=head, attributes=head, classes=CLASSES, comment=comment,
        vocabulary=VOCABULARY.to_dict(), score_range=(10.0, 90.0),
    )  # fmt: skip
    return JudgeModel(config, Line())  # type: ignore[arg-type]


def make_joint(model: JudgeModel | None = None, **options: Any) -> Task:
    options = {"tasks": TASKS, "train_backbone": True, **options}
    return create_task(JointTaskConfig.model_validate(options), model or make_model())


def make_batch(*, whole: bool = False) -> dict[str, Any]:
    """`whole`: nothing is missing, and every picture has as many words and labels."""
    generator = torch.Generator().manual_seed(5)
    score = torch.rand(ROWS, generator=generator) * 80 + 10
    labels = {
        name: torch.randint(len(captions), (ROWS,), generator=generator)
        for name, captions in CLASSES.items()
    }
    comments = [[VOCABULARY.encode(text) for text in captions] for captions in COMMENTS]
    if not whole:
        score[[0, 3, 4, 5, 9]] = math.nan
        for values in labels.values():
            values[[0, 1, 5]] = -1  # picture 0 has a comment alone, picture 5 nothing
        labels["light"][7:10] = -1
        comments[2], comments[5] = [], []
        comments[6] = comments[6] * 3
    return {
        "keys": [f"{i:02}.png" for i in range(ROWS)],
        "pixels": torch.randn(ROWS, PIXELS, generator=generator),
        "score": score,
        "attributes": labels,
        "comments": comments,
    }
