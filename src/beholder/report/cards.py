"""Pictures with what was said of them, for the page."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from beholder.data.images import read_image, resolve_key
from beholder.errors import PictureError
from beholder.evaluation.predictions import TARGET
from beholder.judge.row import LABEL, PROBABILITY
from beholder.report.collect import ReportData

THUMBNAIL = 320


def picture_cards(data: ReportData, frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows of predictions: values, thumbnail, and each attribute with its target."""
    root = image_root(data)
    cards = []
    for row in frame.to_dicts():
        names = [c.removeprefix(LABEL) for c in row if c.startswith(LABEL)]
        row["thumbnail"] = thumbnail(root, row["image"])
        for column in ("unfamiliar", "distribution"):
            row.setdefault(column, None)  # evaluations of earlier versions have none
        row["opinions"] = [
            {
                "name": name,
                "label": row[LABEL + name],
                "probability": row[PROBABILITY + name],
                "target": row.get(TARGET + LABEL + name),
            }
            for name in names
        ]
        cards.append(row)
    return cards


def image_root(data: ReportData) -> Path:
    """Where the evaluated pictures are."""
    return Path((data.metrics or {})["image_root"])


@lru_cache(maxsize=256)
def thumbnail(root: Path, key: str) -> str:
    """A small picture as a data URI; empty when the picture can't be read any more."""
    try:
        image = read_image(resolve_key(root, key), at_least=THUMBNAIL)
    except PictureError:
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=82)
    return as_uri(buffer.getvalue())


def as_uri(content: bytes) -> str:
    """A WebP picture for the page."""
    return "data:image/webp;base64," + base64.b64encode(content).decode()
