"""Gradient checkpointing, torch.compile and channels last change time and memory, not results."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from pydantic import ValidationError
from torch import Tensor

from beholder.errors import BackboneError
from beholder.features import acceleration
from beholder.features.backbones import Backbone, create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig

FAMILIES = [
    ("timm/test_efficientnet", "last"),
    ("timm/test_efficientnet", "stages"),
    ("timm/test_efficientnet", "early"),
    ("timm/test_convnext", "last"),
    ("timm/test_vit", "stages"),
]


def build(name: str, pooling: Any, **options: Any) -> Backbone:
    return create_backbone(
        BackboneConfig(name=name, weights="random", size=64, pooling=pooling, **options)
    )


def step(backbone: Backbone, pixels_B3HW: Tensor) -> dict[str, Tensor]:
    """Gradients of all parameters, and the buffers, after a training step's two passes."""
    backbone.train()
    seen = backbone(pixels_B3HW)
    (seen.tokens_BNC.square().mean() + seen.pooled_BP.square().mean()).backward()
    gradients = {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
    return gradients | dict(backbone.named_buffers())


@pytest.mark.parametrize(("name", "pooling"), FAMILIES)
def test_checkpointing_gives_the_same_gradients_and_statistics(name: str, pooling: str) -> None:
    pixels = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    plain, frugal = (build(name, pooling, gradient_checkpointing=on) for on in (False, True))
    wanted = step(plain, pixels)
    got = step(frugal, pixels)
    assert got.keys() == wanted.keys()
    for key, tensor in wanted.items():
        torch.testing.assert_close(got[key], tensor, rtol=1e-5, atol=1e-6, msg=key)
    assert frugal.state_dict().keys() == plain.state_dict().keys()


def test_checkpointing_keeps_less() -> None:
    kept = []
    for on in (False, True):
        backbone = build("timm/test_vit", "last", gradient_checkpointing=on).train()
        sizes: list[int] = []

        def note(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            backbone(torch.randn(4, 3, 64, 64))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_a_family_without_checkpointing_is_named() -> None:
    with pytest.raises(BackboneError, match="pit_ti_224 has no gradient checkpointing"):
        acceleration.checkpoint_gradients(timm.create_model("pit_ti_224"), "timm/pit_ti_224")


@pytest.mark.slow
def test_compiled_features_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "COMPILER", "aot_eager")
    pixels = torch.randn(2, 3, 64, 64)
    plain, fast = (build("timm/test_efficientnet", "stages", compile=on) for on in (False, True))
    assert fast.state_dict().keys() == plain.state_dict().keys()
    assert fast.fingerprint() == plain.fingerprint()
    with torch.no_grad():
        for tokens in (True, False):
            wanted, got = (backbone(pixels, tokens=tokens) for backbone in (plain, fast))
            torch.testing.assert_close(got.pooled_BP, wanted.pooled_BP)
            torch.testing.assert_close(got.tokens_BNC, wanted.tokens_BNC)
        other = copy.deepcopy(fast)
        for parameter in other.parameters():
            parameter.zero_()
        assert not torch.equal(other(pixels).pooled_BP, fast(pixels).pooled_BP)
    got = step(fast, pixels)
    for key, tensor in step(plain, pixels).items():
        torch.testing.assert_close(got[key], tensor, rtol=1e-4, atol=1e-5)


def test_what_can_t_be_compiled_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(acceleration, "COMPILER", broken)
    backbone = build("timm/test_vit", "last", compile=True)
    with pytest.raises(BackboneError, match=r"can't be compiled here.*no C\+\+ compiler"):
        backbone(torch.randn(1, 3, 64, 64))


def test_how_it_is_computed_is_no_part_of_what_it_is() -> None:
    config = BackboneConfig(name="timm/test_vit", gradient_checkpointing=True)
    assert config.plain() == BackboneConfig(name="timm/test_vit")
    assert "compile" not in config.model_dump()
    assert config.model_dump()["gradient_checkpointing"] is True
    judge = JudgeConfig(backbone=config, pooled_dim=1, token_dim=1)
    assert judge.backbone == config.plain()
    with pytest.raises(ValidationError, match="choose"):
        BackboneConfig(name="timm/test_vit", gradient_checkpointing=True, compile=True)


def test_kernels_of_an_accelerator_have_their_channels_last() -> None:
    class OnAccelerator(torch.Tensor):
        device = torch.device("cuda")  # type: ignore[assignment]

    kernel = torch.randn(8, 4, 3, 3)
    moved = acceleration.channels_last(kernel.as_subclass(OnAccelerator))
    assert moved.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved.as_subclass(torch.Tensor), kernel)
    assert acceleration.channels_last(kernel) is kernel
    matrix = torch.randn(8, 4).as_subclass(OnAccelerator)
    assert acceleration.channels_last(matrix) is matrix
