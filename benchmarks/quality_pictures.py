"""The pictures of `quality.py`: the sample's, those of photographs of a third origin to learn from,
and those of foreign photographs to be measured on, all distorted by the sample's own distortions.

Scores are pseudo-MOS (SSIMULACRA2 against the undistorted crop, docs/sample.md); nobody rated any
of these pictures. Foreign photographs are fetched by package name and never kept in the repository:
twelve of Debian's `mate-backgrounds` (nature) and the two that scikit-learn's wheel brings
(china.jpg, flower.jpg); the packages themselves state their licences. They are reduced to 640
pixels, as the sample's were, and none of them is one of the sample's (compared by perceptual hash).
`quality_photos.py` says where the third origin's come from.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import sklearn.datasets
from numpy.typing import NDArray
from PIL import Image

from beholder.data.augment import uniform_draws
from beholder.data.files import atomic_path, sha256_file
from beholder.data.images import read_image
from beholder.data.progress import progress
from beholder.data.sample.builder import build_sample
from beholder.data.sample.catalogue import (
    CROP_SIZE,
    CROPS_PER_PHOTO,
    PHOTO_FOLDER,
    Entry,
    crop_variants,
    cut,
    photo_names,
)
from beholder.data.sample.distortions import PRISTINE, STRENGTHS, distort
from beholder.data.sample.pseudo_mos import to_pseudo_mos
from quality_photos import ALIKE_BITS, difference_hash, third_photos, unpacked

sys.path.append(str(Path(__file__).parents[1] / "scripts"))
from make_pseudo_mos import ssimulacra2

LONGER_SIDE = 640
THIRD_SIDES = (480, 960)  # pixels of the longer side, drawn for every crop
VALIDATION = 16  # photographs of the third origin
VERSION = 1  # raised when the same photographs start to give other pictures
TABLE = "table.parquet"
Row = tuple[str, float, str]


@dataclass(frozen=True)
class Pictures:
    """Files of pictures below `root`, with pseudo-MOS [N] and the photograph of each."""

    root: Path
    keys: NDArray[np.str_]
    scores: NDArray[np.float64]
    photos: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.keys)

    def of(self, photos: Sequence[str]) -> NDArray[np.bool_]:
        return np.isin(self.photos, photos)

    def part(self, rows: NDArray[np.bool_]) -> Pictures:
        return Pictures(self.root, self.keys[rows], self.scores[rows], self.photos[rows])


class Job(NamedTuple):
    """A crop to make all pictures of; `third` draws it, and takes every second level alone."""

    file: Path
    crop: int
    third: bool


def sample_pictures(cache: Path) -> Pictures:
    """The embedded sample: 13 photographs, 1300 pictures, with their committed scores."""
    built = build_sample(cache / "sample")
    frame = built.annotations.frame
    return Pictures(
        built.images, *(frame[name].to_numpy() for name in ("image", "score", "group"))
    )  # fmt: skip


def foreign_pictures(cache: Path) -> Pictures:
    """Photographs of another origin, cropped and distorted as the sample's."""
    files = foreign_photos(cache)
    refuse_known(files)
    jobs = [Job(file, crop, False) for file in files for crop in range(CROPS_PER_PHOTO)]
    return distorted(cache, "foreign", jobs)


def third_pictures(cache: Path, scenes: int) -> Pictures:
    """Photographs of a third origin: `scenes` crops of each, at random sizes and places."""
    known = [*(PHOTO_FOLDER / f"{name}.jpg" for name in photo_names()), *foreign_photos(cache)]
    files = third_photos(cache, known)
    return distorted(
        cache, "third", [Job(f, scene, True) for scene in range(scenes) for f in files]
    )


def validation_photos(third: Pictures) -> list[str]:
    """Which photographs of the third origin choose settings: by the hash of their names."""
    names = sorted(set(third.photos.tolist()), key=lambda n: hashlib.sha256(n.encode()).digest())
    return names[:VALIDATION]


def foreign_photos(cache: Path) -> list[Path]:
    nature = unpacked("mate-backgrounds", cache / "packages").rglob("nature/*.jpg")
    sample_photos = (Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg")
    return [*sorted(nature), *sorted(sample_photos)]


def refuse_known(files: Sequence[Path]) -> None:
    """Make sure that no photograph is one of the sample's."""
    known = {
        name: difference_hash(read_image(PHOTO_FOLDER / f"{name}.jpg")) for name in photo_names()
    }
    for file in files:
        look = difference_hash(read_image(file))
        for name, other in known.items():
            assert look is not None and other is not None, "no photograph here is flat"
            assert (look ^ other).bit_count() > ALIKE_BITS, f"{file.name} is the sample's {name}"


def distorted(cache: Path, name: str, jobs: Sequence[Job]) -> Pictures:
    """The pictures of all jobs with their scores, made where the cache does not hold those of the
    very same photographs, crops and distortions."""
    folder = cache / f"{name}-{fingerprint(jobs)[:12]}"
    if not (folder / TABLE).is_file():
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            work = [(job, temporary) for job in jobs]
            parts = progress(_rows_of(work), f"{name} pictures", len(jobs), "crops")
            rows = [row for part in parts for row in part]
            frame = pl.DataFrame(rows, schema=["image", "score", "photo"], orient="row")
            frame.write_parquet(temporary / TABLE)
    frame = pl.read_parquet(folder / TABLE)
    return Pictures(folder, *(frame[column].to_numpy() for column in frame.columns))


def fingerprint(jobs: Sequence[Job]) -> str:
    """SHA-256 of what decides the pictures, in hex."""
    contents = {file: sha256_file(file) for file in {job.file for job in jobs}}
    crops = [(job.file.stem, contents[job.file], job.crop, job.third) for job in jobs]
    described = [VERSION, STRENGTHS, LONGER_SIDE, THIRD_SIDES, crops]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _rows_of(work: Sequence[tuple[Job, Path]]) -> Iterator[list[Row]]:
    """The rows of every job, by as many processes as threads are allowed, or one per core."""
    processes = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    if processes == 1:
        yield from map(_make, work)
        return
    with get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(_make, work)


def _make(work: tuple[Job, Path]) -> list[Row]:
    """Key, pseudo-MOS and photograph of each picture of a crop, whose files it writes."""
    job, root = work
    photo, image = job.file.stem, read_image(job.file)
    if job.third:
        pristine = drawn_crop(image, photo, job.crop)
        entries = every_second_level(crop_variants(f"third-{photo}", job.crop))
    else:
        pristine = cut(_reduced(image, min(1.0, LONGER_SIDE / max(image.size))), job.crop)
        entries = crop_variants(f"foreign-{photo}", job.crop)
    pictures = [distort(pristine, entry.kind, entry.level, seed=entry.seed) for entry in entries]
    rows = []
    for entry, picture in zip(entries, pictures, strict=True):
        score = 100.0 if entry.kind == PRISTINE else ssimulacra2(picture, pictures[0])
        key = f"{photo}/{job.crop}/{entry.kind}-{entry.level}.webp"
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        picture.save(root / key, lossless=True, quality=0, method=0)
        rows.append((key, to_pseudo_mos(score), photo))
    return rows


def drawn_crop(image: Image.Image, photo: str, scene: int) -> Image.Image:
    """A part of the photograph, reduced to a random size; equal arguments give equal pixels."""
    draws = uniform_draws(0, scene, photo, "third", 3)
    longest = max(image.size)
    high = min(longest, THIRD_SIDES[1])
    # rounding may take a pixel from the shorter side
    low = min(high, max(THIRD_SIDES[0], (CROP_SIZE + 2) * longest / min(image.size)))
    image = _reduced(image, low * (high / low) ** draws[0] / longest)
    left = int(draws[1] * (image.width - CROP_SIZE + 1))
    top = int(draws[2] * (image.height - CROP_SIZE + 1))
    return image.crop((left, top, left + CROP_SIZE, top + CROP_SIZE))


def every_second_level(entries: Sequence[Entry]) -> list[Entry]:
    """The pristine crop, and of each kind two of the four levels, from crop to crop in turn."""
    return [e for e in entries if e.kind == PRISTINE or e.level % 2 == (e.crop + 1) % 2]


def _reduced(image: Image.Image, factor: float) -> Image.Image:
    if factor >= 1.0:
        return image
    size = (round(image.width * factor), round(image.height * factor))
    return image.resize(size, Image.Resampling.LANCZOS)
