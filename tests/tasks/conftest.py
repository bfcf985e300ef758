"""Sixteen pictures with random features and all kinds of opinions, and judges over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sixteen import CLASSES, COMMENTS, POOLED_DIM, ROWS, TOKEN_DIM, TOKENS

from beholder.data.vocabulary import Vocabulary
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.models.config import HeadConfig
from beholder.models.expansionnet_config import ExpansionNetConfig


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary.build(text for captions in COMMENTS for text in captions)


@pytest.fixture
def batch(vocabulary: Vocabulary) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    return {
        "keys": [f"{i:02}.png" for i in range(ROWS)],
        "tokens": torch.randn(ROWS, TOKENS, TOKEN_DIM, generator=generator),
        "pooled": torch.randn(ROWS, POOLED_DIM, generator=generator) * 30 + 100,
        "score": torch.rand(ROWS, generator=generator) * 80 + 10,
        "attributes": {
            name: torch.randint(len(labels), (ROWS,), generator=generator)
            for name, labels in CLASSES.items()
        },
        "comments": [[vocabulary.encode(text) for text in captions] for captions in COMMENTS],
    }


@pytest.fixture
def make_judge(vocabulary: Vocabulary) -> Callable[..., JudgeModel]:
    """A judge with one head, or with all three, on frozen features."""

    def make(*heads: str, rating_bins: tuple[float, ...] = (), **head: Any) -> JudgeModel:
        torch.manual_seed(0)
        wanted = heads or ("score", "attributes", "comment")
        comment = ExpansionNetConfig(
            d_model=32,
            enc_layers=1,
            dec_layers=1,
            ff=64,
            heads=4,
            enc_expansions=(4, 8),
            dec_expansions=4,
            vocab_size=len(vocabulary),
            max_length=10,
            feature_dim=TOKEN_DIM,
        )
        config = JudgeConfig(
            backbone=BackboneConfig(name="efficientnet-lite0"),
            pooled_dim=POOLED_DIM,
            token_dim=TOKEN_DIM,
            score=HeadConfig(**head) if "score" in wanted else None,
            score_grades=rating_bins,
            attributes=HeadConfig(**head) if "attributes" in wanted else None,
            comment=comment if "comment" in wanted else None,
            classes=CLASSES if "attributes" in wanted else {},
            vocabulary=vocabulary.to_dict() if "comment" in wanted else None,
            score_range=(10.0, 90.0) if "score" in wanted else None,
        )
        return JudgeModel.from_config(config, with_backbone=False)

    return make
