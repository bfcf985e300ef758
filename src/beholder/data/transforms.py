"""From a picture to the array that a backbone was trained on, always in the same way.

Only numpy and Pillow: training, evaluation, an exported file and the server get byte-identical
arrays for the same picture.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

import numpy as np
from PIL import Image

from beholder.data.background import without_background
from beholder.data.images import MAX_PIXELS, Source, read_image
from beholder.errors import PictureError

Resize = Literal["squash", "crop", "pad", "native"]
Interpolation = Literal["bilinear", "bicubic", "lanczos"]
Background = Literal["keep", "grabcut"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# pixels that a step in between may need: 600 MB, reached by pictures thousands of times as long as
# wide, or by panoramas of nearly the largest allowed size that are padded
_MAX_INTERMEDIATE = 4 * MAX_PIXELS

LARGEST_SIDE = 2048  # pixels

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class EvalTransform:
    """The deterministic transform of an RGB picture to a normalised array.

    Args:
        size: (height, width) of the result in pixels.
        resize: how the picture gets that size:
            `squash`: resized to it, whatever its proportions;
            `crop`: the shorter side resized to size / crop_fraction, then the centre cropped;
            `pad`: put in the middle of a black square, then resized, so proportions stay;
            `native`: the centre cropped without any resampling, which would change how noise, blur
            and compression look. Smaller pictures are extended by reflection.
            `squash`, `crop` give the pixels of timm's and torchvision's transforms on PIL images.
        crop_fraction: share of the resized picture that `crop` keeps, in (0, 1].
        interpolation: how pixels are resampled; always with Pillow's antialiasing.
        mean, std: per channel, of pixels in 0..1; the result is (pixel - mean) / std.
        background: `keep`; `grabcut`: everything but the object in the box is first painted black,
            see `beholder.data.background`. Needs OpenCV.
        reduced_decoding: let `read` decode a JPEG at a fraction of its size where that stays at
            least twice as large as what is needed. For camera pictures this is 2 to 3 times as
            fast and changes the array by 0.001 of the range (PSNR above 50 dB), a seventh of what
            another interpolation does (benchmarks/bench_jpeg_draft.py). Off by default, since
            the same picture given as a path and as decoded pixels would differ by that much.
            `native` ignores it.
    """

    size: tuple[int, int] = (224, 224)
    resize: Resize = "squash"
    crop_fraction: float = 0.875
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    background: Background = "keep"
    reduced_decoding: bool = False

    def __post_init__(self) -> None:
        # JSON knows lists and whole numbers; equal transforms need equal values and hashes
        try:
            object.__setattr__(self, "size", tuple(operator.index(side) for side in self.size))
        except TypeError as error:
            raise ValueError(f"size must be whole pixels, not {self.size}") from error
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        object.__setattr__(self, "crop_fraction", float(self.crop_fraction))
        if len(self.size) != 2 or min(self.size) < 1 or max(self.size) > LARGEST_SIDE:
            raise ValueError(
                f"size must be (height, width) of 1 to {LARGEST_SIDE} pixels, not {self.size}"
            )
        if self.resize not in get_args(Resize):
            raise ValueError(f"resize must be one of {get_args(Resize)}, not {self.resize!r}")
        if self.interpolation not in _RESAMPLING:
            raise ValueError(
                f"interpolation must be one of {tuple(_RESAMPLING)}, not {self.interpolation!r}"
            )
        if self.background not in get_args(Background):
            raise ValueError(
                f"background must be one of {get_args(Background)}, not {self.background!r}"
            )
        if not 0.0 < self.crop_fraction <= 1.0:
            raise ValueError(f"crop_fraction must be in (0, 1], not {self.crop_fraction}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0.0:
            raise ValueError("mean and std are three numbers each, std above 0")
        if not all(abs(value) <= 1e6 for value in (*self.mean, *self.std)) or min(self.std) < 1e-6:
            raise ValueError("mean and std must be at most 1e6, std at least 1e-6")

    def __call__(self, image: Image.Image, box: Sequence[float] | None = None) -> np.ndarray:
        """The array of an RGB picture: float32 [3, height, width].

        Args:
            image: as `read_image` returns it, decoded in full if there is a box.
            box: (xmin, ymin, xmax, ymax) in pixels, cropped first; clipped to the picture.

        Raises:
            PictureError: `box`, if nothing of the box lies inside the picture; `too_large`, if
                the picture is so long and narrow that resizing it would fill the memory.
            MissingExtra: backgrounds are removed, and OpenCV is not installed.
        """
        if image.mode != "RGB":
            image = read_image(image)
        image = self.cleared(image, box)
        if box is not None:
            image = image.crop(clip_box(box, image.size))
        return self.fitted(image)

    def cleared(self, image: Image.Image, box: Sequence[float] | None = None) -> Image.Image:
        """The first step: the RGB picture at its size, without its background if that is to be
        removed.

        Raises:
            PictureError, MissingExtra: as the whole.
        """
        if self.background == "keep":
            return image
        return without_background(image, None if box is None else clip_box(box, image.size))

    def fitted(self, image: Image.Image) -> np.ndarray:
        """The last step: the array of a picture that is cleared and cropped to its box.

        Raises:
            PictureError: as the whole.
        """
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

    def region(
        self, size: tuple[int, int], box: Sequence[float] | None = None
    ) -> tuple[float, float, float, float]:
        """The part of a picture that the array shows: (left, top, right, bottom) in its pixels.

        It extends beyond the picture where that is padded or extended.

        Args:
            size: (width, height) of the picture.
            box: as for the call.

        Raises:
            PictureError: as for the call.
        """
        left, top, right, bottom = (0, 0, *size) if box is None else clip_box(box, size)
        width, height = right - left, bottom - top
        across, down = self._shown(width, height)
        return left + across[0], top + down[0], left + across[1], top + down[1]

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
        try:
            return cls(**values)  # type: ignore[arg-type]
        except (TypeError, OverflowError) as error:
            raise ValueError(f"a transform has no such values: {error}") from error

    def fingerprint(self) -> str:
        """SHA-256 of all fields, in hex. Transforms with the same one give the same arrays."""
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

    def _shown(self, width: int, height: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """Start and end, across and down, of what `_resized` shows of a picture."""
        if self.resize == "squash":
            return (0, width), (0, height)
        if self.resize == "pad":
            side = max(width, height)
            left, top = -((side - width) // 2), -((side - height) // 2)
            return (left, left + side), (top, top + side)
        if self.resize == "native":
            return _native_shown(width, self.size[1]), _native_shown(height, self.size[0])
        resized = self._resized_size(width, height)
        scale = (width / resized[1], height / resized[0])
        left = round((resized[1] - self.size[1]) / 2.0)
        top = round((resized[0] - self.size[0]) / 2.0)
        across = (left * scale[0], (left + self.size[1]) * scale[0])
        return across, (top * scale[1], (top + self.size[0]) * scale[1])

    def _resized_size(self, image_width: int, image_height: int) -> tuple[int, int]:
        """(height, width) of `crop` before the centre is cut: shorter side to size /
        crop_fraction, with timm's rounding."""
        height, width = self.size
        target = (math.floor(height / self.crop_fraction), math.floor(width / self.crop_fraction))
        if target[0] == target[1]:
            # torchvision.Resize(int) cuts the longer side to whole pixels
            shorter, longer = sorted((image_width, image_height))
            long_side = int(target[0] * longer / shorter)
            upright = image_width <= image_height
            return (long_side, target[0]) if upright else (target[0], long_side)
        ratio = min(image_height / target[0], image_width / target[1])
        return round(image_height / ratio), round(image_width / ratio)

    def _centre_of_resized(self, image: Image.Image) -> Image.Image:
        """The centre of the resized picture."""
        height, width = self.size
        resized = self._resized_size(*image.size)
        _check_room(resized, image)
        image = resample(image, resized, self.interpolation)
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
    """The picture in the middle of a black square of its longer side.

    Raises:
        PictureError: `too_large`, if the square of a very long picture would fill the memory.
    """
    side = max(image.size)
    _check_room((side, side), image)
    square = Image.new("RGB", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def native_crop(
    image: Image.Image, size: tuple[int, int], position: tuple[float, float] = (0.5, 0.5)
) -> Image.Image:
    """A part of `size` (height, width) with the stored pixels, never resampled.

    Sides that are too short are extended by reflection on both ends.

    Args:
        position: where in the picture, (vertical, horizontal), from 0 (top, left) to 1; the default
            is the centre.
    """
    height, width = size
    top = round(max(0, image.height - height) * position[0])
    left = round(max(0, image.width - width) * position[1])
    # cropped before extending, so that long and narrow pictures stay small
    image = image.crop((left, top, min(left + width, image.width), min(top + height, image.height)))
    missing = (height - image.height, width - image.width)
    if missing == (0, 0):
        return image
    edges = [(short // 2, short - short // 2) for short in missing]
    return Image.fromarray(np.pad(np.asarray(image), (*edges, (0, 0)), mode="reflect"))


def _native_shown(side: int, wanted: int) -> tuple[float, float]:
    """Start and end of what `native_crop` shows of one side."""
    start = round(max(0, side - wanted) * 0.5) - max(0, wanted - side) // 2
    return start, start + wanted


def _check_room(size: tuple[int, int], image: Image.Image) -> None:
    if size[0] * size[1] > _MAX_INTERMEDIATE:
        raise PictureError(
            f"The picture ({image.width}x{image.height}) is too long for its width: resized, it "
            f"would have {size[0] * size[1] / 1e6:.0f} megapixels.",
            code="too_large",
            fix="Crop it.",
        )
