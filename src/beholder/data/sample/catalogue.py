"""Which pictures the sample consists of: photo x crop x (6 distortions x 4 levels, and pristine).

A crop is 256 pixels wide and high, cut at native resolution: resizing would destroy what
distortions look like, and SSIMULACRA2 has all of its six scales from 256 pixels on. The four crops
of a photo run along its longer side and alternate between the two ends of the shorter side, so
that they share as little as the photo's size allows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from beholder.data.sample.distortions import KINDS, LEVELS, PRISTINE
from beholder.errors import DataError

PHOTO_FOLDER = Path(__file__).parent / "photos"
CROP_SIZE = 256
CROPS_PER_PHOTO = 4
SUFFIX = ".webp"  # lossless; against PNG: 3 times as fast to write, 18 % smaller

HELD_OUT_PHOTOS = 3
VALIDATION_PHOTOS = 2


@dataclass(frozen=True)
class Entry:
    """One picture of the sample; `crop` counts from 0, `level` is 0 for the pristine crop."""

    photo: str
    crop: int
    kind: str
    level: int

    @property
    def key(self) -> str:
        variant = self.kind if self.kind == PRISTINE else f"{self.kind}-{self.level}"
        return f"{self.photo}/{self.crop}/{variant}{SUFFIX}"

    @property
    def seed(self) -> str:
        """What the noise is a function of, with kind and level."""
        return f"{self.photo}/{self.crop}"


def photo_names() -> tuple[str, ...]:
    """The shipped photos, by name."""
    return tuple(sorted(path.stem for path in PHOTO_FOLDER.glob("*.jpg")))


def split_of(photo: str) -> str:
    """The split that all pictures of a photo are in.

    Photos in order of the SHA-256 of their names: the first three are held out, the next two are
    for validation. Nobody picked them, and no result can change them.
    """
    order = sorted(photo_names(), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    position = order.index(photo)
    if position < HELD_OUT_PHOTOS:
        return "test"
    return "val" if position < HELD_OUT_PHOTOS + VALIDATION_PHOTOS else "train"


def crop_variants(photo: str, crop: int) -> list[Entry]:
    """The 25 pictures of one crop, the pristine one first."""
    distorted = [Entry(photo, crop, kind, level) for kind in KINDS for level in LEVELS]
    return [Entry(photo, crop, PRISTINE, 0), *distorted]


def catalogue(photos: Sequence[str] | None = None) -> list[Entry]:
    """Every picture of `photos` (default: all), in a fixed order.

    Raises:
        DataError: a photo is not in the sample.
    """
    known = photo_names()
    chosen = known if photos is None else tuple(photos)
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise DataError(
            f"The sample has no photo named {', '.join(unknown)}.", fix=f"One of {', '.join(known)}"
        )
    return [
        entry
        for photo in chosen
        for crop in range(CROPS_PER_PHOTO)
        for entry in crop_variants(photo, crop)
    ]


def crop_box(width: int, height: int, crop: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in pixels of crop number `crop` of a photo of this size."""
    along = round((max(width, height) - CROP_SIZE) * crop / (CROPS_PER_PHOTO - 1))
    across = (min(width, height) - CROP_SIZE) * (crop % 2)
    left, top = (along, across) if width >= height else (across, along)
    return left, top, left + CROP_SIZE, top + CROP_SIZE


def cut(photo: Image.Image, crop: int) -> Image.Image:
    """Crop number `crop` of a photo, at native resolution."""
    return photo.crop(crop_box(*photo.size, crop))
