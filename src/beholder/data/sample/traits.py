"""What can be measured on a picture itself: brightness, colourfulness, texture; their labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

BRIGHTNESS = ("dark", "medium", "bright")
COLOURFULNESS = ("muted", "moderate", "vivid")
TEXTURE = ("plain", "fine")

# Mean luminance, 0..255: about a quarter, a half and a quarter of the sample's pristine crops.
BRIGHTNESS_LIMITS = (90.0, 120.0)
# Hasler & Suesstrunk call 33 "moderately colourful" and 59 "quite colourful".
COLOURFULNESS_LIMITS = (33.0, 59.0)
TEXTURE_LIMIT = 6.0


@dataclass(frozen=True)
class Traits:
    """What was measured on one picture.

    Args:
        luminance: mean luminance, 0..255.
        detail: standard deviation of the luminance.
        texture: mean absolute difference of the luminance between neighbours.
        colourfulness: 0 to about 180.
    """

    luminance: float
    detail: float
    texture: float
    colourfulness: float

    @property
    def brightness_label(self) -> str:
        return BRIGHTNESS[int(np.digitize(self.luminance, BRIGHTNESS_LIMITS))]

    @property
    def colourfulness_label(self) -> str:
        return COLOURFULNESS[int(np.digitize(self.colourfulness, COLOURFULNESS_LIMITS))]

    @property
    def texture_label(self) -> str:
        return TEXTURE[int(self.texture >= TEXTURE_LIMIT)]


def measure(image: Image.Image) -> Traits:
    """Measure an RGB picture. Luminance is ITU-R BT.601 luma."""
    luma = np.asarray(image.convert("L"), dtype=np.float32)
    steps = np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean()
    return Traits(float(luma.mean()), float(luma.std()), float(steps / 2), colourfulness(image))


def colourfulness(image: Image.Image) -> float:
    """The metric M3 of Hasler & Suesstrunk, "Measuring colourfulness in natural images" (2003).

    sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2), with rg = R - G and
    yb = (R + G) / 2 - B of pixels in 0..255. 0 is grey; 15 slightly, 33 moderately, 45 averagely,
    59 quite, 82 highly, 109 extremely colourful.
    """
    red, green, blue = (np.asarray(band, dtype=np.float32) for band in image.split())
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))
