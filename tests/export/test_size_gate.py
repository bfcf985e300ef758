"""Sizes of real files, what is narrowed, and what the gate says of a judge that is too large."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from beholder.errors import GateError, JudgeError
from beholder.export.size import check_size, int8_weights, measure
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.judge.store.dtypes import stored_as
from beholder.models.config import HeadConfig

STATE = {
    "matrix": torch.linspace(-3, 3, 4000).reshape(4, 10, 100),
    "bias": torch.full((7,), 1e-9),
    "count": torch.tensor(3),
}


def test_tiny_vit_with_three_heads_passes() -> None:
    backbone = create_backbone(BackboneConfig(name="timm/tiny_vit_5m_224", weights="random"))
    classes = {
        name: tuple(map(str, range(count))) for name, count in zip("abc", (7, 6, 3), strict=True)
    }
    config = JudgeConfig(
        backbone=backbone.config, pooled_dim=backbone.pooled_dim, token_dim=backbone.token_dim,
        attributes=HeadConfig(), classes=classes,
    )  # fmt: skip
    sizes = measure(JudgeModel(config, backbone).state_dict())
    assert sizes.float32 < 25e6
    assert sizes.float16 < 0.52 * sizes.float32
    assert sizes.int8_weights < 0.28 * sizes.float32


def test_sizes_are_those_of_files(tmp_path: Path) -> None:
    sizes = measure(STATE)
    for dtype in ("float32", "float16"):
        save_file(stored_as(STATE, dtype), tmp_path / dtype)
        assert getattr(sizes, dtype) == (tmp_path / dtype).stat().st_size
    assert measure(stored_as(STATE, "float16")) == sizes
    bytes_of = {"float32": 16_000, "float16": 8_000, "int8_weights": 4_000 + 4 * 4}
    for name, content in bytes_of.items():
        assert content < getattr(sizes, name) < content + 600  # header, bias, count
    assert sizes.megabytes()["megabytes_float32"] == sizes.float32 / 1e6


def test_only_matrices_are_narrowed() -> None:
    half = stored_as(STATE, "float16")
    assert half["matrix"].dtype == torch.float16
    assert torch.equal(half["bias"], STATE["bias"])
    assert torch.equal(half["count"], STATE["count"])
    torch.testing.assert_close(half["matrix"].float(), STATE["matrix"], atol=2e-3, rtol=1e-3)
    with pytest.raises(JudgeError, match="65504") as caught:
        stored_as({"far": torch.full((2, 2), 1e6)}, "float16")
    assert caught.value.where == "far"


def test_int8_is_within_half_a_step() -> None:
    quantised = int8_weights(STATE)
    assert quantised["matrix"].dtype == torch.int8
    scale = quantised["matrix.scale"]
    again = quantised["matrix"].float() * scale[:, None, None]
    assert ((again - STATE["matrix"]).abs() <= scale[:, None, None] / 2 + 1e-7).all()
    assert torch.equal(quantised["bias"], STATE["bias"])
    assert not int8_weights({"zero": torch.zeros(2, 3)})["zero"].any()


def test_too_large_a_file_is_told_with_its_largest_tensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(STATE, path)
    size = path.stat().st_size
    assert check_size(path, size / 1e6, load_file(path)) == size
    with pytest.raises(GateError) as caught:
        check_size(path, 0.01, load_file(path))
    assert caught.value.exit_code == 1
    text = str(caught.value)
    assert f"{size:,} bytes" in text
    assert "0.01 MB (10,000 bytes)" in text
    assert "matrix [4, 10, 100]: 16,000; bias [7]: 28" in text
