"""JudgeConfig and JudgeModel: building again without weights, features, opinions, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from beholder.data.vocabulary import Vocabulary
from beholder.errors import JudgeError
from beholder.features.backbones import Features, create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.models.config import HeadConfig
from beholder.models.expansionnet_config import ExpansionNetConfig

WORDS = Vocabulary.build(["a dark stone", "a bright river"])
CLASSES = {"light": ("dark", "bright"), "mood": ("calm", "wild", "sad")}
BODY = {
    "d_model": 16,
    "enc_layers": 1,
    "dec_layers": 1,
    "ff": 16,
    "heads": 2,
    "enc_expansions": (4,),
    "dec_expansions": 2,
    "max_length": 8,
}


def config(**changes: Any) -> JudgeConfig:
    values: dict[str, Any] = {
        "backbone": BackboneConfig(name="efficientnet-lite0"),
        "pooled_dim": 6,
        "token_dim": 5,
        "score": HeadConfig(hidden=(4,)),
        "attributes": HeadConfig(),
        "comment": ExpansionNetConfig(vocab_size=len(WORDS), feature_dim=5, **BODY),
        "classes": CLASSES,
        "vocabulary": WORDS.to_dict(),
        "score_range": (1.0, 5.0),
    }
    return JudgeConfig(**{**values, **changes})


class FakeBackbone(nn.Module):
    """Gives 3 tokens of 5 features and 6 pooled ones."""

    def __init__(self, token_dim: int = 5, pooled_dim: int = 6) -> None:
        super().__init__()
        self.token_dim, self.pooled_dim = token_dim, pooled_dim
        self.config = BackboneConfig(name="efficientnet-lite0")

    def forward(self, pixels_B3HW: Tensor, *, tokens: bool = True) -> Features:
        mean = pixels_B3HW.mean((1, 2, 3))
        return Features(
            mean[:, None, None].expand(-1, 3, self.token_dim),
            mean[:, None].expand(-1, self.pooled_dim),
        )


def test_config_survives_json() -> None:
    again = JudgeConfig.model_validate_json(config().model_dump_json())
    assert again == config()


def test_the_model_is_built_again_without_weights_and_takes_its_own() -> None:
    torch.manual_seed(0)
    model = JudgeModel.from_config(config(), with_backbone=False).eval()
    model.heads["score"].fit_output(torch.tensor([1.0, 5.0]))
    text = config().model_dump_json()
    again = JudgeModel.from_config(JudgeConfig.model_validate_json(text), with_backbone=False)
    again.load_state_dict(model.state_dict())
    batch = {"pooled": torch.randn(4, 6), "tokens": torch.randn(4, 3, 5)}
    first, second = (m.opinions(m.features(batch)) for m in (model, again.eval()))
    assert first.score_B is not None
    assert second.score_B is not None
    assert torch.equal(first.score_B, second.score_B)
    assert again.vocabulary == WORDS
    assert again.classes == CLASSES
    assert again.score_range == (1.0, 5.0)
    assert torch.equal(model.comment.encode(batch["tokens"]), again.comment.encode(batch["tokens"]))


def test_opinions() -> None:
    model = JudgeModel.from_config(config(), with_backbone=False).eval()
    opinions = model.opinions(model.features({"pooled": torch.randn(4, 6)}))
    assert opinions.score_B is not None
    assert opinions.score_B.shape == (4,)
    assert {name: tuple(p.shape) for name, p in opinions.probabilities_BK.items()} == {
        "light": (4, 2),
        "mood": (4, 3),
    }
    for probabilities in opinions.probabilities_BK.values():
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(4))


def test_absent_heads_say_nothing() -> None:
    only_comment = config(score=None, attributes=None, classes={})
    model = JudgeModel.from_config(only_comment, with_backbone=False)
    assert list(model.heads) == ["comment"]
    opinions = model.opinions(model.features({"tokens": torch.randn(2, 3, 5)}))
    assert opinions == (None, {}, None)
    no_comment = config(comment=None, vocabulary=None)
    with pytest.raises(JudgeError, match="no comment head"):
        _ = JudgeModel.from_config(no_comment, with_backbone=False).comment


def test_features_are_the_frozen_ones_or_the_backbones() -> None:
    model = JudgeModel(config(), FakeBackbone())  # type: ignore[arg-type]
    pixels = torch.ones(2, 3, 4, 4)
    seen = model.features({"pixels": pixels})
    assert seen.tokens_BNC.shape == (2, 3, 5)
    assert torch.equal(seen.pooled_BP, torch.ones(2, 6))
    frozen = {"pixels": pixels, "pooled": torch.zeros(2, 6), "tokens": torch.zeros(2, 3, 5)}
    assert not model.features(frozen).pooled_BP.any()
    assert model.features({"pooled": torch.zeros(2, 6)}).tokens_BNC.shape == (2, 0, 5)
    assert model.features({"tokens": torch.zeros(2, 3, 5)}).pooled_BP.shape == (2, 0)


def test_with_a_real_backbone() -> None:
    backbone = BackboneConfig(name="efficientnet-lite0", size=64, pooling="stages")
    built = create_backbone(backbone, load_weights=False)
    scores_only = config(
        backbone=backbone,
        pooled_dim=built.pooled_dim,
        token_dim=built.token_dim,
        attributes=None,
        classes={},
        comment=None,
        vocabulary=None,
    )
    model = JudgeModel.from_config(scores_only).eval()
    assert model.backbone is not None
    with torch.no_grad():
        opinions = model.opinions(model.features({"pixels": torch.randn(2, 3, 64, 64)}))
    assert opinions.score_B is not None
    assert opinions.score_B.isfinite().all()
    assert any(name.startswith("backbone.") for name in model.state_dict())


@pytest.mark.parametrize("dims", [(5, 7), (4, 6)])
def test_a_backbone_of_other_features_is_refused(dims: tuple[int, int]) -> None:
    model = JudgeModel.from_config(config(), with_backbone=False)
    with pytest.raises(JudgeError, match="the heads expect 5 and 6"):
        model.attach(FakeBackbone(*dims))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary": None}, "without a vocabulary"),
        ({"classes": {}}, "without classes"),
        ({"token_dim": 9}, "tokens of 5 features"),
        ({"vocabulary": Vocabulary.build(["one"]).to_dict()}, "the vocabulary has 5"),
        ({"score": HeadConfig(inputs=7)}, "7 inputs, but 6"),
        ({"calibrated": 3}, "Extra inputs"),
    ],
)
def test_configs_that_do_not_fit_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)
