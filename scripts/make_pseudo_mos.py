"""Recompute the sample's table of pseudo-MOS: SSIMULACRA2 of each picture against its crop.

    python scripts/make_pseudo_mos.py

Needs the `dev` extra (ssimulacra2). About 2 minutes on two cores. Run it after any change of the
crops, the distortions or their strengths; the builder refuses pictures that don't fit the table.
"""

from __future__ import annotations

import os
from io import BytesIO
from multiprocessing import get_context

import polars as pl
from PIL import Image
from ssimulacra2 import compute_ssimulacra2

from beholder.data.files import atomic_path
from beholder.data.progress import progress
from beholder.data.sample.builder import render_crop
from beholder.data.sample.catalogue import CROPS_PER_PHOTO, photo_names
from beholder.data.sample.distortions import PRISTINE
from beholder.data.sample.pseudo_mos import COLUMNS, TABLE, Signature, to_pseudo_mos
from beholder.data.sample.traits import measure

Row = tuple[str, float, float, float, float, float]


def ssimulacra2(picture: Image.Image, pristine: Image.Image) -> float:
    """SSIMULACRA2 (100: no difference) of two RGB pictures of one size."""
    files = []
    for image in (pristine, picture):
        buffer = BytesIO()
        image.save(buffer, "BMP")
        buffer.seek(0)
        files.append(buffer)
    return float(compute_ssimulacra2(*files))


def score_crop(job: tuple[str, int]) -> list[Row]:
    """The rows of one crop of one photo."""
    pictures = render_crop(*job)
    pristine = pictures[0][1]
    rows = []
    for entry, picture in pictures:
        score = 100.0 if entry.kind == PRISTINE else round(ssimulacra2(picture, pristine), 3)
        signature = Signature.of(picture, pristine, measure(picture))
        rows.append(
            (
                entry.key,
                score,
                round(to_pseudo_mos(score), 4),
                round(signature.luminance, 2),
                round(signature.detail, 2),
                round(signature.deviation, 3),
            )
        )
    return rows


def main() -> None:
    jobs = [(photo, crop) for photo in photo_names() for crop in range(CROPS_PER_PHOTO)]
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        done = progress(pool.imap(score_crop, jobs), "SSIMULACRA2", total=len(jobs), unit="crops")
        rows = [row for part in done for row in part]
    with atomic_path(TABLE) as temporary:
        pl.DataFrame(rows, schema=list(COLUMNS), orient="row").write_csv(temporary)
    print(f"{TABLE}: {len(rows)} rows, {TABLE.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
