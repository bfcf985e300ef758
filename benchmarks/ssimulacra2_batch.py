"""SSIMULACRA2 of many distortions of one picture: the package's numbers in a fraction of its time.

The same steps as the package `ssimulacra2` (its oracle in the tests), with what belongs to the
undistorted picture computed once, blurs as products with banded matrices, and float32. As there,
blurs continue a picture by zeros along its width and by reflection along its height.

Shape suffixes: N distortions, C channels (X, Y, B - Y), W and H sides in pixels of one scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from ssimulacra2 import ssimulacra2 as package

Array = NDArray[np.float32]
SCALES = package.kNumScales
SMALLEST = 8  # pixels; a scale with a shorter side is left out
SIGMA, TRUNCATE = 1.5, 3.33


def ssimulacra2_batch(
    pristine_HW3: NDArray[np.uint8], distorted_NHW3: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """SSIMULACRA2 [N] (100: no difference, lower is worse) of uint8 pictures against one of the
    same even size."""
    parts = []
    both = zip(_scales(pristine_HW3[None]), _scales(distorted_NHW3), strict=True)
    for first_1CWH, other_NCWH in both:
        mean1, mean2 = _blurred(first_1CWH), _blurred(other_NCWH)
        square1 = _blurred(first_1CWH * first_1CWH) - mean1 * mean1
        square2 = _blurred(other_NCWH * other_NCWH) - mean2 * mean2
        product = _blurred(first_1CWH * other_NCWH) - mean1 * mean2
        similar = (2.0 * product + package.kC2) / (square1 + square2 + package.kC2)
        unlike = np.maximum(1.0 - (1.0 - (mean1 - mean2) ** 2) * similar, 0.0)
        edges = (1.0 + abs(other_NCWH - mean2)) / (1.0 + abs(first_1CWH - mean1)) - 1.0
        added, lost = np.maximum(edges, 0.0), np.maximum(-edges, 0.0)
        # per channel: both norms, each of structure, of edges that came and of edges that went
        norms = [[_norm1(x), _norm4(x)] for x in (unlike, added, lost)]
        parts.append(np.array(norms).transpose(2, 3, 1, 0))  # [N, C, norm, kind]
    values = np.stack(parts, axis=2).reshape(
        len(distorted_NHW3), -1
    )  # [N, C x scale x norm x kind]
    return np.array([_score(own) for own in values])


def _scales(pictures_NHW3: NDArray[np.uint8]) -> Iterator[Array]:
    """The pictures in XYB, positive, [N, C, W, H], scale by scale."""
    linear = _linear()[pictures_NHW3].transpose(0, 3, 2, 1)
    for scale in range(SCALES):
        if scale:
            linear = _halved(linear)
        if min(linear.shape[2:]) < SMALLEST:
            return
        matrix = package.kOpsinAbsorbanceMatrix.reshape(3, 3).astype(np.float32)
        bias = np.float32(package.kB0)
        mixed = np.cbrt(np.maximum(np.einsum("km,nmwh->knwh", matrix, linear) + bias, 0.0))
        red, green, blue = mixed - np.cbrt(bias)
        x, y = 0.5 * (red - green), 0.5 * (red + green)
        yield np.stack([x * 14.0 + 0.42, y + 0.01, blue - y + 0.55], axis=1).astype(np.float32)


@cache
def _linear() -> Array:
    """Linear light of the 256 levels of sRGB."""
    return package.srgb_to_linear(np.arange(256.0)).astype(np.float32)


def _halved(linear_N3WH: Array) -> Array:
    """Means of two by two pixels; of what is left over at an odd edge."""
    n, c, width, height = linear_N3WH.shape
    even = np.pad(linear_N3WH, ((0, 0), (0, 0), (0, width % 2), (0, height % 2)), mode="edge")
    return even.reshape(n, c, -(-width // 2), 2, -(-height // 2), 2).mean(axis=(3, 5))


def _blurred(values_NCWH: Array) -> Array:
    across, down = (_blur_matrix(side, zeros) for side, zeros in
                    zip(values_NCWH.shape[2:], (True, False), strict=True))  # fmt: skip
    return across @ values_NCWH @ down.T


@cache
def _blur_matrix(side: int, zeros: bool) -> Array:
    """[side, side]: the blur of a line, continued by zeros or by reflection."""
    radius = int(TRUNCATE * SIGMA + 0.5)
    lines = np.eye(side)
    if zeros:
        lines = np.pad(lines, ((0, 0), (radius, radius)))
    blurred = ndimage.gaussian_filter1d(lines, SIGMA, axis=1, truncate=TRUNCATE, mode="reflect")
    return (
        blurred[:, radius : radius + side].T.astype(np.float32)
        if zeros
        else blurred.T.astype(np.float32)
    )


def _norm1(values_NCWH: Array) -> NDArray[np.float64]:
    return values_NCWH.mean(axis=(2, 3), dtype=np.float64)


def _norm4(values_NCWH: Array) -> NDArray[np.float64]:
    squares = values_NCWH * values_NCWH
    return (squares * squares).mean(axis=(2, 3), dtype=np.float64) ** 0.25


def _score(values: NDArray[np.float64]) -> float:
    """The package's mapping of the weighted sum; fewer than six scales meet the first weights."""
    total = float(package.weights[: len(values)] @ values) * 0.9562382616834844
    total = (
        2.326765642916932 * total
        - 0.020884521182843837 * total**2
        + 6.248496625763138e-05 * total**3
    )
    return 100.0 - 10.0 * total**0.6276336467831387 if total > 0.0 else 100.0
