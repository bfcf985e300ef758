"""The layout of a timm model's features, determined by a dry run that computes nothing.

Shape letters: B pictures, H and W sides of the input or of a feature map, C channels of a token,
N tokens.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from beholder.errors import BackboneError
from beholder.features.config import BackboneConfig

# plain vision transformers have a stage per block: of more than MAX_STAGES, SPACED_STAGES evenly
# spaced ones are pooled
MAX_STAGES = 6
SPACED_STAGES = 4
# `pooling: early` takes maps of at least this part of the input's size
EARLY_REDUCTION = 16
# keeps the gradient of the deviation finite where a channel is constant
VARIANCE_FLOOR = 1e-6


class Layout(NamedTuple):
    """The layout of a timm model's features for one input size.

    kind: NCHW or NHWC maps, or NLC, a sequence that starts with `prefix` class tokens.
    stages: indices of the intermediate maps that are pooled; empty for the model's own pooling.
    blocks: whether the maps are those after the stem and every group of blocks, not timm's stages.
    """

    kind: Literal["NCHW", "NHWC", "NLC"]
    prefix: int
    grid: tuple[int, int]
    token_dim: int
    pooled_dim: int
    stages: tuple[int, ...]
    blocks: bool


def block_maps(trunk: Any, pixels_B3HW: Tensor, groups: int | None = None) -> list[Tensor]:
    """An EfficientNet's maps after the stem and after each of the first `groups` groups of blocks
    (default: all), of which timm's stages are a part."""
    maps = [trunk.bn1(trunk.conv_stem(pixels_B3HW))]
    recompute = trunk.grad_checkpointing and torch.is_grad_enabled()
    for group in trunk.blocks[:groups]:
        maps.append(
            checkpoint(group, maps[-1], use_reentrant=False) if recompute else group(maps[-1])
        )
    return maps


def stage_statistics(maps: list[Tensor]) -> Tensor:
    """Mean and deviation over height and width of every channel of every map, concatenated."""
    parts = []
    for map_BCHW in maps:
        # float32 also under autocast: squares of half-precision maps overflow
        variance_BC, mean_BC = torch.var_mean(map_BCHW.float(), dim=(2, 3), correction=0)
        parts += [mean_BC, (variance_BC + VARIANCE_FLOOR).sqrt()]
    return torch.cat(parts, dim=1)


class _DryRun(nn.Module):
    """Everything that the layout is determined from, as one module call."""

    def __init__(self, trunk: Any, *, between: bool, projected: bool) -> None:
        super().__init__()
        self.trunk: Any = trunk
        self.between = between
        self.projected = projected

    def forward(self, pixels_B3HW: Tensor) -> tuple[Any, Any, list[Tensor], list[Tensor]]:
        features = self.trunk.forward_features(pixels_B3HW)
        pooled = self.trunk.forward_head(features, pre_logits=not self.projected)
        _, maps = self.trunk.forward_intermediates(pixels_B3HW, output_fmt="NCHW")
        between = block_maps(self.trunk, pixels_B3HW) if self.between else []
        return features, pooled, maps, between


def find_layout(
    trunk: Any, size: tuple[int, int], config: BackboneConfig, *, projected: bool
) -> Layout:
    """Run the model on the meta device and see what comes out.

    Args:
        projected: whether the pooled vector is the output of the model's last layer, as a CLIP's
            is.

    Raises:
        BackboneError: the input size does not suit it, or its features are not a grid of tokens.
    """
    blocks = config.pooling == "early" and isinstance(trunk, EfficientNet)
    probe = _DryRun(trunk, between=blocks, projected=projected)
    on_meta = {
        name: tensor.to("meta")
        for name, tensor in [*probe.named_parameters(), *probe.named_buffers()]
    }
    was_training = trunk.training
    trunk.eval()
    try:
        pixels = torch.zeros(1, 3, *size, device="meta")
        features, pooled, maps, between = torch.func.functional_call(probe, on_meta, (pixels,))
    except (RuntimeError, AssertionError) as error:
        raise BackboneError(
            f"{config.name} can't see pictures of {size[0]}x{size[1]} pixels: {error}",
            where="backbone.size",
            fix="Leave the size out, or give a multiple of the model's patch size.",
        ) from error
    except AttributeError as error:
        raise _no_grid(config) from error
    finally:
        trunk.train(was_training)
    if not isinstance(features, Tensor) or pooled.ndim != 2:
        raise _no_grid(config)
    kind, prefix = _kind_of(features, trunk, maps[-1])
    sides = {"NHWC": features.shape[1:3], "NCHW": features.shape[2:], "NLC": maps[-1].shape[2:]}
    grid = (sides[kind][0], sides[kind][1])
    if kind == "NLC" and features.shape[1] - prefix != grid[0] * grid[1]:
        raise _no_grid(config)
    token_dim = features.shape[1] if kind == "NCHW" else features.shape[-1]
    if config.pooling == "last":
        return Layout(kind, prefix, grid, token_dim, pooled.shape[1], (), blocks)
    maps = between if blocks else maps
    stages = _early(maps, size) if config.pooling == "early" else _chosen_stages(len(maps))
    if not stages:
        raise BackboneError(
            f"{config.name} has no feature map of at least a {EARLY_REDUCTION}th of its "
            "input's size.",
            where="backbone.pooling",
            fix="Choose `stages` or `last`.",
        )
    pooled_dim = sum(2 * maps[index].shape[1] for index in stages)
    if config.pooling == "all":
        pooled_dim += pooled.shape[1]
    return Layout(kind, prefix, grid, token_dim, pooled_dim, stages, blocks)


def _kind_of(
    features: Tensor, trunk: Any, last_map_1CHW: Tensor
) -> tuple[Literal["NCHW", "NHWC", "NLC"], int]:
    if features.ndim == 4:
        # families with channels last declare it
        return ("NHWC" if getattr(trunk, "output_fmt", None) == "NHWC" else "NCHW"), 0
    patches = last_map_1CHW.shape[2] * last_map_1CHW.shape[3]
    return "NLC", max(0, features.shape[1] - patches)


def _early(maps: list[Tensor], size: tuple[int, int]) -> tuple[int, ...]:
    least = -(-size[0] // EARLY_REDUCTION)
    return tuple(index for index, map_1CHW in enumerate(maps) if map_1CHW.shape[2] >= least)


def _chosen_stages(count: int) -> tuple[int, ...]:
    if count <= MAX_STAGES:
        return tuple(range(count))
    return tuple(count * (part + 1) // SPACED_STAGES - 1 for part in range(SPACED_STAGES))


def _no_grid(config: BackboneConfig) -> BackboneError:
    return BackboneError(
        f"The features of {config.name} are not a single grid of tokens.",
        where="backbone.name",
        fix="Choose another family, e.g. ViT, Swin, ConvNeXt, NFNet or EfficientNet.",
    )
