"""The starter's pictures and their table: photographs, spoilt in known ways, with pseudo-MOS.

Nobody rated these pictures. A pseudo-MOS is the mean of two full-reference metrics on the scale of
five grades: SSIMULACRA2 as in docs/sample.md, and HaarPSI (R. Reisenhofer et al., "A Haar
wavelet-based perceptual similarity index for image quality assessment", 2018), brought to that
scale by the monotone curve that fits best. What they disagree by is the score's spread in the
table. Of one distortion of one crop the stronger level never has the better score: that needs no
metric.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from distortions import FAMILIES, KINDS, LEVELS, distort_by_all
from PIL import Image
from sentences import comment
from sklearn.isotonic import IsotonicRegression

from beholder.data.augment import generator_of
from beholder.data.files import atomic_path, sha256_file
from beholder.data.images import read_image
from beholder.data.progress import progress
from beholder.data.sample.pseudo_mos import to_pseudo_mos

sys.path.append(str(Path(__file__).parents[1] / "scripts"))
from make_pseudo_mos import ssimulacra2

SIDE = 192  # pixels of a picture
LONGER_SIDES = (320, 1280)  # to which a photograph is reduced before a crop is cut, drawn per crop
SINGLES, STRONGER, MIXTURES = 5, 2, 3  # pictures of a crop beside the pristine one
VISIBLE, SEVERE = 2, 4  # levels from which a fault is called one, and a severe one
VERSION = 1  # raised when the same photographs start to give other pictures

Steps = tuple[tuple[str, int], ...]
"""Kinds and levels of the distortions of a picture."""


class Crop(NamedTuple):
    file: Path
    number: int


def make_pictures(crops: Sequence[Crop], cache: Path, name: str) -> tuple[pl.DataFrame, Path]:
    """What the metrics say of every picture of the crops, and the folder of the files; they are
    made where the cache does not hold them."""
    contents = {crop.file: sha256_file(crop.file) for crop in crops}
    wanted = [
        VERSION, SIDE, LONGER_SIDES, SINGLES, STRONGER, MIXTURES,
        [[kind, *KINDS[kind].strengths] for kind in KINDS],
        [[crop.file.stem, contents[crop.file], crop.number] for crop in crops],
    ]  # fmt: skip
    folder = cache / f"{name}-{hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        with atomic_path(folder) as part:
            part.mkdir()
            rows = [
                row
                for made in progress(_made(crops, part), f"{name} pictures", len(crops), "crops")
                for row in made
            ]
            schema = ["image", "photo", "steps", "ssimulacra2", "haarpsi"]
            pl.DataFrame(rows, schema=schema, orient="row").write_parquet(part / "metrics.parquet")
    return pl.read_parquet(folder / "metrics.parquet"), folder


def _made(
    crops: Sequence[Crop], folder: Path
) -> Iterator[list[tuple[str, str, str, float, float]]]:
    processes = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    with get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(_spoil, [(crop, folder) for crop in crops])


def _spoil(work: tuple[Crop, Path]) -> list[tuple[str, str, str, float, float]]:
    """Key, photograph, distortions and both metrics of the pictures of a crop, whose files it
    writes."""
    crop, folder = work
    photo = crop.file.stem
    pristine = cut(read_image(crop.file), photo, crop.number)
    rows = []
    for number, steps in enumerate(recipes_of(photo, crop.number)):
        picture = distort_by_all(pristine, steps, f"{photo}/{crop.number}")
        key = f"{photo}/{crop.number}-{number:02}.webp"
        (folder / key).parent.mkdir(exist_ok=True)
        picture.save(folder / key, lossless=True, quality=0, method=0)
        metrics = (ssimulacra2(picture, pristine), haarpsi(picture, pristine))
        rows.append((key, photo, json.dumps(steps), *(metrics if steps else (100.0, 1.0))))
    return rows


def haarpsi(picture: Image.Image, pristine: Image.Image) -> float:
    """HaarPSI (1: no difference) of two RGB pictures of one size."""
    import piq
    import torch

    torch.set_num_threads(1)
    tensors = [
        torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255.0
        for image in (picture, pristine)
    ]
    return float(piq.haarpsi(*tensors))


def cut(image: Image.Image, photo: str, number: int) -> Image.Image:
    """A part of a photograph, reduced to a random size; equal arguments give equal pixels."""
    chance = generator_of(0, number, photo, "cut")
    longer, shorter = max(image.size), min(image.size)
    high = min(longer, LONGER_SIDES[1])
    # rounding may take a pixel from the shorter side
    low = min(high, max(LONGER_SIDES[0], (SIDE + 2) * longer / shorter))
    factor = low * (high / low) ** chance.random() / longer
    if factor < 1.0:
        size = (round(image.width * factor), round(image.height * factor))
        image = image.resize(size, Image.Resampling.LANCZOS)
    left = int(chance.integers(image.width - SIDE + 1))
    top = int(chance.integers(image.height - SIDE + 1))
    return image.crop((left, top, left + SIDE, top + SIDE))


def recipes_of(photo: str, number: int) -> list[Steps]:
    """The distortions of each picture of a crop: none, single ones, some of these at a stronger or
    weaker level too, and mixtures of two or three of different families."""
    chance = generator_of(0, number, photo, "steps")
    kinds = [str(kind) for kind in chance.permutation(list(KINDS))[:SINGLES]]
    steps: list[Steps] = [()]
    for index, kind in enumerate(kinds):
        levels = chance.permutation(LEVELS)[: 2 if index < STRONGER else 1]
        steps += [((kind, int(level)),) for level in levels]
    for _ in range(MIXTURES):
        families = chance.permutation(list(FAMILIES))[: 2 + int(chance.random() < 0.4)]
        steps.append(
            tuple(
                (
                    str(chance.choice([k for k in KINDS if KINDS[k].family == family])),
                    int(chance.integers(1, 5)),
                )
                for family in families
            )
        )
    return steps


def table_of(metrics: pl.DataFrame) -> pl.DataFrame:
    """The table of opinions: pseudo-MOS with its spread, faults, a comment, photograph as group."""
    first = np.array([to_pseudo_mos(value) for value in metrics["ssimulacra2"]])
    curve = IsotonicRegression(out_of_bounds="clip").fit(metrics["haarpsi"].to_numpy(), first)
    second = curve.predict(metrics["haarpsi"].to_numpy())
    steps = [tuple((k, level) for k, level in json.loads(text)) for text in metrics["steps"]]
    crops = [key.rsplit("-", 1)[0] for key in metrics["image"]]
    scores = _ranked((first + second) / 2.0, steps, crops)
    faults = [faults_of(of_picture) for of_picture in steps]
    return pl.DataFrame(
        {
            "image": metrics["image"],
            "score": scores.round(4),
            "raters": [2] * len(scores),
            "score_std": (np.abs(first - second) / 2.0).round(4),
            "problems": [_names(of_picture, VISIBLE) for of_picture in faults],
            "severe problems": [_names(of_picture, SEVERE) for of_picture in faults],
            "comment": [
                comment(key, _severe(levels))
                for key, levels in zip(metrics["image"], faults, strict=True)
            ],
            "group": metrics["photo"],
        }
    )


def faults_of(steps: Steps) -> dict[str, int]:
    """Family -> the strongest level of its kinds, in the families' order."""
    levels = dict.fromkeys(FAMILIES, 0)
    for kind, level in steps:
        levels[KINDS[kind].family] = max(levels[KINDS[kind].family], level)
    return {family: level for family, level in levels.items() if level}


def _severe(levels: dict[str, int]) -> dict[str, bool]:
    """The visible faults, and whether each is severe."""
    return {family: level >= SEVERE for family, level in levels.items() if level >= VISIBLE}


def _names(faults: dict[str, int], least: int) -> str:
    return ";".join(family for family, level in faults.items() if level >= least) or "none"


def _ranked(scores: np.ndarray, steps: Sequence[Steps], crops: Sequence[str]) -> np.ndarray:
    """Scores that never rise with the level of one distortion of one crop."""
    rows: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row, (of_picture, crop) in enumerate(zip(steps, crops, strict=True)):
        if len(of_picture) == 1:
            ((kind, level),) = of_picture
            rows.setdefault((crop, kind), []).append((level, row))
    ranked = scores.copy()
    for levels in rows.values():
        places = [row for _, row in sorted(levels)]
        falling = IsotonicRegression(increasing=False)
        ranked[places] = falling.fit_transform(np.arange(len(places)), scores[places])
    return ranked
