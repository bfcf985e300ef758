"""Intervals slice by slice: whether those of low scores, of a label or of large pictures hold too.

An interval that covers nine of ten pictures may still miss half of the dark ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from beholder.data.images import read_header, resolve_key
from beholder.errors import PictureError
from beholder.evaluation.predictions import TARGET
from beholder.judge.row import LABEL
from beholder.metrics.conformal import coverage, winkler

LEAST = 20  # pictures of a slice, below which its figures are chance
PARTS = 3  # of scores and sizes
MOST_LABELS = 20  # of an attribute that is sliced by


def interval_slices(
    frame: pl.DataFrame, level: float | None, root: Path | None
) -> list[dict[str, Any]]:
    """Of each slice with enough pictures: `by`, `value`, `pictures`, `covered`, `width` and
    `winkler` (None without a level).

    Args:
        frame: rows of `predictions.with_targets` that have a target score and an interval.
        root: folder of the pictures, whose sizes are read from their headers; None: no slices of
            sizes.
    """
    slices = []
    for by, value, rows in slices_of(frame, root):
        part = frame.filter(rows)
        if part.height >= LEAST:
            slices.append({"by": by, "value": value, **interval_figures(part, level)})
    return slices


def interval_figures(frame: pl.DataFrame, level: float | None) -> dict[str, Any]:
    """`pictures`, `covered`, `width` and `winkler` of rows as for `interval_slices`, at least
    one."""
    target, low, high = (frame[name].to_numpy() for name in ("target.score", "low", "high"))
    score = None if level is None else winkler(target, low, high, level)
    return {**coverage(target, low, high)._asdict(), "winkler": score}


def slices_of(frame: pl.DataFrame, root: Path | None) -> Iterator[tuple[str, str, pl.Series]]:
    """What is sliced by, the slice's name, and which rows are of it: scores in thirds, labels, and
    sizes in thirds.

    Args:
        frame, root: as for `interval_slices`.
    """
    yield from _parts("score", frame["score"], "{:.2f}", "")
    for column in frame.columns:
        if not column.startswith(TARGET + LABEL) or frame[column].dtype != pl.String:
            continue
        labels = frame[column].drop_nulls().unique().sort().to_list()
        if 1 < len(labels) <= MOST_LABELS:
            for label in labels:
                yield column.removeprefix(TARGET + LABEL), label, frame[column].eq_missing(label)
    if root is not None:
        yield from _parts("size", _megapixels(frame["image"].to_list(), root), "{:.2g}", " MP")


def _parts(
    by: str, values: pl.Series, form: str, unit: str
) -> Iterator[tuple[str, str, pl.Series]]:
    """Parts of about as many pictures, from low to high; none where all values are equal."""
    known = values.drop_nulls()
    if known.n_unique() < 2:
        return
    edges = np.unique(np.quantile(known.to_numpy(), np.linspace(0.0, 1.0, PARTS + 1)))
    if len(edges) < 3:  # nearly all values are equal
        return
    for index, (low, high) in enumerate(pairwise(edges)):
        closed: Literal["both", "left"] = "both" if index == len(edges) - 2 else "left"
        name = f"{form.format(low)} to {form.format(high)}{unit}"
        yield by, name, values.is_between(low, high, closed=closed).fill_null(False)


def _megapixels(keys: list[str], root: Path) -> pl.Series:
    sizes: list[float | None] = []
    for key in keys:
        try:
            header = read_header(resolve_key(root, key))
        except PictureError:  # it was judged before; what has happened since costs no metric
            sizes.append(None)
            continue
        sizes.append(math.prod(header.size) / 1e6)
    return pl.Series(sizes, dtype=pl.Float64)
