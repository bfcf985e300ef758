"""Every picture opened once: can it be used, its content, and what it looks like.

The perceptual hash is a 64-bit difference hash: the picture as 9 x 8 grey values, each bit whether
a value is greater than its left neighbour. Recompression, resizing and changes of brightness move
few bits. (N. Krawetz, "Kind of Like That", 2013.)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from beholder.data.images import MAX_PIXELS, content_hash, read_header, read_image, resolve_key
from beholder.data.progress import progress
from beholder.errors import PictureError

NEAR_BITS = 3
"""Pictures whose hashes differ in at most this many of 64 bits look alike."""

_AT_A_TIME = 16  # pictures per task of a thread: starting one costs as much as a missing picture
_BANDS = NEAR_BITS + 1
_LEAST_CONTRAST = 2.0  # grey levels of 255; below it the bits are noise


@dataclass(frozen=True)
class Fingerprint:
    """What is known of a picture file.

    Args:
        size: (width, height) in pixels, upright; None where the header can't be read.
        content: SHA-256 of the file, None where it can't be read.
        look: the 64-bit difference hash; None where the picture can't be decoded or is so flat
            that every such picture looks the same.
        problem: (code, sentence) as of `PictureError`, None where the picture is usable.
    """

    key: str
    size: tuple[int, int] | None = None
    content: str | None = None
    look: int | None = None
    problem: tuple[str, str] | None = None


def fingerprint(root: Path, key: str, max_pixels: int = MAX_PIXELS) -> Fingerprint:
    """Open one picture; what is wrong with it is in the result, not raised."""
    size = content = None
    try:
        path = resolve_key(root, key)
        content = content_hash(path)
        size = read_header(path).size
        look = difference_hash(read_image(path, max_pixels=max_pixels, at_least=16))
    except PictureError as error:
        return Fingerprint(key, size, content, problem=(error.code, error.what))
    return Fingerprint(key, size, content, look)


def fingerprint_all(
    root: Path, keys: Sequence[str], *, max_pixels: int = MAX_PIXELS, workers: int | None = None
) -> list[Fingerprint]:
    """The fingerprints in the order of `keys`, on all cores, with progress.

    Threads: decoding, resizing and hashing release Python's lock, and there is nothing to start.

    Args:
        workers: pictures open at a time; by default the number of cores.
    """

    def some(start: int) -> list[Fingerprint]:
        return [fingerprint(root, key, max_pixels) for key in keys[start : start + _AT_A_TIME]]

    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        parts = pool.map(some, range(0, len(keys), _AT_A_TIME))
        return list(progress(chain.from_iterable(parts), "opening pictures", len(keys)))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted check does not open the rest


def difference_hash(image: Image.Image) -> int | None:
    """The 64-bit difference hash of a picture, None for a flat one."""
    grey = image.convert("L").resize((9, 8), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.int16)
    if values.std() < _LEAST_CONTRAST:
        return None
    return int.from_bytes(np.packbits(values[:, 1:] > values[:, :-1]).tobytes(), "big")


def near_pairs(looks: Sequence[int | None]) -> list[tuple[int, int]]:
    """Pairs of indices (i < j) whose hashes differ in at most `NEAR_BITS` bits.

    Of several equal hashes, every one is paired with the first; the pairs of the others follow by
    transitivity. Hashes that differ in 3 bits agree in at least one of four bands of 16 bits, so
    that only those with an equal band are compared: 100,000 pictures take well under a second.
    """
    known = [(look, index) for index, look in enumerate(looks) if look is not None]
    first: dict[int, int] = {}
    pairs: list[tuple[int, int]] = []
    for look, index in known:
        if first.setdefault(look, index) != index:
            pairs.append((first[look], index))
    hashes = np.fromiter(first, dtype=np.uint64, count=len(first))
    indices = np.fromiter(first.values(), dtype=np.int64, count=len(first))
    width = 64 // _BANDS
    for band in range(_BANDS):
        bits = (hashes >> np.uint64(band * width)) & np.uint64((1 << width) - 1)
        for left, right in _close_within(hashes, bits):
            a, b = indices[left], indices[right]
            ends = np.stack([np.minimum(a, b), np.maximum(a, b)], axis=1)
            pairs += [(int(i), int(j)) for i, j in ends]
    return sorted(set(pairs))


def _close_within(hashes: np.ndarray, bits: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions of the pairs with an equal band that differ in few enough bits.

    In the order of the band, each hash is compared with the next one, the one after and so on,
    as long as any still shares its band.
    """
    order = np.argsort(bits, kind="stable")
    ordered = bits[order]
    found = []
    left = np.arange(len(order) - 1)
    step = 1
    while len(left):
        left = left[left + step < len(order)]
        left = left[ordered[left] == ordered[left + step]]
        a, b = order[left], order[left + step]
        close = np.bitwise_count(hashes[a] ^ hashes[b]) <= NEAR_BITS
        if close.any():
            found.append((a[close], b[close]))
        step += 1
    return found
