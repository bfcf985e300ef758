"""One function decides the arithmetic; stores, heads and judges keep to it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from beholder.data.annotations import AnnotationTable
from beholder.errors import DeviceError, StoreError
from beholder.features import precision
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.features.extract import extract
from beholder.features.precision import amp_dtype, autocast
from beholder.features.store import FeatureStore
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.judge.runtime.torch_engine import TorchEngine
from beholder.models.config import HeadConfig
from beholder.models.heads import AttributeHeads, ScoreHead

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
BACKBONE = BackboneConfig(name="timm/test_efficientnet", weights="random", size=64)


@pytest.mark.parametrize(
    ("choice", "bf16", "expected"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float16),
        ("fp16", True, torch.float16),
        ("bf16", True, torch.bfloat16),
        ("off", True, None),
    ],
)
def test_an_accelerator_computes_in_half_precision_by_default(
    monkeypatch: pytest.MonkeyPatch, choice: precision.Amp, bf16: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda _: bf16)
    assert amp_dtype(choice, CUDA, where="amp") is expected


def test_a_type_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda _: False)
    with pytest.raises(DeviceError, match="cuda does not support bf16") as caught:
        amp_dtype("bf16", CUDA, where="training.amp")
    assert caught.value.where == "training.amp"


def test_the_cpu_computes_in_float32_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert amp_dtype("auto", CPU, where="amp") is None
    assert amp_dtype("bf16", CPU, where="amp") is torch.bfloat16
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda _: False)
    assert amp_dtype("auto", CUDA, where="amp") is None, "a backend without autocast"


def test_a_store_holds_features_of_one_arithmetic(tmp_path: Path) -> None:
    backbone = create_backbone(BACKBONE)
    noise = np.random.default_rng(0).integers(0, 256, (2, 80, 80, 3), dtype=np.uint8)
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    table = AnnotationTable.from_columns(["0.png", "1.png"])
    stores = {}
    for amp in ("off", "bf16"):
        extract(backbone, table, tmp_path, tmp_path / amp, workers=0, device="cpu", amp=amp)
        stores[amp] = FeatureStore.open(tmp_path / amp).read(table.keys)[1]
    np.testing.assert_allclose(stores["bf16"], stores["off"], atol=0.05)
    assert not np.array_equal(stores["bf16"], stores["off"])
    with pytest.raises(StoreError, match=r"computed in bfloat16\), not of .* in float32"):
        extract(backbone, table, tmp_path, tmp_path / "bf16", workers=0, device="cpu")

    # a store of before the card told it was computed in float32
    card = tmp_path / "off" / "store.json"
    card_content = json.loads(card.read_text())
    assert card_content.pop("arithmetic") == "float32"
    card.write_text(json.dumps(card_content))
    again = extract(backbone, table, tmp_path, tmp_path / "off", workers=0, device="cpu")
    assert (again.written, again.reused) == (0, 2)


def test_heads_tell_scores_in_float32_under_autocast() -> None:
    pooled_BP = torch.randn(32, 24)
    config = HeadConfig()
    score = ScoreHead(24, config).eval()
    attributes = AttributeHeads(24, {"light": ("dark", "bright")}, config).eval()
    wanted = score(pooled_BP), attributes(pooled_BP)["light"]
    with autocast(CPU, torch.bfloat16):
        got = score(pooled_BP), attributes(pooled_BP)["light"]
        assert (pooled_BP @ pooled_BP.T).dtype is torch.bfloat16, "all else is narrow"
    for narrow, plain in zip(got, wanted, strict=True):
        assert narrow.dtype is torch.float32
        assert torch.equal(narrow, plain)


def test_a_judge_s_arithmetic_is_chosen() -> None:
    backbone = create_backbone(BACKBONE)
    config = JudgeConfig(
        backbone=BACKBONE, pooled_dim=backbone.pooled_dim, token_dim=backbone.token_dim,
        score=HeadConfig(),
    )  # fmt: skip
    model = JudgeModel(config, backbone)
    pixels = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)
    scores = {
        amp: TorchEngine(model, CPU, amp).opinions(pixels, None).score_B
        for amp in ("auto", "off", "bf16")
    }
    np.testing.assert_array_equal(scores["auto"], scores["off"])
    np.testing.assert_allclose(scores["bf16"], scores["off"], atol=0.05)
    assert not np.array_equal(scores["bf16"], scores["off"])
