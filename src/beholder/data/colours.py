"""A decoded picture of any mode becomes RGB with 8 bits, by one set of rules.

The same for training, prediction and serving:

- alpha (LA, PA, RGBA, premultiplied or not, transparent colour or palette) is composited on white;
- 16-bit gray is divided by the range of the format (65535, or 4095 for 12-bit TIFF), never clipped;
- 32-bit integers and floats have no agreed range, so the smallest usual one that holds the
  brightest pixel is taken: 255, 65535 or the whole type for integers; 1, 255, 65535 for floats. A
  float picture that goes slightly past 1 (resampling overshoot, high dynamic range) is divided by
  its peak. Negative values and NaN are black;
- TIFFs whose zero is white are inverted;
- gray, palette, YCbCr, HSV, LAB and CMYK are converted. CMYK JPEGs are taken as inverted, as Adobe
  writes them;
- embedded ICC profiles are not applied. The data sets, the pretrained backbones and the published
  solutions all saw the numbers as they are stored, and applying a profile would move the features
  away from what they were trained on. (LAB has no RGB numbers to leave alone: it becomes sRGB.)
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _UNSIGNED = 0, 1
# a float picture may pass 1.0 by this factor before its values are taken to be 0..255
_OVERSHOOT = 16.0
_ROWS = 256


def to_rgb8(image: Image.Image) -> Image.Image:
    """A new RGB picture of the same size, without metadata; `image` stays as it is."""
    mode = image.mode
    if mode.startswith("I;16"):
        rgb = _from_16_bit(image)
    elif mode == "I":
        rgb = _from_integers(image)
    elif mode == "F":
        rgb = _from_floats(image)
    elif mode == "LAB":
        rgb = _from_lab(image)
    elif image.has_transparency_data:
        rgb = _on_white(image)
    else:
        rgb = image.convert("RGB")
    # the orientation has been or will be applied by the reader: it must not be found again
    rgb.info = {}
    return rgb


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return rgba.convert("RGB")
    rgb = Image.new("RGB", rgba.size, (255, 255, 255))
    rgb.paste(rgba, mask=alpha)
    return rgb


def _from_16_bit(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).astype(np.uint16)
    high = (1 << min(16, _tag(image, _BITS_PER_SAMPLE, 16))) - 1
    levels = np.minimum(np.arange(65536), high)
    table = np.rint(levels * (255 / high)).astype(np.uint8)
    if _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        table = 255 - table
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        table[transparent & 0xFFFF] = 255
    return Image.fromarray(table[pixels]).convert("RGB")


def _from_integers(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    unsigned = _tag(image, _SAMPLE_FORMAT, 2) == _UNSIGNED
    bits = _tag(image, _BITS_PER_SAMPLE, 32)
    if bits == 16:
        high = 65535 if unsigned else 32767
    else:
        pixels = pixels.view(np.uint32) if unsigned else pixels
        peak = int(pixels.max())
        whole = 2**32 - 1 if unsigned else 2**31 - 1
        high = next(limit for limit in (255, 65535, whole) if peak <= limit)
    return Image.fromarray(_scaled(pixels, high)).convert("RGB")


def _from_floats(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    peak = float(np.max(pixels, where=np.isfinite(pixels), initial=0.0))
    if 1.0 < peak < _OVERSHOOT:
        high = peak
    else:
        high = next((limit for limit in (1.0, 255.0, 65535.0) if peak <= limit), peak)
    levels = _scaled(pixels, high)
    if _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        levels = 255 - levels
    return Image.fromarray(levels).convert("RGB")


def _scaled(pixels: np.ndarray, high: float) -> np.ndarray:
    """0..high as 0..255; some rows at a time, since double precision takes 8 bytes a pixel."""
    levels = np.empty(pixels.shape, np.uint8)
    for top in range(0, len(pixels), _ROWS):
        shares = pixels[top : top + _ROWS].astype(np.float64) / high
        shares = np.clip(np.nan_to_num(shares, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
        levels[top : top + _ROWS] = np.rint(shares * 255.0)
    return levels


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return converted


def _tag(image: Image.Image, number: int, default: int) -> int:
    """A TIFF tag of a picture that still knows its file."""
    value = getattr(image, "tag_v2", {}).get(number, default)
    return int(value[0] if isinstance(value, tuple) else value)
