"""Random changes of a training picture, as a pure function of (seed, epoch, key).

torchvision makes them. Its transforms draw from torch's global generator, so each gets that
generator in a state of its own, which is undone afterwards: what a picture becomes depends on no
worker, process, order or clock, and switching one change on does not change what another draws.

Flipping and native cropping leave what blur, noise and compression look like as it is, so they
are right for scores and comments about quality. Resized crops, colour jitter, RandAugment and
erasing do not; use them for attributes.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from beholder.data.transforms import Interpolation, clip_box, native_crop

DRAWING = 2  # raised when equal arguments give other pixels than before
_STRENGTHS = 1001  # steps of RandAugment's strength
_GLOBAL_CHANCE = threading.RLock()

Share = Annotated[float, Field(ge=0.0, le=1.0)]


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"the first number must not be above the second: {list(pair)}")
    return pair


AreaRange = Annotated[
    tuple[Annotated[float, Field(gt=0.0, le=1.0)], Annotated[float, Field(gt=0.0, le=1.0)]],
    AfterValidator(_ordered),
]
RatioRange = Annotated[
    tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]],
    AfterValidator(_ordered),
]
Side = Annotated[int, Field(ge=1)]


class AugmentConfig(BaseModel):
    """What may be changed, and how much. By default pictures are only flipped.

    Fields:
        flip: probability of mirroring left and right.
        crop: `none`; `native`: a part of crop_size at a random place, not resampled; `resized`: a
            part of random area and proportions, resized to crop_size.
        crop_size: (height, width) in pixels; needed by both kinds of crop.
        crop_area: range of the share of the picture's area that a resized crop covers.
        crop_ratio: range of width / height of a resized crop.
        interpolation: of resized crops.
        brightness, contrast, saturation: x draws a factor from [1 - x, 1 + x].
        hue: x draws a turn of the colour wheel from [-x, x], in whole turns.
        erase: probability of painting a rectangle with the picture's mean colour.
        erase_area: range of the share of the area that is painted.
        erase_ratio: range of width / height of what is painted.
        box_jitter: each edge of a box moves by up to this share of the box's side.
        rand_changes: how many changes RandAugment makes, after those above and before erasing.
        rand_strength: of these changes, from 0 to 1, the strongest that RandAugment knows.
        mixup: pictures of a batch are blended in pairs, with shares from Beta(mixup, mixup), and
            their labels with them; 0: not. For attributes alone.
        cutmix: likewise a part of a picture is pasted into another; 0: not. With both, either.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    flip: Share = 0.5
    crop: Literal["none", "native", "resized"] = "none"
    crop_size: tuple[Side, Side] | None = None
    crop_area: AreaRange = (0.35, 1.0)
    crop_ratio: RatioRange = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bicubic"
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    erase: Share = 0.0
    erase_area: AreaRange = (0.02, 0.33)
    erase_ratio: RatioRange = (0.3, 3.3)
    box_jitter: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    rand_changes: Annotated[int, Field(ge=0, le=14)] = 0
    rand_strength: Share = 0.3
    mixup: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    cutmix: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0

    @model_validator(mode="after")
    def _crop_has_size(self) -> AugmentConfig:
        if self.crop != "none" and self.crop_size is None:
            raise ValueError(f"crop: {self.crop} needs crop_size, as [height, width] in pixels")
        return self

    @property
    def preserves_quality(self) -> bool:
        """Whether a picture's quality, as people would rate it, survives every change."""
        colours = self.brightness + self.contrast + self.saturation + self.hue
        pixels = self.erase + self.rand_changes + self.mixup + self.cutmix
        return self.crop != "resized" and colours == 0.0 and pixels == 0.0

    @property
    def mixes(self) -> bool:
        """Whether pictures of a batch are mixed with each other, see `beholder.data.mixing`."""
        return self.mixup > 0.0 or self.cutmix > 0.0


class Augmentation:
    """Applies an `AugmentConfig` to one picture: box, crop, flip, colours, RandAugment, erasing, in
    this order."""

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config

    def __call__(
        self,
        image: Image.Image,
        *,
        seed: int,
        epoch: int,
        key: str,
        box: Sequence[float] | None = None,
    ) -> Image.Image:
        """The changed picture, RGB; equal arguments give equal pixels, in any process.

        Args:
            image: RGB, as `read_image` returns it.
            seed, epoch, key: what the changes are drawn from; `key` is the image key.
            box: (xmin, ymin, xmax, ymax) in pixels. The result is then cropped to it, so the
                transform that follows is called without a box.

        Raises:
            PictureError: `box`, if nothing of the box lies inside the picture.
        """
        config = self.config
        if box is not None:
            if config.box_jitter:
                draws = uniform_draws(seed, epoch, key, "box", 4)
                box = _moved_box(box, image.size, config.box_jitter, draws)
            image = image.crop(clip_box(box, image.size))
        if config.crop == "native":
            assert config.crop_size is not None
            top, left = uniform_draws(seed, epoch, key, "crop", 2)
            image = native_crop(image, config.crop_size, (top, left))
        for name, change in self._changes.items():
            with global_chance(seed, epoch, key, name):
                image = change(image)
        return image

    @cached_property
    def _changes(self) -> dict[str, Callable[[Image.Image], Image.Image]]:
        """torchvision's transforms that are switched on, by name, in order."""
        from torchvision.transforms import v2

        config = self.config
        colours = (config.brightness, config.contrast, config.saturation, config.hue)
        changes: dict[str, Callable[[Image.Image], Image.Image]] = {}
        if config.crop == "resized":
            changes["crop"] = v2.RandomResizedCrop(
                config.crop_size,
                config.crop_area,
                config.crop_ratio,
                v2.InterpolationMode(config.interpolation),
            )
        if config.flip:
            changes["flip"] = v2.RandomHorizontalFlip(config.flip)
        if any(colours):
            changes["colours"] = v2.ColorJitter(*colours)
        if config.rand_changes:
            changes["rand"] = v2.RandAugment(
                config.rand_changes,
                round(config.rand_strength * (_STRENGTHS - 1)),
                _STRENGTHS,
                v2.InterpolationMode.BILINEAR,
                fill=0,
            )
        if config.erase:
            changes["erase"] = self._erased
        return changes

    def _erased(self, image: Image.Image) -> Image.Image:
        from torchvision.transforms.v2 import RandomErasing
        from torchvision.transforms.v2 import functional as F

        config = self.config
        mean = np.asarray(image).reshape(-1, 3).mean(axis=0).round().tolist()
        erasing = RandomErasing(config.erase, config.erase_area, config.erase_ratio, mean)
        return F.to_pil_image(erasing(F.pil_to_tensor(image)))


@contextmanager
def global_chance(seed: int, epoch: int, key: str, operation: str) -> Iterator[None]:
    """torch's and numpy's global generators depend on the arguments only while inside, and are as
    they were afterwards. One thread at a time."""
    import torch

    chance = generator_of(seed, epoch, key, operation)
    with _GLOBAL_CHANCE, torch.random.fork_rng(devices=[]):
        before = np.random.get_state()  # noqa: NPY002
        # the processor's alone: `torch.manual_seed` would start accelerators
        torch.default_generator.manual_seed(int(chance.integers(2**63)))
        np.random.seed(int(chance.integers(2**32)))  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002


def uniform_draws(seed: int, epoch: int, key: str, operation: str, count: int) -> list[float]:
    """`count` numbers in [0, 1) that depend on the arguments only.

    Every operation has its own stream: switching one on does not change what another draws.
    """
    return [float(value) for value in generator_of(seed, epoch, key, operation).random(count)]


def generator_of(seed: int, epoch: int, key: str, operation: str) -> np.random.Generator:
    """A stream of chance that depends on the arguments only."""
    text = json.dumps([seed, epoch, key, operation])
    digest = hashlib.sha256(text.encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def _moved_box(
    box: Sequence[float], size: tuple[int, int], share: float, draws: Sequence[float]
) -> Sequence[float]:
    """Each edge moved by up to `share` of its side; the given box if nothing would be left."""
    left, top, right, bottom = clip_box(box, size)
    width, height = right - left, bottom - top
    steps = [share * (2.0 * draw - 1.0) for draw in draws]
    moved = (
        max(0.0, left + steps[0] * width),
        max(0.0, top + steps[1] * height),
        min(float(size[0]), right + steps[2] * width),
        min(float(size[1]), bottom + steps[3] * height),
    )
    return moved if moved[2] - moved[0] >= 1.0 and moved[3] - moved[1] >= 1.0 else box
