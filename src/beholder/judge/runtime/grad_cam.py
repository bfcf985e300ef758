"""Grad-CAM: which places of a picture speak for an opinion.

Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017: relu(sum over channels of mean gradient x activation), of the deepest map
that the opinion depends on at every place.

Which maps those are differs by family:

- ViT and CLIP towers: after the last norm, and before the attention of each block. Where a class
  token is pooled, the attention of the last block is the last to read the patches.
- EfficientNet: after the last convolution, and after each group of blocks.
- Swin, TinyViT, ConvNeXt, ResNet and others: after each of timm's stages.

An opinion from early features (`pooling: early`, `inputs`) thereby gets the deepest map it reads.

Shape suffixes: B pictures (1), L tokens, C channels, h, w sides of a map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from beholder.errors import JudgeError
from beholder.features.backbones import Backbone
from beholder.judge.model import JudgeModel


def heat_map(
    model: JudgeModel, pixels_13HW: Tensor, opinion: str, index: int | None
) -> NDArray[np.float32]:
    """Where one prepared picture speaks for an opinion [h, w], at least 0, not scaled.

    Args:
        model: a judge's network with its backbone, in evaluation mode.
        opinion: an attribute's name, or `score`.
        index: which class of the attribute; None for the score.

    Raises:
        JudgeError: nothing of the backbone's maps is known, or the opinion depends on none.
    """
    backbone = model.backbone
    assert backbone is not None, "a judge without a backbone can't see"
    maps = map_modules(backbone.trunk)
    if not maps:
        raise _unexplained(backbone)
    # parameters may be frozen: that the pixels want a gradient is enough
    pixels = pixels_13HW.detach().clone().requires_grad_()
    with torch.enable_grad(), _outputs_of(maps) as outputs:
        pooled_1P = model.features({"pixels": pixels}, tokens=False).pooled_BP
        if index is None:
            target = model.heads["score"](pooled_1P)[0]
        else:
            target = model.heads["attributes"](pooled_1P)[opinion][0, index]
        seen = [outputs[module] for module in maps if module in outputs]
        gradients = torch.autograd.grad(target, seen, allow_unused=True)
    for output, gradient in zip(seen, gradients, strict=True):
        if gradient is None:
            continue
        gradient_Chw = as_map(gradient, backbone)
        if gradient_Chw.any():
            weights_C = gradient_Chw.mean(dim=(1, 2))
            heat_hw = torch.einsum("c,chw->hw", weights_C, as_map(output.detach(), backbone))
            return heat_hw.clamp_min(0).float().cpu().numpy()
    raise _unexplained(backbone)


def map_modules(trunk: Any) -> list[nn.Module]:
    """The modules whose outputs are maps of the picture, deepest first; empty: none is known."""
    blocks = getattr(trunk, "blocks", None)
    if blocks is not None and all(hasattr(block, "norm1") for block in blocks):
        return [trunk.norm, *(block.norm1 for block in reversed(blocks))]
    if hasattr(trunk, "conv_head") and hasattr(trunk, "bn2"):  # EfficientNet
        return [trunk.bn2, *reversed(trunk.blocks), trunk.bn1]
    info = getattr(trunk, "feature_info", None)
    if info is None:
        return []
    stages = info if isinstance(info, list) else list(info)
    return [trunk.get_submodule(stage["module"]) for stage in reversed(stages)]


def as_map(output_B: Tensor, backbone: Backbone) -> Tensor:
    """A module's output for one picture as [C, h, w], without class and register tokens."""
    if output_B.ndim == 3:
        height, width = backbone.grid
        prefix = output_B.shape[1] - height * width
        patches_LC = output_B[0, prefix:]
        return patches_LC.t().reshape(-1, height, width)
    if getattr(backbone.trunk, "output_fmt", None) == "NHWC":
        return output_B[0].permute(2, 0, 1)
    return output_B[0]


@contextmanager
def _outputs_of(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """What the modules give while they run, where it has a gradient."""
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            outputs[module] = output

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _unexplained(backbone: Backbone) -> JudgeError:
    return JudgeError(
        f"What a judge over {backbone.config.name} says can't be explained: no map of the picture "
        "is known that it depends on.",
        where=backbone.config.name,
        fix="ViT, Swin, TinyViT, EfficientNet, ConvNeXt, ResNet and CLIP towers can be explained.",
    )
