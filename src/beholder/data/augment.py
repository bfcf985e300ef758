"""Random changes of a training picture, as a pure function of (seed, epoch, key).

Flipping and native cropping leave what blur, noise and compression look like as it is, so they
are right for scores and comments about quality. Resized crops, colour jitter, RandAugment and
erasing do not; use them for attributes. What a picture becomes depends on no worker, process,
order or clock.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from PIL import Image, ImageEnhance
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from beholder.data.randaugment import rand_augment
from beholder.data.transforms import Interpolation, clip_box, native_crop, resample

Share = Annotated[float, Field(ge=0.0, le=1.0)]
_TRIES = 10


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
        rand_strength: of these changes, from 0 to 1; torchvision's magnitude divided by 30.
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

        def draws(operation: str, count: int) -> list[float]:
            return uniform_draws(seed, epoch, key, operation, count)

        config = self.config
        if box is not None:
            if config.box_jitter:
                box = _moved_box(box, image.size, config.box_jitter, draws("box", 4))
            image = image.crop(clip_box(box, image.size))
        if config.crop == "native":
            assert config.crop_size is not None
            top, left = draws("crop", 2)
            image = native_crop(image, config.crop_size, (top, left))
        elif config.crop == "resized":
            image = _resized_crop(image, config, draws("crop", 4 * _TRIES))
        if draws("flip", 1)[0] < config.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = _jittered_colours(image, config, draws("colours", 8))
        image = rand_augment(image, config.rand_strength, draws("rand", 2 * config.rand_changes))
        chance, *places = draws("erase", 1 + 4 * _TRIES)
        return _erased(image, config, places) if chance < config.erase else image


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


def _patch(
    size: tuple[int, int],
    area: tuple[float, float],
    ratio: tuple[float, float],
    draws: Sequence[float],
) -> tuple[int, int, int, int] | None:
    """A random rectangle (left, top, right, bottom) inside (width, height); the proportions are
    uniform on a logarithmic scale. None if no try fits."""
    for index in range(_TRIES):
        area_draw, ratio_draw, top_draw, left_draw = draws[4 * index : 4 * index + 4]
        pixels = size[0] * size[1] * (area[0] + area_draw * (area[1] - area[0]))
        low, high = math.log(ratio[0]), math.log(ratio[1])
        shape = math.exp(low + ratio_draw * (high - low))
        width, height = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if 0 < width <= size[0] and 0 < height <= size[1]:
            left = int(left_draw * (size[0] - width + 1))
            top = int(top_draw * (size[1] - height + 1))
            return left, top, left + width, top + height
    return None


def _resized_crop(image: Image.Image, config: AugmentConfig, draws: Sequence[float]) -> Image.Image:
    assert config.crop_size is not None
    patch = _patch(image.size, config.crop_area, config.crop_ratio, draws)
    if patch is None:
        # too long or too tall a picture: its centre, in the nearest allowed proportions
        low, high = config.crop_ratio
        width = min(image.width, max(1, round(image.height * high)))
        height = min(image.height, max(1, round(image.width / low)))
        left, top = (image.width - width) // 2, (image.height - height) // 2
        patch = (left, top, left + width, top + height)
    return resample(image.crop(patch), config.crop_size, config.interpolation)


def _jittered_colours(
    image: Image.Image, config: AugmentConfig, draws: Sequence[float]
) -> Image.Image:
    enhancers = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    names = (*enhancers, "hue")
    # the operations do not commute, so their order is drawn as well
    for index in sorted(range(4), key=lambda place: draws[place]):
        name = names[index]
        strength = float(getattr(config, name))
        if strength == 0.0:
            continue
        change = strength * (2.0 * draws[4 + index] - 1.0)
        if name == "hue":
            image = _turned_hue(image, change)
        else:
            image = enhancers[name](image).enhance(1.0 + change)
    return image


def _turned_hue(image: Image.Image, turn: float) -> Image.Image:
    shift = round(turn * 256)
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point([(level + shift) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _erased(image: Image.Image, config: AugmentConfig, draws: Sequence[float]) -> Image.Image:
    patch = _patch(image.size, config.erase_area, config.erase_ratio, draws)
    if patch is None:
        return image
    mean = np.asarray(image).reshape(-1, 3).mean(axis=0)
    image = image.copy()
    image.paste((round(mean[0]), round(mean[1]), round(mean[2])), patch)
    return image
