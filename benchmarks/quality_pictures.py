"""The pictures of `quality.py`: the sample's, further ones of the same photographs, and photographs
of another origin, all distorted by the sample's own distortions.

Scores are pseudo-MOS (SSIMULACRA2 against the undistorted crop, docs/sample.md); nobody rated any
of these pictures. Photographs of another origin are fetched by package name and never kept in the
repository: twelve of Debian's `mate-backgrounds` (nature) and the two that scikit-learn's wheel
brings (china.jpg, flower.jpg); the packages themselves state their licences. They are reduced to
640 pixels, as the
sample's were, and none of them is one of the sample's (compared by perceptual hash).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import sklearn.datasets
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from beholder.data.augment import uniform_draws
from beholder.data.files import atomic_path
from beholder.data.fingerprints import difference_hash
from beholder.data.images import read_image
from beholder.data.sample.catalogue import (
    CROP_SIZE,
    CROPS_PER_PHOTO,
    PHOTO_FOLDER,
    catalogue,
    crop_variants,
    cut,
    photo_names,
)
from beholder.data.sample.distortions import PRISTINE, distort
from beholder.data.sample.pseudo_mos import read_table, to_pseudo_mos

sys.path.append(str(Path(__file__).parents[1] / "scripts"))
from make_pseudo_mos import ssimulacra2

LONGER_SIDE = 640
ALIKE_BITS = 10  # of 64; two pictures of one photograph differ in fewer


@dataclass(frozen=True)
class Pictures:
    """Pixels uint8 [N, 256, 256, 3], pseudo-MOS [N], and the photograph of each."""

    pixels: NDArray[np.uint8]
    scores: NDArray[np.float64]
    photos: NDArray[np.str_]

    def of(self, photos: Sequence[str]) -> NDArray[np.bool_]:
        return np.isin(self.photos, photos)


def cached(path: Path, make: Callable[[], Pictures]) -> Pictures:
    """What `make` gives, kept in a file."""
    if not path.exists():
        made = make()
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, pixels=made.pixels, scores=made.scores, photos=made.photos)
    with np.load(path) as found:
        return Pictures(found["pixels"], found["scores"], found["photos"])


def sample_pictures() -> Pictures:
    """The embedded sample: 13 photographs, 1300 pictures, with their committed scores."""
    table = read_table()
    crops = [(photo, crop) for photo in photo_names() for crop in range(CROPS_PER_PHOTO)]
    with get_context("spawn").Pool() as pool:
        pixels = pool.starmap(_sample_crop, crops)
    entries = catalogue()
    return Pictures(
        np.concatenate(pixels),
        np.array([table[entry.key].pseudo_mos for entry in entries]),
        np.array([entry.photo for entry in entries]),
    )


def _sample_crop(photo: str, crop: int) -> NDArray[np.uint8]:
    pristine = cut(read_image(PHOTO_FOLDER / f"{photo}.jpg"), crop)
    return _distorted(pristine, crop_variants(photo, crop))


def _distorted(pristine: Image.Image, entries: Sequence[object]) -> NDArray[np.uint8]:
    made = [distort(pristine, e.kind, e.level, seed=e.seed) for e in entries]  # type: ignore[attr-defined]
    return np.stack([np.asarray(picture) for picture in made])


def further_pictures(scenes: int) -> Pictures:
    """More pictures of the sample's photographs: other crops, also of the photograph reduced,
    mirrored, and with another brightness, saturation and contrast before it is distorted."""
    jobs = [(photo, scene) for photo in photo_names() for scene in range(scenes)]
    with get_context("spawn").Pool() as pool:
        parts = pool.starmap(_scene, jobs)
    return _together(parts, [photo for photo, _ in jobs])


def _scene(photo: str, scene: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    draws = uniform_draws(0, scene, photo, "scene", 8)
    image = read_image(PHOTO_FOLDER / f"{photo}.jpg")
    smallest = (CROP_SIZE + 2) / min(image.size)
    if scene % 3:
        image = _reduced(image, smallest ** draws[0])
    left = int(draws[1] * (image.width - CROP_SIZE + 1))
    top = int(draws[2] * (image.height - CROP_SIZE + 1))
    image = image.crop((left, top, left + CROP_SIZE, top + CROP_SIZE))
    if draws[3] < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if scene % 2:
        gamma = np.exp(0.8 * draws[4] - 0.4)
        image = image.point([round(255 * (level / 255) ** gamma) for level in range(256)] * 3)
        image = ImageEnhance.Color(image).enhance(0.5 + 0.9 * draws[5])
        image = ImageEnhance.Contrast(image).enhance(1.0 + 0.25 * draws[6])
    return _scored(image, f"{photo}+{scene}", 0)


def foreign_pictures() -> Pictures:
    """Photographs of another origin, cropped and distorted as the sample's."""
    with tempfile.TemporaryDirectory() as folder:
        files = [*_mate_backgrounds(Path(folder)), *_scikit_learn()]
        _refuse_known(files)
        jobs = [(file, crop) for file in files for crop in range(CROPS_PER_PHOTO)]
        with get_context("spawn").Pool() as pool:
            parts = pool.starmap(_foreign_crop, jobs)
    return _together(parts, [file.stem for file, _ in jobs])


def _foreign_crop(file: Path, crop: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    image = read_image(file)
    pristine = cut(_reduced(image, min(1.0, LONGER_SIDE / max(image.size))), crop)
    return _scored(pristine, f"foreign-{file.stem}", crop)


def _scored(
    pristine: Image.Image, name: str, crop: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    entries = crop_variants(name, crop)
    pixels = _distorted(pristine, entries)
    said = [
        100.0 if entry.kind == PRISTINE else ssimulacra2(Image.fromarray(picture), pristine)
        for entry, picture in zip(entries, pixels, strict=True)
    ]
    return pixels, np.array([to_pseudo_mos(score) for score in said])


def _together(
    parts: Sequence[tuple[NDArray[np.uint8], NDArray[np.float64]]], photos: Sequence[str]
) -> Pictures:
    counts = [len(scores) for _, scores in parts]
    return Pictures(
        np.concatenate([pixels for pixels, _ in parts]),
        np.concatenate([scores for _, scores in parts]),
        np.repeat(np.array(photos), counts),
    )


def _reduced(image: Image.Image, factor: float) -> Image.Image:
    if factor >= 1.0:
        return image
    size = (round(image.width * factor), round(image.height * factor))
    return image.resize(size, Image.Resampling.LANCZOS)


def _mate_backgrounds(folder: Path) -> list[Path]:
    """The nature photographs of Debian's package, unpacked in `folder` and not installed."""
    for command in (["apt-get", "download", "mate-backgrounds"], ["sh", "-c", "dpkg -x *.deb ."]):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"mate-backgrounds can't be fetched (apt-get update first?): {done.stderr}")
    return sorted(folder.rglob("nature/*.jpg"))


def _scikit_learn() -> list[Path]:
    return sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))


def _refuse_known(files: Sequence[Path]) -> None:
    """Make sure that no photograph is one of the sample's."""
    known = {
        name: difference_hash(read_image(PHOTO_FOLDER / f"{name}.jpg")) for name in photo_names()
    }
    for file in files:
        look = difference_hash(read_image(file))
        for name, other in known.items():
            assert look is not None and other is not None, "no photograph here is flat"
            assert (look ^ other).bit_count() > ALIKE_BITS, f"{file.name} is the sample's {name}"
