"""Thirty ways to spoil a photograph, in eleven families, each from hardly visible to very annoying.

Made for the starter's training (`starter/train.py`), as KADIS-700k was (H. Lin et al.,
"KADID-10k: A Large-scale Artificially Distorted IQA Database", QoMEX 2019): known distortions of
photographs that are good. A family is what a person would call the fault; a kind is one way to get
it. Pictures are RGB of any size and keep it; equal arguments give equal pixels on one machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

LEVELS = (1, 2, 3, 4, 5)

Pixels = NDArray[np.float32]
"""RGB, [H, W, 3], 0 to 255."""


class Kind(NamedTuple):
    """One way to spoil a picture, with its strength at each of the five levels."""

    family: str
    apply: Callable[[Image.Image, float, np.random.Generator], Image.Image]
    strengths: tuple[float, float, float, float, float]


def distort(image: Image.Image, kind: str, level: int, seed: str) -> Image.Image:
    """The RGB picture with a distortion at a level of 1 to 5; mode and size stay.

    Args:
        seed: any text; what is random depends on it, the kind and the level alone.
    """
    key = hashlib.sha256(f"{seed}/{kind}/{level}".encode()).digest()[:16]
    chance = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    chosen = KINDS[kind]
    return chosen.apply(image, chosen.strengths[level - 1], chance)


def distort_by_all(image: Image.Image, steps: Sequence[tuple[str, int]], seed: str) -> Image.Image:
    """Several distortions, one after the other, in the order in which a camera and what follows
    bring them: light, optics, sensor, processing, file."""
    order = list(KINDS)
    for kind, level in sorted(steps, key=lambda step: order.index(step[0])):
        image = distort(image, kind, level, seed)
    return image


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image, dtype=np.float32)


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _scaled(image: Image.Image, factor: float, down: int, up: int) -> Image.Image:
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    small = image.resize(size, Image.Resampling(down))
    return small.resize(image.size, Image.Resampling(up))


def _through(image: Image.Image, encoder: str, **options: object) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, encoder, **options)
    with Image.open(buffer) as decoded:
        return decoded.convert("RGB")


def _filtered(pixels: Pixels, kernel: NDArray[np.float64]) -> Pixels:
    """Every channel convolved with a kernel, which is normalised first; edges by reflection."""
    kernel = (kernel / kernel.sum()).astype(np.float32)
    return ndimage.convolve(pixels, kernel[:, :, None], mode="reflect")


# light


def _underexposed(image: Image.Image, stops: float, chance: np.random.Generator) -> Image.Image:
    """Less light in linear terms."""
    return _image(255.0 * (_pixels(image) / 255.0) * np.float32(2.0 ** (-stops / 2.2)))


def _dark_gamma(image: Image.Image, gamma: float, chance: np.random.Generator) -> Image.Image:
    """Shadows and middle tones sink, lights stay."""
    return _image(255.0 * (_pixels(image) / 255.0) ** np.float32(gamma))


def _overexposed(image: Image.Image, stops: float, chance: np.random.Generator) -> Image.Image:
    """More light, and what is brighter than white is lost."""
    return _image(_pixels(image) * np.float32(2.0 ** (stops / 2.2)))


def _washed_out(image: Image.Image, gamma: float, chance: np.random.Generator) -> Image.Image:
    """Shadows and middle tones rise towards white."""
    return _image(255.0 * (_pixels(image) / 255.0) ** np.float32(1.0 / gamma))


def _low_contrast(image: Image.Image, factor: float, chance: np.random.Generator) -> Image.Image:
    pixels = _pixels(image)
    mean = pixels.mean()
    return _image(mean + np.float32(factor) * (pixels - mean))


def _haze(image: Image.Image, share: float, chance: np.random.Generator) -> Image.Image:
    """A light veil, thicker towards the top."""
    pixels = _pixels(image)
    height = np.linspace(1.0, 0.6, len(pixels), dtype=np.float32)[:, None, None]
    veil = np.float32(share) * height
    return _image(pixels * (1.0 - veil) + 225.0 * veil)


# optics


def _gaussian_blur(image: Image.Image, sigma: float, chance: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma))


def _lens_blur(image: Image.Image, radius: float, chance: np.random.Generator) -> Image.Image:
    """Out of focus: a disc."""
    reach = int(np.ceil(radius))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(rows, columns), 0.0, 1.0)
    return _image(_filtered(_pixels(image), disc))


def _motion_blur(image: Image.Image, length: float, chance: np.random.Generator) -> Image.Image:
    """A straight movement in any direction."""
    angle = chance.uniform(0.0, np.pi)
    steps = np.linspace(-length / 2.0, length / 2.0, 8 * int(np.ceil(length)) + 1)
    return _image(_filtered(_pixels(image), _path(steps * np.sin(angle), steps * np.cos(angle))))


def _camera_shake(image: Image.Image, length: float, chance: np.random.Generator) -> Image.Image:
    """A hand that trembles: a smooth random path."""
    turns = ndimage.gaussian_filter1d(chance.normal(size=(2, 96)), 10.0, axis=1)
    path = np.cumsum(turns, axis=1)
    path -= path.mean(axis=1, keepdims=True)
    path *= length / max(np.ptp(path, axis=1).max(), 1e-6)
    return _image(_filtered(_pixels(image), _path(path[0], path[1])))


def _path(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """A kernel that a point draws, by bilinear shares."""
    reach = int(np.ceil(max(np.abs(rows).max(), np.abs(columns).max()))) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    for row, column, share in (
        (0, 0, (1 - down) * (1 - right)),
        (0, 1, (1 - down) * right),
        (1, 0, down * (1 - right)),
        (1, 1, down * right),
    ):
        np.add.at(kernel, (top + reach + row, left + reach + column), share)
    return kernel


def _zoom_blur(image: Image.Image, share: float, chance: np.random.Generator) -> Image.Image:
    """The lens zooms while the shutter is open."""
    width, height = image.size
    frames = [
        _pixels(
            image.resize(
                image.size,
                Image.Resampling.BILINEAR,
                box=(
                    width * cut / 2,
                    height * cut / 2,
                    width * (1 - cut / 2),
                    height * (1 - cut / 2),
                ),
            )
        )
        for cut in np.linspace(0.0, share, 9)
    ]
    return _image(np.mean(frames, axis=0))


def _chromatic_aberration(
    image: Image.Image, shift: float, chance: np.random.Generator
) -> Image.Image:
    """Red and blue lie beside green."""
    pixels = _pixels(image)
    angle = chance.uniform(0.0, 2.0 * np.pi)
    offset = (shift * np.sin(angle), shift * np.cos(angle))
    red = ndimage.shift(pixels[..., 0], offset, order=1, mode="nearest")
    blue = ndimage.shift(pixels[..., 2], (-offset[0], -offset[1]), order=1, mode="nearest")
    return _image(np.stack([red, pixels[..., 1], blue], axis=-1))


# sensor


def _gaussian_noise(image: Image.Image, sigma: float, chance: np.random.Generator) -> Image.Image:
    pixels = _pixels(image)
    return _image(pixels + np.float32(sigma) * chance.standard_normal(pixels.shape, np.float32))


def _grey_noise(image: Image.Image, sigma: float, chance: np.random.Generator) -> Image.Image:
    """Grain: the same in all channels, a little coarser than a pixel."""
    pixels = _pixels(image)
    grain = ndimage.gaussian_filter(chance.standard_normal(pixels.shape[:2], np.float32), 0.6)
    return _image(pixels + np.float32(sigma) * (grain / grain.std())[..., None])


def _colour_noise(image: Image.Image, sigma: float, chance: np.random.Generator) -> Image.Image:
    """Coarse coloured spots, as of small sensors in the dark."""
    pixels = _pixels(image)
    spots = chance.standard_normal(pixels.shape, np.float32)
    spots = ndimage.gaussian_filter(spots, (1.5, 1.5, 0.0))
    spots -= spots.mean(axis=-1, keepdims=True)
    return _image(pixels + np.float32(sigma) * spots / spots.std())


def _shot_noise(image: Image.Image, grain: float, chance: np.random.Generator) -> Image.Image:
    """Too few photons: noise that grows with the root of the light."""
    pixels = _pixels(image)
    return _image(chance.poisson(np.maximum(pixels, 0.0) / grain).astype(np.float32) * grain)


def _impulse_noise(image: Image.Image, share: float, chance: np.random.Generator) -> Image.Image:
    """Salt and pepper."""
    pixels = _pixels(image).copy()
    draws = chance.random(pixels.shape[:2])
    pixels[draws < share / 2.0] = 0.0
    pixels[draws > 1.0 - share / 2.0] = 255.0
    return _image(pixels)


# colour


def _colour_cast(image: Image.Image, strength: float, chance: np.random.Generator) -> Image.Image:
    """A wrong white balance: gains of the channels along a random hue."""
    angle = chance.uniform(0.0, 2.0 * np.pi)
    hue = np.cos(angle + np.array([0.0, 2.0, 4.0]) * np.pi / 3.0)
    return _image(_pixels(image) * np.exp(strength * hue).astype(np.float32))


def _saturation(image: Image.Image, factor: float, chance: np.random.Generator) -> Image.Image:
    pixels = _pixels(image)
    grey = (pixels @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    return _image(grey + np.float32(factor) * (pixels - grey))


# processing


def _downscaled(image: Image.Image, factor: float, chance: np.random.Generator) -> Image.Image:
    return _scaled(image, factor, Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)


def _downscaled_sharp(
    image: Image.Image, factor: float, chance: np.random.Generator
) -> Image.Image:
    return _scaled(image, factor, Image.Resampling.BOX, Image.Resampling.LANCZOS)


def _pixelated(image: Image.Image, factor: float, chance: np.random.Generator) -> Image.Image:
    return _scaled(image, factor, Image.Resampling.BOX, Image.Resampling.NEAREST)


def _median(image: Image.Image, reach: float, chance: np.random.Generator) -> Image.Image:
    """Denoised too much: surfaces like wax."""
    return _between_windows(image, reach, ImageFilter.MedianFilter)


def _watercolour(image: Image.Image, reach: float, chance: np.random.Generator) -> Image.Image:
    """The most frequent value of a neighbourhood, as strong noise reduction leaves."""
    return _between_windows(image, reach, ImageFilter.ModeFilter)


def _between_windows(
    image: Image.Image, reach: float, window: Callable[[int], ImageFilter.Filter]
) -> Image.Image:
    """The filter of a square window with a reach in pixels, blended between whole numbers."""
    small, share = int(reach), reach - int(reach)
    below = image.filter(window(2 * small + 1)) if small else image
    return Image.blend(below, image.filter(window(2 * small + 3)), share) if share else below


def _oversharpened(image: Image.Image, percent: float, chance: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.UnsharpMask(radius=1.2, percent=int(percent), threshold=0))


def _halos(image: Image.Image, percent: float, chance: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.UnsharpMask(radius=4.0, percent=int(percent), threshold=0))


def _posterised(image: Image.Image, steps: float, chance: np.random.Generator) -> Image.Image:
    """Few grades in every channel."""
    step = 255.0 / (steps - 1.0)
    return _image(np.rint(_pixels(image) / np.float32(step)) * np.float32(step))


def _few_colours(image: Image.Image, colours: float, chance: np.random.Generator) -> Image.Image:
    """A palette without dithering."""
    return image.quantize(int(colours), dither=Image.Dither.NONE).convert("RGB")


# file


def _jpeg(image: Image.Image, quality: float, chance: np.random.Generator) -> Image.Image:
    return _through(image, "JPEG", quality=int(quality), subsampling=2)


def _jpeg_again(image: Image.Image, quality: float, chance: np.random.Generator) -> Image.Image:
    """Saved badly, moved by a few pixels, and saved well again: blocks off the grid."""
    padded = Image.fromarray(np.pad(np.asarray(image), ((3, 5), (5, 3), (0, 0)), mode="reflect"))
    coarse = _through(padded, "JPEG", quality=int(quality))
    return _through(coarse.crop((5, 3, 5 + image.width, 3 + image.height)), "JPEG", quality=85)


def _webp(image: Image.Image, quality: float, chance: np.random.Generator) -> Image.Image:
    return _through(image, "WEBP", quality=int(quality), method=2)


def _jpeg2000(image: Image.Image, rate: float, chance: np.random.Generator) -> Image.Image:
    return _through(
        image, "JPEG2000", quality_mode="rates", quality_layers=[rate], irreversible=True
    )


KINDS: dict[str, Kind] = {
    "underexposed": Kind("underexposure", _underexposed, (0.35, 0.75, 1.3, 2.1, 3.4)),
    "dark gamma": Kind("underexposure", _dark_gamma, (1.12, 1.3, 1.6, 2.1, 3.0)),
    "overexposed": Kind("overexposure", _overexposed, (0.3, 0.6, 1.0, 1.6, 2.5)),
    "washed out": Kind("overexposure", _washed_out, (1.15, 1.35, 1.65, 2.1, 2.9)),
    "low contrast": Kind("low contrast", _low_contrast, (0.88, 0.76, 0.62, 0.47, 0.3)),
    "haze": Kind("low contrast", _haze, (0.1, 0.2, 0.33, 0.5, 0.7)),
    "colour cast": Kind("colour", _colour_cast, (0.07, 0.14, 0.23, 0.34, 0.5)),
    "oversaturated": Kind("colour", _saturation, (1.4, 1.8, 2.3, 3.0, 4.2)),
    "desaturated": Kind("colour", _saturation, (0.75, 0.5, 0.3, 0.15, 0.0)),
    "gaussian blur": Kind("blur", _gaussian_blur, (0.6, 1.0, 1.6, 2.5, 4.0)),
    "lens blur": Kind("blur", _lens_blur, (0.9, 1.6, 2.5, 3.8, 5.8)),
    "zoom blur": Kind("motion blur", _zoom_blur, (0.008, 0.016, 0.03, 0.055, 0.1)),
    "motion blur": Kind("motion blur", _motion_blur, (2.2, 4.0, 6.5, 10.0, 16.0)),
    "camera shake": Kind("motion blur", _camera_shake, (2.0, 3.5, 5.5, 9.0, 15.0)),
    "aberration": Kind("colour", _chromatic_aberration, (0.5, 1.0, 1.7, 2.8, 4.5)),
    "gaussian noise": Kind("noise", _gaussian_noise, (4.0, 8.0, 14.0, 24.0, 40.0)),
    "grey noise": Kind("noise", _grey_noise, (2.5, 4.5, 7.5, 13.0, 24.0)),
    "colour noise": Kind("noise", _colour_noise, (3.0, 5.5, 9.0, 15.0, 27.0)),
    "shot noise": Kind("noise", _shot_noise, (0.3, 0.9, 2.2, 5.0, 11.0)),
    "impulse noise": Kind("noise", _impulse_noise, (0.0004, 0.0012, 0.004, 0.013, 0.05)),
    "downscaled": Kind("low resolution", _downscaled, (0.75, 0.52, 0.37, 0.26, 0.17)),
    "downscaled sharp": Kind("low resolution", _downscaled_sharp, (0.7, 0.48, 0.34, 0.24, 0.15)),
    "pixelated": Kind("low resolution", _pixelated, (0.8, 0.6, 0.42, 0.28, 0.17)),
    "median": Kind("smoothing", _median, (0.7, 1.2, 1.8, 2.6, 4.0)),
    "watercolour": Kind("smoothing", _watercolour, (0.5, 1.0, 1.6, 2.3, 3.5)),
    "oversharpened": Kind("oversharpening", _oversharpened, (50, 95, 160, 270, 480)),
    "halos": Kind("oversharpening", _halos, (25, 50, 85, 140, 250)),
    "posterised": Kind("banding", _posterised, (26, 16, 10, 7, 4)),
    "few colours": Kind("banding", _few_colours, (96, 48, 26, 14, 7)),
    "jpeg": Kind("compression", _jpeg, (70, 42, 24, 13, 6)),
    "jpeg again": Kind("compression", _jpeg_again, (55, 33, 20, 11, 6)),
    "webp": Kind("compression", _webp, (70, 38, 16, 5, 0)),
    "jpeg 2000": Kind("compression", _jpeg2000, (14, 26, 44, 75, 130)),
}
FAMILIES = tuple(dict.fromkeys(kind.family for kind in KINDS.values()))
