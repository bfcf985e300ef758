"""Reduced JPEG decoding against decoding in full: speed, and what it changes.

    python benchmarks/bench_jpeg_draft.py [photos ...]

Photographs are tiled, mirrored at the seams, to the size of a phone's camera, so that the detail
per pixel is that of a photograph. Both ways end in the same evaluation transform; the error is
between the two arrays, in shares of the full range. The yardstick below it is what another
interpolation (bilinear for bicubic) changes.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, features

from beholder.data.images import read_image
from beholder.data.transforms import EvalTransform

PHOTOS = Path(__file__).parents[1] / "src" / "beholder" / "data" / "sample" / "photos"
SIZES = ((1600, 1200), (4000, 3000))
TARGETS = (224, 384)
ROUNDS = 3


def tiled(photo: Image.Image, size: tuple[int, int]) -> bytes:
    """A JPEG of (width, height) that continues the photo by reflection."""
    pixels = np.asarray(photo)
    missing = (max(0, size[1] - pixels.shape[0]), max(0, size[0] - pixels.shape[1]), 0)
    large = np.pad(pixels, [(0, count) for count in missing], mode="symmetric")
    stream = io.BytesIO()
    Image.fromarray(large[: size[1], : size[0]]).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def errors(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Mean absolute difference and PSNR in dB, of arrays in 0..1."""
    difference = first.astype(np.float64) - second
    square = float(np.mean(difference**2))
    return float(np.abs(difference).mean()), 10 * math.log10(1 / square) if square else math.inf


def measure(files: Sequence[bytes], target: int) -> str:
    full = EvalTransform(size=(target, target), mean=(0, 0, 0), std=(1, 1, 1))
    reduced = dataclasses.replace(full, reduced_decoding=True)
    bilinear = dataclasses.replace(full, interpolation="bilinear")
    ratios, changes, yardsticks = [], [], []
    for data in files:
        times = [
            (seconds(lambda: full.read(data)), seconds(lambda: reduced.read(data)))  # noqa: B023
            for _ in range(ROUNDS)
        ]
        ratios.append(statistics.median(slow / fast for slow, fast in times))
        reference = full.read(data)
        changes.append(errors(reference, reduced.read(data)))
        yardsticks.append(errors(reference, bilinear.read(data)))
    width, height = read_image(files[0]).size
    scale = width / read_image(files[0], at_least=target).width
    mean_change, psnr = np.median(changes, axis=0)
    mean_yard, psnr_yard = np.median(yardsticks, axis=0)
    return (
        f"{width}x{height} -> {target}: decoded at 1/{scale:.0f}, "
        f"{statistics.median(ratios):.2f} times as fast; "
        f"mean error {mean_change:.4f}, PSNR {psnr:.1f} dB, worst {min(c[1] for c in changes):.1f} "
        f"(bilinear: {mean_yard:.4f}, {psnr_yard:.1f} dB)"
    )


def main() -> None:
    paths = [Path(name) for name in sys.argv[1:]] or sorted(PHOTOS.glob("*.jpg"))
    photos = [read_image(path) for path in paths]
    print(f"Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}, ", end="")
    print(
        f"{os.cpu_count()} cores, {len(photos)} photos, {ROUNDS} rounds, medians; squash, bicubic"
    )
    for size in SIZES:
        files = [tiled(photo, size) for photo in photos]
        for target in TARGETS:
            print(measure(files, target))


if __name__ == "__main__":
    main()
