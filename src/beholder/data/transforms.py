"""A picture becomes the array that a backbone was trained to see, always in the same way.

Only numpy and Pillow: training, evaluation, an exported file and the server get byte-identical
arrays for the same picture.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

import numpy as np
from PIL import Image

from beholder.data.images import Source, read_image
from beholder.errors import PictureError

Resize = Literal["squash", "crop", "pad", "native"]
Interpolation = Literal["bilinear", "bicubic", "lanczos"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class EvalTransform:
    """The deterministic way from an RGB picture to a normalised array.

    Args:
        size: (height, width) of the result in pixels.
        resize: how the picture gets that size:
            `squash`: resized to it, whatever its proportions;
            `crop`: the shorter side resized to size / crop_fraction, then the centre cropped;
            `pad`: put in the middle of a black square, then resized, so proportions stay;
            `native`: the centre cropped without any resampling, which would change what noise,
            blur and compression look like. Smaller pictures are continued by reflection.
        crop_fraction: share of the resized picture that `crop` keeps, in (0, 1].
        interpolation: how pixels are resampled; always with Pillow's antialiasing.
        mean, std: per channel, of pixels in 0..1; the result is (pixel - mean) / std.
        reduced_decoding: let a JPEG much larger than `size` be decoded at a fraction of its size
            (see `read`). Ignored by `native`.
    """

    size: tuple[int, int] = (224, 224)
    resize: Resize = "squash"
    crop_fraction: float = 0.875
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    reduced_decoding: bool = False

    def __post_init__(self) -> None:
        # JSON knows lists only; a frozen and hashable value needs tuples
        for name in ("size", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size must be (height, width) of at least 1 pixel, not {self.size}")
        if self.resize not in get_args(Resize):
            raise ValueError(f"resize must be one of {get_args(Resize)}, not {self.resize!r}")
        if self.interpolation not in _RESAMPLING:
            raise ValueError(
                f"interpolation must be one of {tuple(_RESAMPLING)}, not {self.interpolation!r}"
            )
        if not 0.0 < self.crop_fraction <= 1.0:
            raise ValueError(f"crop_fraction must be in (0, 1], not {self.crop_fraction}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0.0:
            raise ValueError("mean and std are three numbers each, std above 0")

    def __call__(self, image: Image.Image, box: Sequence[float] | None = None) -> np.ndarray:
        """The array of an RGB picture: float32 [3, height, width].

        Args:
            image: as `read_image` returns it, decoded in full if there is a box.
            box: (xmin, ymin, xmax, ymax) in pixels, cropped first; clipped to the picture.

        Raises:
            PictureError: `box`, if nothing of the box lies inside the picture.
        """
        if image.mode != "RGB":
            image = read_image(image)
        if box is not None:
            image = image.crop(clip_box(box, image.size))
        return self._normalised(np.asarray(self._resized(image)))

    def read(self, source: Source, box: Sequence[float] | None = None) -> np.ndarray:
        """`read_image` and this transform in one, decoding no more than is needed."""
        return self(read_image(source, at_least=None if box else self.at_least), box)

    @property
    def at_least(self) -> int | None:
        """What `read_image` may be told as `at_least`; None if pixels must be decoded in full."""
        if not self.reduced_decoding or self.resize == "native":
            return None
        side = max(self.size)
        return math.ceil(side / self.crop_fraction) if self.resize == "crop" else side

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        plain = asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in plain.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> EvalTransform:
        """The transform that `to_dict` described.

        Raises:
            ValueError: unknown name, or value out of range.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown fields of a transform: {unknown}; known: {sorted(known)}")
        return cls(**values)  # type: ignore[arg-type]

    def fingerprint(self) -> str:
        """SHA-256 of all fields, in hex: equal for transforms that give equal arrays."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.resize == "native":
            return native_crop(image, self.size)
        if self.resize == "pad":
            image = pad_to_square(image)
        if self.resize != "crop":
            return resample(image, self.size, self.interpolation)
        return self._centre_of_resized(image)

    def _centre_of_resized(self, image: Image.Image) -> Image.Image:
        """Shorter side to size / crop_fraction, then the centre, with timm's rounding."""
        height, width = self.size
        target_height = math.floor(height / self.crop_fraction)
        target_width = math.floor(width / self.crop_fraction)
        if target_height == target_width:
            # torchvision.Resize(int) cuts the longer side to whole pixels
            shorter, longer = sorted(image.size)
            long_side = int(target_height * longer / shorter)
            sides = (target_height, long_side)
            resized = sides if image.width <= image.height else sides[::-1]
        else:
            ratio = max(target_width / image.width, target_height / image.height)
            resized = (round(image.width * ratio), round(image.height * ratio))
        image = resample(image, resized[::-1], self.interpolation)
        left = round((image.width - width) / 2.0)
        top = round((image.height - height) / 2.0)
        return image.crop((left, top, left + width, top + height))

    def _normalised(self, pixels_HWC: np.ndarray) -> np.ndarray:
        scaled = pixels_HWC.astype(np.float32) / np.float32(255.0)
        scaled -= np.asarray(self.mean, np.float32)
        scaled /= np.asarray(self.std, np.float32)
        return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def resample(
    image: Image.Image, size: tuple[int, int], interpolation: Interpolation
) -> Image.Image:
    """The picture resized to `size` (height, width) with antialiasing."""
    return image.resize(size[::-1], _RESAMPLING[interpolation])


def clip_box(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A pixel box as whole pixels inside a picture of `size` (width, height).

    Every pixel that the box touches belongs to it.

    Raises:
        PictureError: `box`, if it is not four finite numbers or nothing of it is inside.
    """
    numbers = [float(value) for value in box]
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise PictureError(f"A box is four finite numbers, not {list(box)}.", code="box")
    left, top = max(0, math.floor(numbers[0])), max(0, math.floor(numbers[1]))
    right = min(size[0], math.ceil(numbers[2]))
    bottom = min(size[1], math.ceil(numbers[3]))
    if right <= left or bottom <= top:
        raise PictureError(
            f"Nothing of the box {list(box)} lies inside the picture ({size[0]}x{size[1]}).",
            code="box",
            fix="Boxes are xmin, ymin, xmax, ymax in pixels of the upright picture.",
        )
    return left, top, right, bottom


def pad_to_square(image: Image.Image) -> Image.Image:
    """The picture in the middle of a black square of its longer side."""
    side = max(image.size)
    square = Image.new("RGB", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def native_crop(
    image: Image.Image, size: tuple[int, int], place: tuple[float, float] = (0.5, 0.5)
) -> Image.Image:
    """A part of `size` (height, width) with the stored pixels, never resampled.

    Sides that are too short are continued by reflection.

    Args:
        place: where in the picture, (vertical, horizontal), from 0 (top, left) to 1; the default
            is the centre.
    """
    height, width = size
    if image.height < height or image.width < width:
        missing = (max(0, height - image.height), max(0, width - image.width))
        edges = [(short // 2, short - short // 2) for short in missing]
        # `symmetric` repeats the edge pixel, so that one-pixel sides can be continued too
        padded = np.pad(np.asarray(image), (*edges, (0, 0)), mode="symmetric")
        image = Image.fromarray(padded)
    top = round((image.height - height) * place[0])
    left = round((image.width - width) * place[1])
    return image.crop((left, top, left + width, top + height))
