"""Six ways to make a picture worse, each at four levels, the same on every machine.

Everything is integer work (Pillow's fixed-point filters, lookup tables, raw random bits), so that
the pictures of `blur`, `noise`, `downscaling` and `contrast` are equal byte for byte wherever they
are made. `jpeg` and `webp` go through the encoders that Pillow was built with; these may differ
in the last bits between builds, which `builder.check_signatures` bounds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter, ImageStat

PRISTINE = "none"
LEVELS = (1, 2, 3, 4)

# Strengths of levels 1 to 4, chosen on SSIMULACRA2 so that every kind goes from hardly visible to
# very annoying: encoder quality, encoder quality, standard deviation of the blur in pixels,
# standard deviation of the noise in grey levels, scale factor, contrast factor.
STRENGTHS: dict[str, tuple[float, float, float, float]] = {
    "jpeg": (75, 45, 22, 10),
    "webp": (75, 35, 12, 2),
    "blur": (0.6, 0.95, 1.45, 2.3),
    "noise": (5, 9, 15, 26),
    "downscaling": (0.75, 0.5, 0.35, 0.24),
    "contrast": (0.86, 0.72, 0.58, 0.44),
}
KINDS = tuple(STRENGTHS)


def distort(image: Image.Image, kind: str, level: int, *, seed: str) -> Image.Image:
    """Return `image` (RGB) with distortion `kind` at `level`; same mode and size.

    Args:
        kind: one of `KINDS`, or `PRISTINE` with level 0, which returns a copy.
        level: 1 (hardly visible) to 4 (very annoying).
        seed: any text; the noise is a function of it, `kind` and `level` alone.
    """
    if kind == PRISTINE:
        return image.copy()
    strength = STRENGTHS[kind][level - 1]
    if kind == "noise":
        return _add_noise(image, strength, f"{seed}/{kind}/{level}")
    return _DISTORTIONS[kind](image, strength)


def _encode_jpeg(image: Image.Image, quality: float) -> Image.Image:
    return _through(image, "JPEG", quality=int(quality), subsampling=2)


def _encode_webp(image: Image.Image, quality: float) -> Image.Image:
    return _through(image, "WEBP", quality=int(quality), method=4)


def _through(image: Image.Image, encoder: str, **options: int) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, encoder, **options)
    with Image.open(buffer) as decoded:
        return decoded.convert("RGB")


def _blur(image: Image.Image, sigma: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma))


def _downscale(image: Image.Image, factor: float) -> Image.Image:
    small = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    reduced = image.resize(small, Image.Resampling.BICUBIC)
    return reduced.resize(image.size, Image.Resampling.BILINEAR)


def _lower_contrast(image: Image.Image, factor: float) -> Image.Image:
    """Pull every channel towards the picture's mean luminance, which keeps its brightness."""
    mean = round(ImageStat.Stat(image.convert("L")).mean[0])
    table = [round(mean + factor * (value - mean)) for value in range(256)]
    return image.point(table * 3)


def _add_noise(image: Image.Image, sigma: float, seed: str) -> Image.Image:
    pixels = np.asarray(image, dtype=np.int64)
    noise = bell_noise(pixels.size, seed).reshape(pixels.shape)
    scaled = np.rint(noise * sigma).astype(np.int64)
    return Image.fromarray(np.clip(pixels + scaled, 0, 255).astype(np.uint8))


def bell_noise(count: int, seed: str) -> np.ndarray:
    """`count` float64 samples of zero mean and unit variance, bell-shaped within +-4.9.

    Each is the sum of the eight bytes of a raw 64-bit word of Philox (Irwin-Hall), since NumPy
    promises the same raw words in every version and on every platform, but not the same normal
    samples; a sum of bytes doesn't depend on their order either.
    """
    key = int.from_bytes(hashlib.sha256(seed.encode("utf-8")).digest()[:16], "little")
    words = np.asarray(np.random.Philox(key=key).random_raw(count))
    sums = words.view(np.uint8).reshape(count, 8).sum(axis=1, dtype=np.int64)
    mean, variance = 8 * 255 / 2, 8 * (256**2 - 1) / 12
    return (sums - mean) / np.sqrt(variance)


_DISTORTIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "jpeg": _encode_jpeg,
    "webp": _encode_webp,
    "blur": _blur,
    "downscaling": _downscale,
    "contrast": _lower_contrast,
}
