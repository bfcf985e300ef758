"""Where in a picture an opinion comes from: a heat map on the upright picture, and its overlay.

Shape suffixes: H, W sides of the picture; h, w sides of the network's last map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from beholder.errors import JudgeError

# the warm half of a fire: cold parts of the picture stay as they are, hot ones glow
_COLOURS = np.array([[60, 15, 110], [190, 40, 90], [245, 125, 20], [250, 225, 90]], np.float32)
_MOST = 0.65  # how opaque the hottest place is


@dataclass(frozen=True)
class Explanation:
    """Why a judge says something of a picture.

    Args:
        image: the picture's name.
        opinion: an attribute's name, or `score`.
        label: the class that is explained; None for a score.
        value: the probability of that class, 0 to 1, or the score.
        heat: [H, W] float32, 0 (does not matter) to 1 (matters most), a value per pixel of the
            upright picture; 0 where the judge does not look: outside of box and crop. All 0 where
            nothing speaks for the opinion.
        picture: the upright picture, RGB.
    """

    image: str
    opinion: str
    label: str | None
    value: float
    heat: NDArray[np.float32] = field(repr=False)
    picture: PIL.Image.Image = field(repr=False)

    def overlay(self, longest: int | None = None) -> PIL.Image.Image:
        """The picture with the heat glowing on it.

        Args:
            longest: the longer side of the result in pixels; None: as large as the picture.
        """
        picture, heat = self.picture, PIL.Image.fromarray(self.heat)
        if longest is not None and longest < max(picture.size):
            scale = longest / max(picture.size)
            size = tuple(max(1, round(side * scale)) for side in picture.size)
            picture = picture.resize((size[0], size[1]), PIL.Image.Resampling.BICUBIC)
            heat = heat.resize((size[0], size[1]), PIL.Image.Resampling.BILINEAR)
        warmth_HW = np.asarray(heat)
        stops = np.linspace(0, 1, len(_COLOURS))
        glow = [np.interp(warmth_HW, stops, _COLOURS[:, channel]) for channel in range(3)]
        share_HW1 = (_MOST * warmth_HW)[..., None]
        mixed = np.asarray(picture) * (1 - share_HW1) + np.stack(glow, axis=-1) * share_HW1
        return PIL.Image.fromarray(mixed.round().astype(np.uint8))


def unexplained() -> JudgeError:
    """The error of an engine that has no gradients."""
    return JudgeError(
        "What runs this judge can't tell where an opinion comes from.",
        fix="Load the judge's folder of weights instead of an exported file "
        "(pip install 'beholder[train]').",
    )


def scale_heat(map_hw: NDArray[np.float32]) -> NDArray[np.float32]:
    """The map from 0 (its least) to 1 (its most); 0 everywhere if it is flat."""
    least, most = float(map_hw.min()), float(map_hw.max())
    if most <= least:
        return np.zeros_like(map_hw)
    return (map_hw - least) / (most - least)


def place_heat(
    map_hw: NDArray[np.float32], region: Sequence[float], size: tuple[int, int]
) -> NDArray[np.float32]:
    """A map over a region of a picture as a value per pixel of it [H, W], bilinear, 0 outside.

    Args:
        region: (left, top, right, bottom) in pixels of the picture; may reach out of it.
        size: (width, height) of the picture.
    """
    left, top, right, bottom = region
    across_Ww = _weights(size[0], left, right, map_hw.shape[1])
    down_Hh = _weights(size[1], top, bottom, map_hw.shape[0])
    return down_Hh @ map_hw.astype(np.float32) @ across_Ww.T


def _weights(pixels: int, start: float, end: float, cells: int) -> NDArray[np.float32]:
    """How much of each cell every pixel gets [pixels, cells]; nothing outside start to end."""
    centres = np.arange(pixels) + 0.5
    inside = (centres >= start) & (centres <= end)
    position = np.clip((centres - start) / (end - start) * cells - 0.5, 0, cells - 1)
    lower = np.minimum(np.floor(position).astype(np.int64), max(cells - 2, 0))
    share = (position - lower).astype(np.float32)
    weights = np.zeros((pixels, cells), np.float32)
    rows = np.arange(pixels)
    weights[rows, lower] = 1 - share
    weights[rows, np.minimum(lower + 1, cells - 1)] += share
    weights[~inside] = 0
    return weights
