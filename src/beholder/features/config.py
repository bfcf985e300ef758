"""The config of a backbone, as part of a recipe or a judge.

Only pydantic: a judge's config can be read without torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from beholder.data.transforms import Background, Interpolation, Resize

Option = bool | int | float | str | tuple[int, ...]
OWN_OPTIONS = ("num_classes", "pretrained", "img_size")
LARGEST_OPTION, MOST_BLOCKS = 65_536, 256
_COUNTS = ("depth", "depths", "layers", "num_blocks", "num_layers")  # of blocks
HOW_COMPUTED = ("gradient_checkpointing", "compile")


def _is_off(value: bool) -> bool:
    """Such a field is left out when a config is written, so that older hashes of configs hold."""
    return not value


class BackboneConfig(BaseModel):
    """A backbone by name, and its preprocessing. None means the backbone's own default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        description="name of the backbone: `efficientnet-lite0`, `-lite1` or `-lite2` (weights "
        "from the `demo` extra, no network), `timm/` and a name of timm, with or "
        "without a weights tag, or a CLIP vision tower: `clip/vit-b-32`, `-b-16`, "
        "`-l-14`, `-h-14`, OpenAI's with `-quickgelu`"
    )
    weights: Literal["pretrained", "random"] | Path = Field(
        "pretrained",
        description="weights: `pretrained` (published ones), `random` (drawn from `seed`), or a "
        "local file of tensors: safetensors, or a torch checkpoint, which is read "
        "without executing it; for a CLIP also a folder, or a name on the Hugging "
        "Face hub",
    )
    seed: int = Field(0, ge=0, description="seed of random weights; no effect on others")
    options: dict[str, Option] = Field(
        {},
        max_length=64,
        description="further arguments of the timm model, e.g. `drop_path_rate: 0.1` for training "
        "end to end, or widths and depths for your own weights",
    )
    size: int | None = Field(
        None, ge=32, le=2048, description="height and width of the input in pixels, 32 to 2048"
    )
    resize: Resize | None = Field(
        None,
        description="how a picture is brought to that size: squash, crop, pad, or native (no "
        "resizing)",
    )
    crop_fraction: float | None = Field(
        None, gt=0.0, le=1.0, description="share of the resized picture that `crop` keeps, (0, 1]"
    )
    interpolation: Interpolation | None = Field(
        None, description="resampling filter: bilinear, bicubic or lanczos, always antialiased"
    )
    background: Background = Field(
        "keep",
        description="what happens to the background: `grabcut` first paints everything black that "
        "is not the object in the box; needs the `background` extra",
    )
    pooling: Literal["last", "stages", "all", "early"] = Field(
        "last",
        description="the pooled vector: `last` is the model's own, before its classifier; "
        "`stages` is mean and deviation per channel of every stage's feature map; "
        "`all` is that and then `last`; `early` is the same of the maps down to a "
        "16th of the input's size only, which show distortions more than objects, and "
        "in EfficientNets also of those between timm's stages",
    )

    gradient_checkpointing: bool = Field(
        False,
        exclude_if=_is_off,
        description="whether to keep less of the forward pass for the backward pass and compute "
        "it again: a third more time, several times less memory; for training end to "
        "end; same results",
    )
    compile: bool = Field(
        False,
        exclude_if=_is_off,
        description="whether to run it through torch.compile: minutes at the start, then faster on "
        "accelerators; same features up to rounding",
    )

    def plain(self) -> BackboneConfig:
        """Only what determines the features, without options of how to compute them."""
        return self.model_copy(update=dict.fromkeys(HOW_COMPUTED, False))

    @model_validator(mode="after")
    def _checkpointed_or_compiled(self) -> BackboneConfig:
        if self.gradient_checkpointing and self.compile:
            raise ValueError(
                "choose gradient_checkpointing or compile: torch.compile itself decides what to "
                "compute again"
            )
        return self

    @field_validator("options")
    @classmethod
    def _no_reserved_options(cls, options: dict[str, Option]) -> dict[str, Option]:
        for name in OWN_OPTIONS:
            if name in options:
                raise ValueError(f"{name!r} is not an option: use `weights`, `size` and the heads")
        for name, option in options.items():
            most = MOST_BLOCKS if name in _COUNTS else LARGEST_OPTION
            numbers = option if isinstance(option, tuple) else (option,)
            if len(numbers) > MOST_BLOCKS:
                raise ValueError(f"{name} has over {MOST_BLOCKS} numbers")
            if any(isinstance(number, (int, float)) and abs(number) > most for number in numbers):
                raise ValueError(f"{name} is beyond {most}")
        return options
