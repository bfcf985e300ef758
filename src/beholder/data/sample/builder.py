"""Builds the embedded sample: pictures and their annotation table, in one folder.

    sample = build_sample("runs/demo/sample")
    sample.annotations, sample.images

All scores are pseudo-MOS and all comments come from a grammar: see `docs/sample.md`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from beholder.data.annotations import AnnotationTable
from beholder.data.files import atomic_path, sha256_file, write_json
from beholder.data.images import read_image
from beholder.data.progress import progress
from beholder.data.sample import grammar, phrases
from beholder.data.sample.catalogue import (
    CROPS_PER_PHOTO,
    PHOTO_FOLDER,
    Entry,
    catalogue,
    crop_variants,
    cut,
    split_of,
)
from beholder.data.sample.distortions import KINDS, PRISTINE, distort
from beholder.data.sample.pseudo_mos import TABLE, Signature, read_table
from beholder.data.sample.traits import BRIGHTNESS, COLOURFULNESS, measure
from beholder.errors import DataError, OutputError, Problem

VERSION = 1  # of what is built; raised when the same photos, table and phrases give another sample
ANNOTATIONS, IMAGES, STAMP = "annotations.parquet", "images", "sample.json"
CLASSES = {
    "distortion": (PRISTINE, *KINDS),
    "brightness": BRIGHTNESS,
    "colourfulness": COLOURFULNESS,
}


class Sample(NamedTuple):
    """A built sample: its table, and the folder that the table's image keys are relative to."""

    annotations: AnnotationTable
    images: Path


class _Built(NamedTuple):
    """What a worker returns of one picture."""

    key: str
    photo: str
    labels: tuple[str, str, str]
    comments: list[str]
    signature: Signature


def build_sample(
    folder: str | Path, *, photos: Sequence[str] | None = None, workers: int | None = None
) -> Sample:
    """Build the sample in `folder`, or return it if it is already there, whole and of this version.

    The folder appears complete or not at all, and is the same for any number of workers.

    Args:
        folder: gets `images/<photo>/<crop>/<distortion>-<level>.webp` (lossless),
            `annotations.parquet` and `sample.json`.
        photos: only these (see `catalogue.photo_names`); by default all 13, 1300 pictures.
        workers: processes; by default one per core.

    Raises:
        DataError: a photo is unknown, or pictures don't fit the table of pseudo-MOS because an
            encoder or the installed Pillow works differently.
        OutputError: `folder` holds something else, or can't be written.
    """
    folder = Path(folder)
    entries = catalogue(photos)
    stamp = _stamp(entries)
    if _is_built(folder, stamp):
        return Sample(AnnotationTable.from_parquet(folder / ANNOTATIONS), folder / IMAGES)
    if folder.exists() and not (folder / STAMP).is_file() and any(folder.iterdir()):
        raise OutputError(
            "The folder is not empty and holds no sample.",
            where=str(folder),
            fix="Choose a new or empty folder.",
        )
    with atomic_path(folder) as temporary:
        built = list(_build_pictures(entries, temporary / IMAGES, workers or os.cpu_count() or 1))
        check_signatures({item.key: item.signature for item in built})
        table = _annotate(built)
        table.to_parquet(temporary / ANNOTATIONS)
        write_json(temporary / STAMP, stamp)
    return Sample(table, folder / IMAGES)


def render_crop(photo: str, crop: int) -> list[tuple[Entry, Image.Image]]:
    """The pictures of one crop of a photo, the pristine one first."""
    pristine = cut(read_image(PHOTO_FOLDER / f"{photo}.jpg"), crop)
    return [
        (entry, distort(pristine, entry.kind, entry.level, seed=entry.seed))
        for entry in crop_variants(photo, crop)
    ]


def check_signatures(signatures: dict[str, Signature]) -> None:
    """Refuse pictures that are not those that the table of pseudo-MOS scores.

    Raises:
        DataError: with every picture that doesn't fit its row.
    """
    table = read_table()
    problems = []
    for key, signature in signatures.items():
        expected = table[key].signature
        if not expected.fits(signature):
            message = f"expected {expected}; made {signature}"
            problems.append(Problem("error", "sample", message, file=TABLE.name, key=key))
    if problems:
        raise DataError(
            f"{len(problems)} of {len(signatures)} pictures of the sample don't fit the table of "
            "pseudo-MOS: an encoder of the installed Pillow works differently.",
            fix="Install a released Pillow wheel, or recompute the table with "
            "scripts/make_pseudo_mos.py.",
            problems=problems,
        )


def _build_pictures(entries: Sequence[Entry], images: Path, workers: int) -> Iterator[_Built]:
    jobs = [
        (photo, crop, images)
        for photo in dict.fromkeys(entry.photo for entry in entries)
        for crop in range(CROPS_PER_PHOTO)
    ]
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
        parts = pool.map(_build_crop, jobs)
        for part in progress(parts, "building the sample", total=len(jobs), unit="crops"):
            yield from part


def _build_crop(job: tuple[str, int, Path]) -> list[_Built]:
    photo, crop, images = job
    pictures = render_crop(photo, crop)
    pristine = pictures[0][1]
    scores = read_table()
    built = []
    for entry, picture in pictures:
        path = images / entry.key
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, "WEBP", lossless=True, quality=0, method=0)
        traits = measure(picture)
        built.append(
            _Built(
                entry.key,
                photo,
                (entry.kind, traits.brightness_label, traits.colourfulness_label),
                grammar.comments(entry, traits, scores[entry.key].pseudo_mos),
                Signature.of(picture, pristine, traits),
            )
        )
    return built


def _annotate(built: Sequence[_Built]) -> AnnotationTable:
    scores = read_table()
    return AnnotationTable.from_columns(
        [item.key for item in built],
        score=[scores[item.key].pseudo_mos for item in built],
        comments=[item.comments for item in built],
        split=[split_of(item.photo) for item in built],
        group=[item.photo for item in built],
        attributes={
            name: [item.labels[index] for item in built] for index, name in enumerate(CLASSES)
        },
        classes=CLASSES,
    )


def _stamp(entries: Sequence[Entry]) -> dict[str, object]:
    """What the sample is a function of; a folder with another stamp is built anew."""
    photos = dict.fromkeys(entry.photo for entry in entries)
    return {
        "version": VERSION,
        "scores": "pseudo-MOS: SSIMULACRA2 mapped onto 1 (bad) to 5 (excellent)",
        "pictures": len(entries),
        "table": sha256_file(TABLE),
        "phrases": sha256_file(phrases.__file__),
        "photos": {name: sha256_file(PHOTO_FOLDER / f"{name}.jpg") for name in photos},
    }


def _is_built(folder: Path, stamp: dict[str, object]) -> bool:
    """Whether `folder` holds the sample of this stamp with all of its pictures."""
    try:
        present = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if present != stamp or not (folder / ANNOTATIONS).is_file():
        return False
    table = AnnotationTable.from_parquet(folder / ANNOTATIONS)
    return all((folder / IMAGES / key).is_file() for key in table.keys)
