"""CLIP vision towers: their names here, and the renaming of published weights to timm's.

The architecture is timm's; the pooled vector of a tower is its projected image embedding, as
CLIP compares it with text (without the normalisation). Weights are named as Hugging Face names
them (`vision_model.*`) or as OpenAI and open_clip do (`visual.*`); tensors of the text tower are
ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from beholder.data.sealed import read_json
from beholder.errors import BackboneError, MissingExtra

# Beholder's name, open_clip's in lower case -> (timm's architecture, size of the embedding)
VARIANTS = {
    "clip/vit-b-32": ("vit_base_patch32_clip_224", 512),
    "clip/vit-b-16": ("vit_base_patch16_clip_224", 512),
    "clip/vit-l-14": ("vit_large_patch14_clip_224", 768),
    "clip/vit-h-14": ("vit_huge_patch14_clip_224", 1024),
    "clip/vit-b-32-quickgelu": ("vit_base_patch32_clip_quickgelu_224", 512),
    "clip/vit-b-16-quickgelu": ("vit_base_patch16_clip_quickgelu_224", 512),
    "clip/vit-l-14-quickgelu": ("vit_large_patch14_clip_quickgelu_224", 768),
}
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

_FILES = (
    "model.safetensors", "open_clip_model.safetensors",
    "pytorch_model.bin", "open_clip_pytorch_model.bin",
)  # fmt: skip
_CONFIG, _OPEN_CONFIG = "config.json", "open_clip_config.json"
_FACE_OUTSIDE = {
    "embeddings.class_embedding": "cls_token",
    "embeddings.patch_embedding.weight": "patch_embed.proj.weight",
    "embeddings.position_embedding.weight": "pos_embed",
    "pre_layrnorm.weight": "norm_pre.weight",
    "pre_layrnorm.bias": "norm_pre.bias",
    "post_layernorm.weight": "norm.weight",
    "post_layernorm.bias": "norm.bias",
}
_FACE_INSIDE = {
    "layer_norm1": "norm1", "layer_norm2": "norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
    "self_attn.out_proj": "attn.proj",
}  # fmt: skip
_OPEN_OUTSIDE = {
    "class_embedding": "cls_token",
    "conv1.weight": "patch_embed.proj.weight",
    "positional_embedding": "pos_embed",
    "ln_pre.weight": "norm_pre.weight",
    "ln_pre.bias": "norm_pre.bias",
    "ln_post.weight": "norm.weight",
    "ln_post.bias": "norm.bias",
}
_OPEN_INSIDE = {
    "ln_1.": "norm1.", "ln_2.": "norm2.", "mlp.c_fc.": "mlp.fc1.", "mlp.c_proj.": "mlp.fc2.",
    "attn.out_proj.": "attn.proj.", "attn.in_proj_": "attn.qkv.",
}  # fmt: skip


def weights_file(weights: Path, name: str) -> Path:
    """The file of a tower's weights.

    Args:
        weights: a file; a folder as Hugging Face or open_clip write it; or `owner/name` on the
            Hugging Face hub, whose files are fetched unless they are in the cache.
        name: the backbone's, one of `VARIANTS`.

    Raises:
        BackboneError: the weights don't exist, can't be fetched, or have another activation.
    """
    if weights.is_file():
        return weights
    if not weights.is_dir():
        return _fetched(weights, name)
    path = next((weights / file for file in _FILES if (weights / file).is_file()), None)
    if path is None:
        raise BackboneError(
            "The folder holds no weights of a CLIP.",
            where=str(weights),
            fix=f"It should hold one of: {', '.join(_FILES)}.",
        )
    _check_activation(weights, name)
    return path


def _fetched(weights: Path, name: str) -> Path:
    repository = weights.as_posix()
    if weights.is_absolute() or repository.count("/") != 1:
        raise BackboneError("The backbone's weights do not exist.", where=repository)
    config = _downloaded(repository, (_CONFIG, _OPEN_CONFIG))
    file = _downloaded(repository, _FILES)
    if file is None:
        raise BackboneError(
            "The repository holds no weights of a CLIP.",
            where=repository,
            fix=f"It should hold one of: {', '.join(_FILES)}.",
        )
    if config is not None:
        _check_activation(config.parent, name)
    return file


def _downloaded(repository: str, files: Sequence[str]) -> Path | None:
    """The first of these files that a repository on the hub has; None if it has none of them."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise MissingExtra("Weights from the Hugging Face hub", "train") from error
    failure: OSError | None = None
    for file in files:
        try:
            return Path(hf_hub_download(repository, file))
        except LocalEntryNotFoundError as error:  # offline: another one may be in the cache
            failure = failure or error
        except EntryNotFoundError:
            continue
        except OSError as error:
            failure = error
            break
    if failure is None:
        return None
    raise BackboneError(
        f"The weights of {repository} can't be fetched: {str(failure).splitlines()[0]}",
        where="backbone.weights",
        fix="Check the name and the network, or give a local folder or file.",
    ) from failure


def _activation(folder: Path) -> str | None:
    """The activation of a folder's tower; None without a config.

    A Hugging Face config that does not name it means quick_gelu, as transformers reads it (copies
    of FashionCLIP's are like that); an open_clip config without `quick_gelu` means gelu.
    """
    if (folder / _CONFIG).is_file():
        config = _section(folder / _CONFIG, "vision_config")
        return str(config.get("hidden_act", "quick_gelu"))
    if (folder / _OPEN_CONFIG).is_file():
        config = _section(folder / _OPEN_CONFIG, "model_cfg")
        return "quick_gelu" if config.get("quick_gelu") else "gelu"
    return None


def _section(path: Path, name: str) -> dict[str, Any]:
    """A section of a config, or all of it where it has no such section.

    Raises:
        BackboneError: it is not a valid config.
    """
    try:
        config = read_json(path.read_bytes())
        return dict(config.get(name, config))
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise BackboneError(
            f"{path.name} can't be read as a config.",
            where=str(path),
            fix="Fetch it again, or give the file of weights instead of its folder.",
        ) from error


def _check_activation(folder: Path, name: str) -> None:
    """Check that a folder's tower has the activation that the name says."""
    activation = _activation(folder)
    quick = name.endswith("-quickgelu")
    if activation is not None and quick != (activation == "quick_gelu"):
        other = name.removesuffix("-quickgelu") if quick else f"{name}-quickgelu"
        raise BackboneError(
            f"The weights are of a tower with {activation}; {name} has another activation.",
            where=str(folder),
            fix=f"Use the backbone {other}.",
        )


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vision tower's tensors with timm's names.

    Raises:
        BackboneError: there is no vision tower, it has no projection, or a tensor is unknown.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if any(name.startswith("vision_model.") for name in state):
        renamed = _from_face(state)
    elif any(name.startswith("visual.") for name in state):
        renamed = _from_open(state)
    else:
        raise BackboneError(
            "The weights hold no vision tower of a CLIP.",
            fix="Tensors should be named `vision_model.*` or, as in open_clip, `visual.*`.",
        )
    if "head.weight" not in renamed:
        raise BackboneError("The vision tower comes without its projection.")
    width = renamed["cls_token"].numel()
    renamed["cls_token"] = renamed["cls_token"].reshape(1, 1, width)
    renamed["pos_embed"] = renamed["pos_embed"].reshape(1, -1, width)
    renamed["head.bias"] = torch.zeros(len(renamed["head.weight"]))
    return {name: tensor.float().contiguous() for name, tensor in renamed.items()}


def _from_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for full, tensor in state.items():
        if full == "visual_projection.weight":
            renamed["head.weight"] = tensor
        name = full.removeprefix("vision_model.")
        if name == full or name == "embeddings.position_ids":
            continue
        if name in _FACE_OUTSIDE:
            renamed[_FACE_OUTSIDE[name]] = tensor
            continue
        block, inner, kind = _split(full, name.removeprefix("encoder.layers."))
        if inner in _FACE_INSIDE:
            renamed[f"blocks.{block}.{_FACE_INSIDE[inner]}.{kind}"] = tensor
        elif inner in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
            parts.setdefault(f"blocks.{block}.attn.qkv.{kind}", {})[inner[10]] = tensor
        else:
            raise _unknown_tensor(full)
    for name, qkv in parts.items():
        renamed[name] = torch.cat([qkv[part] for part in "qkv"])
    return renamed


def _from_open(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for full, tensor in state.items():
        name = full.removeprefix("visual.")
        if name == full:
            continue
        if name == "proj":
            renamed["head.weight"] = tensor.t()
        elif name in _OPEN_OUTSIDE:
            renamed[_OPEN_OUTSIDE[name]] = tensor
        else:
            block, _, inner = name.removeprefix("transformer.resblocks.").partition(".")
            old = next((start for start in _OPEN_INSIDE if inner.startswith(start)), None)
            if old is None or not block.isdigit():
                raise _unknown_tensor(full)
            renamed[f"blocks.{block}.{_OPEN_INSIDE[old]}{inner.removeprefix(old)}"] = tensor
    return renamed


def _split(full: str, name: str) -> tuple[str, str, str]:
    """Block, layer and kind of `3.mlp.fc1.weight`."""
    block, _, rest = name.partition(".")
    inner, _, kind = rest.rpartition(".")
    if not block.isdigit():
        raise _unknown_tensor(full)
    return block, inner, kind


def _unknown_tensor(name: str) -> BackboneError:
    return BackboneError(
        f"The weights hold a tensor {name!r} that a CLIP vision transformer does not have.",
        fix="Use the weights of a ViT; CLIP models with a ResNet or another tower are not "
        "supported.",
    )


def pretrained_cfg(side: int) -> dict[str, Any]:
    """CLIP's preprocessing in timm's form."""
    return {
        "input_size": (3, side, side), "crop_pct": 1.0, "crop_mode": "center",
        "interpolation": "bicubic", "mean": MEAN, "std": STD,
    }  # fmt: skip
