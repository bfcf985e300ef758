"""RandAugment: a few of fourteen changes of a picture, drawn at random, all of one strength.

Source: Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search
Space", NeurIPS 2020; changes and ranges are torchvision's. Here what is drawn is handed in, and
what a change uncovers is black, as padding is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from PIL import Image, ImageEnhance, ImageOps

Change = Callable[[Image.Image, float], Image.Image]

MOST_SHEAR = 0.3  # pixels to the side per pixel down
MOST_MOVE = 150 / 331  # of the side
MOST_TURN = 30.0  # degrees
MOST_CHANGE = 0.9  # of a factor, from 1
FEWEST_BITS = 4


def rand_augment(image: Image.Image, strength: float, draws: Sequence[float]) -> Image.Image:
    """The picture after as many changes as there are pairs of draws.

    Args:
        image: RGB.
        strength: from 0 to 1; torchvision's magnitude divided by 30.
        draws: per change two numbers in [0, 1): which one, and in which direction.
    """
    for which, direction in zip(draws[::2], draws[1::2], strict=True):
        change, signed = CHANGES[int(which * len(CHANGES))]
        image = change(image, -strength if signed and direction < 0.5 else strength)
    return image


def _sheared(image: Image.Image, across: float, down: float) -> Image.Image:
    return _moved_by(image, (1.0, across, 0.0, down, 1.0, 0.0))


def _moved(image: Image.Image, across: int, down: int) -> Image.Image:
    return _moved_by(image, (1.0, 0.0, -across, 0.0, 1.0, -down))


def _moved_by(
    image: Image.Image, matrix: tuple[float, float, float, float, float, float]
) -> Image.Image:
    """Each place (x, y) of the result shows what was at (a x + b y + c, d x + e y + f)."""
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR
    )


def _turned(image: Image.Image, strength: float) -> Image.Image:
    return image.rotate(MOST_TURN * strength, resample=Image.Resampling.BILINEAR)


def _posterized(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.posterize(image, 8 - round((8 - FEWEST_BITS) * strength))


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Change:
    return lambda image, strength: kind(image).enhance(1.0 + MOST_CHANGE * strength)


# each with whether it has two directions
CHANGES: tuple[tuple[Change, bool], ...] = (
    (lambda image, strength: image, False),
    (lambda image, strength: _sheared(image, MOST_SHEAR * strength, 0.0), True),
    (lambda image, strength: _sheared(image, 0.0, MOST_SHEAR * strength), True),
    (lambda image, strength: _moved(image, int(MOST_MOVE * image.width * strength), 0), True),
    (lambda image, strength: _moved(image, 0, int(MOST_MOVE * image.height * strength)), True),
    (_turned, True),
    (_enhanced(ImageEnhance.Brightness), True),
    (_enhanced(ImageEnhance.Color), True),
    (_enhanced(ImageEnhance.Contrast), True),
    (_enhanced(ImageEnhance.Sharpness), True),
    (_posterized, False),
    (lambda image, strength: ImageOps.solarize(image, math.ceil(255 * (1 - strength))), False),
    (lambda image, strength: ImageOps.autocontrast(image), False),
    (lambda image, strength: ImageOps.equalize(image), False),
)
