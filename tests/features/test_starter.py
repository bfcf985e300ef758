from __future__ import annotations

import pytest
import torch

from beholder.features import starter
from beholder.features.backbones import create_backbone, known_backbones, outline_backbone
from beholder.features.config import BackboneConfig


def test_it_is_the_lower_part_of_efficientnet_lite0() -> None:
    whole = create_backbone(
        BackboneConfig(
            name="efficientnet-lite0", weights="random", size=128, resize="native", pooling="early"
        )
    )
    cut = create_backbone(BackboneConfig(name="starter", weights="random", pooling="early"))
    state = whole.trunk.state_dict()
    cut.trunk.load_state_dict({name: state[name] for name in cut.trunk.state_dict()})
    pixels = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, features = whole(pixels, tokens=False), cut(pixels)
    torch.testing.assert_close(features.pooled_BP, expected.pooled_BP, rtol=0.0, atol=0.0)
    assert features.tokens_BNC.shape == (2, 64, 112)
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in whole.parameters()) / 4


@pytest.mark.parametrize(("pooling", "pooled"), [("early", 608), ("stages", 384), ("last", 112)])
def test_every_pooling_fits(pooling: str, pooled: int) -> None:
    config = BackboneConfig.model_validate({"name": "starter", "pooling": pooling})
    outline = outline_backbone(config)
    assert (outline.pooled_dim, outline.token_dim) == (pooled, 112)
    assert outline.transform.size == (starter.SIDE, starter.SIDE)
    assert outline.transform.resize == "native"


def test_it_is_known_by_its_name() -> None:
    assert known_backbones()[0] == "starter"


def test_its_weights_are_shipped() -> None:
    backbone = create_backbone(BackboneConfig(name="starter", pooling="early"))
    random = create_backbone(BackboneConfig(name="starter", weights="random", pooling="early"))
    pixels = torch.zeros(1, 3, 128, 128)
    with torch.no_grad():
        assert not torch.allclose(backbone(pixels).pooled_BP, random(pixels).pooled_BP)
    assert starter.WEIGHTS.stat().st_size < 2e6
