"""Pieces that several kinds of stages need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import polars as pl

from beholder.data.annotations import AnnotationTable
from beholder.data.files import sha256_file
from beholder.data.images import read_image, resolve_key
from beholder.errors import CheckpointError, DataError, PictureError
from beholder.features.backbones import Backbone, create_backbone
from beholder.pipeline.context import RunContext
from beholder.pipeline.origins import backbone_of
from beholder.pipeline.stages.trained import Trained, load_trained

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


def stage_backbone(context: RunContext, stage: str) -> Backbone:
    """The backbone that a stage starts with, in evaluation mode: the recipe's, or the one that a
    train stage has tuned. In a rehearsal the recipe's stands in.

    Shared between stages: whoever trains it takes a copy.

    Raises:
        CheckpointError: the tuned weights are not those that the manifest records.
    """
    origin = backbone_of(context.recipe, stage)
    if origin is None or context.rehearsing:
        return recipe_backbone(context)
    record = context.manifest.find(origin)
    assert record is not None, f"stage {origin} has not run"

    def build() -> Backbone:
        backbone = create_backbone(context.recipe.backbone, load_weights=False)
        backbone.load_state_dict(trained_by(context, origin).part("backbone."), strict=True)
        return backbone.eval()

    return once(context, f"backbone {record.outputs_hash()}", build)


def stage_fingerprint(context: RunContext, stage: str) -> str:
    """The fingerprint of `stage_backbone`, computed once per backbone."""
    backbone = stage_backbone(context, stage)
    return once(context, f"fingerprint {id(backbone)}", backbone.fingerprint)


def trained_by(context: RunContext, stage: str) -> Trained:
    """What a train stage has left, after it has been found to be what the manifest records.

    Raises:
        CheckpointError: the file has changed, or is of another run.
    """
    record = context.manifest.find(stage)
    assert record is not None, f"stage {stage} has not run"
    weights = context.output(stage, "model")
    if sha256_file(weights) != record.outputs["model"].sha256:
        raise CheckpointError(
            f"The weights are not those that stage {stage!r} has written.",
            where=str(weights),
            fix="Put the file back, or delete it: the stage will run again.",
        )
    return load_trained(weights.parent)


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
