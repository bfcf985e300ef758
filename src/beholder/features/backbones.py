"""Backbones: a picture becomes feature tokens and a pooled vector.

One interface over every timm family. What differs between them (channels first or last, class
tokens, the way from maps to vectors) is determined once, by a dry run on the meta device that
computes nothing, and hidden behind `Backbone.forward`.

Shape letters: B pictures, H and W sides of the input or of a feature map, C channels of a token
(`token_dim`), N tokens (grid height x grid width, row by row), P entries of the pooled vector
(`pooled_dim`).
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.models._manipulate import group_with_matcher
from torch import Tensor, nn

from beholder.data.transforms import EvalTransform, Interpolation, Resize
from beholder.errors import BackboneError
from beholder.features import acceleration, clip, efficientnet_lite, starter
from beholder.features.config import BackboneConfig
from beholder.features.layout import Layout, block_maps, find_layout, stage_statistics
from beholder.features.weights import fit_weights, hash_tensors, read_weights

__all__ = ["Backbone", "BackboneConfig", "Features", "create_backbone", "known_backbones"]

# to be raised when the same weights and transform give other features than before
FEATURES_VERSION = 1
# stands for the classifier's parameters, which no pattern of a family matches
_CLASSIFIER = "former classifier"

_RESIZE: dict[str, Resize] = {"center": "crop", "squash": "squash", "border": "pad"}
_INTERPOLATION: dict[str, Interpolation] = {"bilinear": "bilinear", "lanczos": "lanczos"}

# of architectures that this process has built: a dry run takes most of the time of a small one
_layouts: dict[str, Layout] = {}


class Features(NamedTuple):
    """What a backbone sees in pictures: tokens [B, N, C] and a pooled vector [B, P]."""

    tokens_BNC: Tensor
    pooled_BP: Tensor


class Backbone(nn.Module):
    """A vision model that owns its preprocessing.

    Attributes:
        config: what it was made from.
        transform: the way from an RGB picture to its input, float32 [3, H, W].
        grid: (height, width) of the token grid; N is their product.
        token_dim, pooled_dim: C and P.
    """

    def __init__(self, config: BackboneConfig, trunk: Any, transform: EvalTransform) -> None:
        super().__init__()
        self.config = config
        self.transform = transform
        self.trunk: Any = trunk  # a timm model; its methods differ by family
        self._compiled: Callable[..., Features] | None = None
        self._layout = _layout_of(trunk, transform.size, config)
        if config.gradient_checkpointing:
            acceleration.checkpoint_gradients(trunk, config.name)

    @property
    def grid(self) -> tuple[int, int]:
        return self._layout.grid

    @property
    def token_dim(self) -> int:
        return self._layout.token_dim

    @property
    def pooled_dim(self) -> int:
        return self._layout.pooled_dim

    def forward(self, pixels_B3HW: Tensor, *, tokens: bool = True) -> Features:
        """Tokens and pooled vector of transformed pictures, in one pass.

        Tokens are the last feature map, row by row, or the patch tokens of a transformer, without
        its class token. With `pooling: last` the pooled vector is what the model's classifier
        would see: for convolutional nets and Swin the mean of the tokens (after the model's own
        last layers), for most vision transformers the class token, for a CLIP tower its projected
        embedding. With `pooling: stages` it is
        [mean_1, deviation_1, mean_2, ...] over height and width of every stage's map, early first;
        with `early` the same of the maps of at least a 16th of the input's size. With `all` it is
        what `stages` gives, and then what `last` does.

        Args:
            tokens: False gives none, `[B, 0, C]`, and with `early` leaves out the layers above the
                last map that is pooled; the pooled vector is the same to the last bit.
        """
        if not self.config.compile:
            return self._see(pixels_B3HW, tokens=tokens)
        if self._compiled is None:
            self._compiled = acceleration.compiled(self._see, self.config.name)
        return self._compiled(pixels_B3HW, tokens=tokens)

    def __getstate__(self) -> dict[str, Any]:
        """Without the compiled function: a copy has weights of its own."""
        return {**self.__dict__, "_compiled": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Backbone:
        if self._layout.kind != "NCHW":
            return super()._apply(fn, recurse)
        return super()._apply(lambda tensor: acceleration.channels_last(fn(tensor)), recurse)

    def _see(self, pixels_B3HW: Tensor, *, tokens: bool) -> Features:
        if self._layout.kind == "NCHW":
            # convolutions are faster by half when channels lie next to each other
            pixels_B3HW = pixels_B3HW.contiguous(memory_format=torch.channels_last)
        stages = self._layout.stages
        if self.config.pooling == "early" and not tokens:
            pooled_BP = stage_statistics(self._early_maps(pixels_B3HW))
            return Features(pooled_BP.new_zeros(len(pooled_BP), 0, self.token_dim), pooled_BP)
        if self._layout.blocks:
            maps = block_maps(self.trunk, pixels_B3HW)
            features = self.trunk.bn2(self.trunk.conv_head(maps[-1]))
            pooled_BP = stage_statistics([maps[index] for index in stages])
        elif stages:
            features, maps = self.trunk.forward_intermediates(
                pixels_B3HW, indices=list(stages), output_fmt="NCHW"
            )
            pooled_BP = stage_statistics(maps)
            if self.config.pooling == "all":
                pooled_BP = torch.cat([pooled_BP, self._last(features)], dim=1)
        else:
            features = self.trunk.forward_features(pixels_B3HW)
            pooled_BP = self._last(features)
        tokens_BNC = self._tokens(features)
        return Features(tokens_BNC if tokens else tokens_BNC[:, :0], pooled_BP)

    def _early_maps(self, pixels_B3HW: Tensor) -> list[Tensor]:
        """The maps that `early` pools, computing nothing above them."""
        stages = self._layout.stages
        if self._layout.blocks:
            maps = block_maps(self.trunk, pixels_B3HW, max(stages))
            return [maps[index] for index in stages]
        return self.trunk.forward_intermediates(
            pixels_B3HW,
            indices=list(stages),
            output_fmt="NCHW",
            stop_early=True,
            intermediates_only=True,
        )

    def _last(self, features: Tensor) -> Tensor:
        """What the model's classifier would see [B, P]."""
        return self.trunk.forward_head(features, pre_logits=not _is_clip(self.config))

    def fingerprint(self) -> str:
        """SHA-256 over weights, transform and pooling, in hex: everything that determines features.

        Two backbones with the same fingerprint give the same features, wherever their weights are
        from.
        """
        identity = {
            "version": FEATURES_VERSION,
            "name": self.config.name,
            "pooling": self.config.pooling,
            "transform": self.transform.to_dict(),
        }
        if self.config.options:
            identity["options"] = self.config.options
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
        hash_tensors(self.trunk.state_dict().items(), digest)
        return digest.hexdigest()

    def depths(self) -> dict[str, int]:
        """For each parameter the number of layers between it and a head on this backbone.

        Layers are timm's own groups (stem, each block, last norm). The head replaces the model's
        classifier; a norm in the classifier's layer has depth 0.

        Raises:
            BackboneError: the family does not declare its layers.
        """
        if not hasattr(self.trunk, "group_matcher"):
            raise BackboneError(
                f"The layers of {self.config.name} are not known.",
                where="training.layer_decay",
                fix="Leave layer_decay out, or choose another backbone.",
            )
        parameters = [*self.trunk.named_parameters(), (_CLASSIFIER, self.trunk)]
        layers = group_with_matcher(
            iter(parameters), self.trunk.group_matcher(coarse=False), reverse=True
        )
        top = layers.pop(_CLASSIFIER)
        return {f"trunk.{name}": top - layer for name, layer in layers.items()}

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters, beside vectors, that the family's own recipe excludes from
        weight
        decay: attention biases, position embeddings, class tokens, depending on the family."""
        # timm gives names or patterns of names
        patterns = self.trunk.no_weight_decay() if hasattr(self.trunk, "no_weight_decay") else ()
        return {
            f"trunk.{name}"
            for name, _ in self.trunk.named_parameters()
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        }

    def _tokens(self, features: Tensor) -> Tensor:
        if self._layout.kind == "NCHW":
            return features.flatten(2).transpose(1, 2)
        if self._layout.kind == "NHWC":
            return features.flatten(1, 2)
        return features[:, self._layout.prefix :]


def create_backbone(config: BackboneConfig, *, load_weights: bool = True) -> Backbone:
    """Build a backbone, in evaluation mode.

    Args:
        load_weights: False only builds the architecture, for a judge that has its own weights; no
            file is read and no network used.

    Raises:
        BackboneError: the name is unknown (the error lists the nearest known ones), the size does
            not suit the architecture, or the weights are missing or of another shape.
        MissingExtra: the weights are in a package that is not installed.
    """
    trunk, resize = _create_trunk(config, load_weights)
    if load_weights and isinstance(config.weights, Path) and _is_clip(config):
        file = clip.weights_file(config.weights, config.name)
        fit_weights(trunk, clip.rename(read_weights(file)), str(file))
    elif load_weights and isinstance(config.weights, Path):
        fit_weights(trunk, read_weights(config.weights), str(config.weights))
    elif load_weights and config.weights == "pretrained" and _is_offline(config):
        published = efficientnet_lite.load_weights(config.name, [len(s) for s in trunk.blocks])
        fit_weights(trunk, published, config.name)
    elif load_weights and config.weights == "pretrained" and config.name == starter.NAME:
        fit_weights(trunk, read_weights(starter.WEIGHTS), config.name)
    return Backbone(config, trunk, _create_transform(config, trunk, resize)).eval()


def outline_backbone(config: BackboneConfig) -> Backbone:
    """The architecture on the meta device: shapes without memory, for checks.

    Raises:
        BackboneError: as `create_backbone`, for the name and the size.
    """
    # the device as a mode slows down every operation, and the layout is found on meta anyway
    with torch.device("meta"):
        trunk, resize = _create_trunk(config, load_weights=False)
    return Backbone(config, trunk, _create_transform(config, trunk, resize)).eval()


def known_backbones() -> list[str]:
    """The names that `create_backbone` accepts, those with offline weights first."""
    return [
        starter.NAME,
        *efficientnet_lite.VARIANTS,
        *clip.VARIANTS,
        *(f"timm/{name}" for name in timm.list_models()),
    ]


def _layout_of(trunk: Any, size: tuple[int, int], config: BackboneConfig) -> Layout:
    """What `find_layout` finds, once for every architecture and size."""
    architecture = config.plain().model_dump_json(include={"name", "options", "size", "pooling"})
    key = f"{architecture} {size}"
    if key not in _layouts:
        _layouts[key] = find_layout(trunk, size, config, projected=_is_clip(config))
    return _layouts[key]


def _is_offline(config: BackboneConfig) -> bool:
    return config.name in efficientnet_lite.VARIANTS


def _is_clip(config: BackboneConfig) -> bool:
    return config.name in clip.VARIANTS


def _create_trunk(config: BackboneConfig, load_weights: bool) -> tuple[Any, Resize | None]:
    """The timm model without its classifier, and the resize rule if it depends on the name."""
    if _is_offline(config):
        architecture, _ = efficientnet_lite.VARIANTS[config.name]
        return _build(architecture, config, pretrained=False), "crop"
    if config.name == starter.NAME:
        return starter.cut(_build(starter.ARCHITECTURE, config, pretrained=False)), "native"
    if _is_clip(config):
        if load_weights and config.weights == "pretrained":
            raise BackboneError(
                f"{config.name} is an architecture that several CLIP models share.",
                where="backbone.weights",
                fix="Name the weights: a folder, a file, or e.g. `patrickjohncyh/fashion-clip`.",
            )
        architecture, width = clip.VARIANTS[config.name]
        trunk = _build(architecture, config, pretrained=False, num_classes=width)
        trunk.pretrained_cfg = clip.pretrained_cfg(trunk.patch_embed.img_size[0])
        return trunk, "crop"
    family, _, name = config.name.partition("/")
    if family != "timm" or not timm.is_model(name):
        raise _unknown(config.name)
    pretrained = load_weights and config.weights == "pretrained"
    return _build(name, config, pretrained=pretrained), None


def _build(name: str, config: BackboneConfig, *, pretrained: bool, num_classes: int = 0) -> Any:
    options: dict[str, Any] = {"num_classes": num_classes, **config.options}
    defaults = timm.get_pretrained_cfg(name)
    size = (config.size, config.size)
    fixed = defaults is not None and defaults.fixed_input_size
    if config.size and defaults is not None and fixed and size != defaults.input_size[1:]:
        options["img_size"] = config.size
    try:
        # random weights are a function of the seed, and leave the caller's random state alone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return timm.create_model(name, pretrained=pretrained, **options)
    except TypeError as error:
        refused = next((option for option in config.options if f"'{option}'" in str(error)), None)
        if refused:
            raise BackboneError(
                f"{config.name} has no option {refused!r}.",
                where=f"backbone.options.{refused}",
                fix="Leave it out; timm's documentation of the model lists its arguments.",
            ) from error
        if "img_size" not in str(error):
            raise
        raise BackboneError(
            f"The input size of {config.name} can't be changed to {config.size}.",
            where="backbone.size",
            fix="Leave the size out.",
        ) from error
    except RuntimeError as error:
        if "Invalid pretrained tag" in str(error):
            raise _unknown(config.name) from error
        if "No pretrained weights exist" in str(error):
            raise BackboneError(
                f"There are no published weights of {config.name}.",
                where="backbone.weights",
                fix="Choose `random`, a local file, or another backbone.",
            ) from error
        raise
    except AssertionError as error:
        raise BackboneError(
            f"{config.name} can't be built for pictures of {config.size} pixels: {error}",
            where="backbone.size",
            fix="Leave the size out, or give a multiple of the patch and window size.",
        ) from error
    except OSError as error:
        raise BackboneError(
            f"The published weights of {config.name} can't be fetched: "
            f"{str(error).splitlines()[0]}",
            where="backbone.weights",
            fix="Check the network, give a local file as `weights`, or use efficientnet-lite0.",
        ) from error


def _unknown(name: str) -> BackboneError:
    known = [*known_backbones(), *(f"timm/{model}" for model in timm.list_pretrained())]
    full_name = name if "/" in name or name.startswith("efficientnet-lite") else f"timm/{name}"
    near = difflib.get_close_matches(full_name, known, n=3, cutoff=0.5)
    fix = (
        f"Did you mean {', '.join(near)}?" if near else "Names: `starter`, `efficientnet-lite0|1|2`"
    )
    return BackboneError(
        f"There is no backbone {name!r}.",
        where="backbone.name",
        fix=fix if near else f"{fix} or `timm/` and a name from timm.list_models().",
    )


def _create_transform(config: BackboneConfig, trunk: Any, resize: Resize | None) -> EvalTransform:
    """The transform that the weights were trained with, unless the config says otherwise."""
    defaults = trunk.pretrained_cfg
    if config.size:
        size = (config.size, config.size)
    elif _is_offline(config):
        size = (efficientnet_lite.VARIANTS[config.name][1],) * 2
    elif config.name == starter.NAME:
        size = (starter.SIDE, starter.SIDE)
    else:
        size = tuple(defaults["input_size"][1:])
    return EvalTransform(
        size=size,
        resize=config.resize or resize or _RESIZE.get(defaults.get("crop_mode", ""), "crop"),
        crop_fraction=config.crop_fraction or min(1.0, defaults.get("crop_pct") or 1.0),
        interpolation=config.interpolation
        or _INTERPOLATION.get(defaults.get("interpolation", ""), "bicubic"),
        mean=defaults["mean"],
        std=defaults["std"],
        background=config.background,
        reduced_decoding=True,
    )
