"""Every picture opened once: whether it is usable, its content, and what it looks like.

A look is the coarse shape of a picture and its colours. The shape is the 63 lowest frequencies of
the grey picture (a discrete cosine transform of 32 x 32 values, 8 x 8 of its coefficients without
the mean), each times its frequency, as a unit vector: brightness and contrast cancel out, and what
all photographs share (a light sky above, a spectrum that falls with the frequency) does not make
two of them alike. Recompression and resizing hardly change the vector, a crop changes it a little.
The colours are the means of Cb and Cr in 4 x 4 parts. For an object on a plain background, e.g. a
product on white, both are taken of the object alone. `lookalikes` decides what is alike.

The frequencies are those of pHash (C. Zauner, "Implementation and Benchmarking of Perceptual Image
Hash Functions", 2010), kept as values and not as signs, so that weak ones count little.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from beholder.data.images import MAX_PIXELS, content_hash, read_header, read_image, resolve_key
from beholder.data.progress import progress
from beholder.errors import PictureError

LOOK_VERSION = 2
"""Looks of another version can't be compared with these: they are computed again."""

FREQUENCIES = 8
"""Per axis; a look's shape has one value less than their square, since the mean is left out."""

SHAPE = FREQUENCIES**2 - 1
COLOUR_PARTS = 4  # per axis
LOOK_BYTES = SHAPE + 2 * COLOUR_PARTS**2 + 1

_SIDE = 32
_FINE_SIDE = 128
_PLAIN_BORDER = 0.9  # share of the border that has one grey, where the ground is plain
_PLAIN_SHARE, _PLAIN_LEAST = 0.08, 4.0  # what may differ, of the largest contrast, and grey levels
_THING_SHARE = 0.25  # of the largest contrast: what is a part of the thing, and no trace of a codec
_UNIT = 127  # of the shape's values, which are signed bytes
_AT_A_TIME = 16  # pictures per task of a thread: starting one costs as much as a missing picture
_LEAST_CONTRAST = 2.0  # grey levels of 255; below it the bits are noise


@dataclass(frozen=True)
class Fingerprint:
    """What is known about a picture file.

    Args:
        size: (width, height) in pixels, upright; None where the header can't be read.
        content: SHA-256 of the file, None where it can't be read.
        look: see `look_of`; None where the picture can't be decoded or is so flat that every such
            picture looks the same.
        problem: (code, sentence) as of `PictureError`, None where the picture is usable.
    """

    key: str
    size: tuple[int, int] | None = None
    content: str | None = None
    look: bytes | None = None
    problem: tuple[str, str] | None = None


def fingerprint(root: Path, key: str, max_pixels: int = MAX_PIXELS) -> Fingerprint:
    """Open one picture; a problem is returned in the result, not raised."""
    size = content = None
    try:
        path = resolve_key(root, key)
        content = content_hash(path)
        size = read_header(path).size
        look = look_of(read_image(path, max_pixels=max_pixels, at_least=_FINE_SIDE))
    except PictureError as error:
        return Fingerprint(key, size, content, problem=(error.code, error.what))
    return Fingerprint(key, size, content, look)


def fingerprint_all(
    root: Path, keys: Sequence[str], *, max_pixels: int = MAX_PIXELS, workers: int | None = None
) -> list[Fingerprint]:
    """The fingerprints in the order of `keys`, on all cores, with progress.

    In threads: decoding, resizing and hashing release Python's lock, and threads start at once.

    Args:
        workers: pictures opened at a time; by default the number of cores.
    """

    def batch(start: int) -> list[Fingerprint]:
        return [fingerprint(root, key, max_pixels) for key in keys[start : start + _AT_A_TIME]]

    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        parts = pool.map(batch, range(0, len(keys), _AT_A_TIME))
        return list(progress(chain.from_iterable(parts), "opening pictures", len(keys)))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted check does not open the rest


def look_of(image: Image.Image) -> bytes | None:
    """The look of an RGB picture, `LOOK_BYTES` signed bytes; None for a flat one.

    Returns:
        The shape (times `_UNIT`), then Cb and Cr less 128 of each part, row by row, then 1 for an
        object on a plain background, else 0.
    """
    box = _on_plain_ground(image)
    if box:
        image = image.crop(box)
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.float64)
    if values.std() < _LEAST_CONTRAST:
        return None
    shape = ((_COSINES @ values @ _COSINES.T) * _WEIGHTS).reshape(-1)[1:]
    shape *= _UNIT / np.linalg.norm(shape)
    parts = image.resize((COLOUR_PARTS, COLOUR_PARTS), Image.Resampling.BOX).convert("YCbCr")
    colours = np.asarray(parts, dtype=np.int16)[..., 1:].reshape(-1) - 128
    return np.concatenate([np.rint(shape), colours, [box is not None]]).astype(np.int8).tobytes()


def _on_plain_ground(image: Image.Image) -> tuple[int, int, int, int] | None:
    """The box around the object on a plain background; None where the border is not plain."""
    grey = image.convert("L").resize((_FINE_SIDE, _FINE_SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.float64)
    border = np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])
    gap = np.abs(values - np.median(border))
    allowed = max(_PLAIN_SHARE * gap.max(), _PLAIN_LEAST)
    if (np.abs(border - np.median(border)) <= allowed).mean() < _PLAIN_BORDER:
        return None
    thing = gap > max(_THING_SHARE * gap.max(), _PLAIN_LEAST)
    rows, columns = (np.flatnonzero(thing.sum(axis=axis) > 1) for axis in (1, 0))
    if not (len(rows) and len(columns)):
        return None
    width, height = image.size[0] / _FINE_SIDE, image.size[1] / _FINE_SIDE
    left, top = round(columns[0] * width), round(rows[0] * height)
    right, bottom = round((columns[-1] + 1) * width), round((rows[-1] + 1) * height)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _cosines() -> NDArray[np.float64]:
    """The lowest rows [FREQUENCIES, _SIDE] of the orthonormal DCT-II."""
    order, index = np.arange(FREQUENCIES)[:, None], np.arange(_SIDE)[None]
    rows = np.cos(np.pi * order * (2 * index + 1) / (2 * _SIDE)) * np.sqrt(2 / _SIDE)
    rows[0] /= np.sqrt(2)
    return rows


_COSINES = _cosines()
_WEIGHTS = np.hypot(*np.indices((FREQUENCIES, FREQUENCIES)))
