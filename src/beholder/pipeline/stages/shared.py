"""Pieces that several kinds of stages need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import polars as pl

from beholder.data.annotations import AnnotationTable
from beholder.data.images import read_image, resolve_key
from beholder.errors import DataError, PictureError
from beholder.features.backbones import Backbone, create_backbone
from beholder.pipeline.context import RunContext

T = TypeVar("T")

QUARANTINE = "quarantine.csv"  # beside a feature store, and in the run's folder


def once(context: RunContext, name: str, build: Callable[[], T]) -> T:
    """Build something costly once per run and process."""
    if name not in context.live:
        context.live[name] = build()
    value: T = context.live[name]
    return value


def recipe_backbone(context: RunContext) -> Backbone:
    """The recipe's backbone with the weights that it names, in evaluation mode.

    Shared between stages: whoever trains it takes a copy.
    """
    return once(context, "backbone", lambda: create_backbone(context.recipe.backbone).eval())


def quarantined_keys(path: Path) -> list[str]:
    """Image keys of a `quarantine.csv`; none when there is no such file."""
    if not path.exists():
        return []
    return pl.read_csv(path, schema_overrides={"image": pl.String})["image"].to_list()


def first_readable(table: AnnotationTable, root: Path, count: int) -> AnnotationTable:
    """The first `count` rows whose pictures can be read, for a rehearsal.

    Raises:
        DataError: not one of the pictures can be read.
    """
    found: list[str] = []
    reason = ""
    for key in table.keys:
        if len(found) == count:
            break
        try:
            read_image(resolve_key(root, key))
        except PictureError as error:
            reason = reason or f"{key}: {error.what}"
        else:
            found.append(key)
    if not found:
        raise DataError(
            f"Not one of the {len(table)} pictures can be read; the first: {reason}",
            where=str(root),
            fix="Run `beholder check` to see them all.",
        )
    return AnnotationTable(table.frame.filter(pl.col("image").is_in(found)), table.classes)
