"""What a judge's training pictures look like to its backbone: for `assemble`."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from beholder.data.annotations import AnnotationTable
from beholder.errors import DataError
from beholder.features import device as devices
from beholder.features.store import FeatureStore
from beholder.metrics.familiarity import FEWEST_PICTURES, Familiarity, fit_familiarity
from beholder.pipeline.context import RunContext
from beholder.pipeline.schema import RecipeOutline
from beholder.pipeline.stages.extract import ExtractStage
from beholder.pipeline.stages.train import TrainStage

if TYPE_CHECKING:
    from beholder.features.backbones import Backbone

log = logging.getLogger("beholder")

MOST_PICTURES = 2000  # of each split: more add seconds and little else


def learn_familiarity(
    context: RunContext, heads: list[str], backbone: Backbone
) -> Familiarity | None:
    """Fit a judge's familiarity to its training pictures.

    Features come from the store that a head was trained on, or from a look at the pictures. A
    backbone that was trained on these pictures knows them better than any others: distances are
    then compared with those of the validation pictures, if they are enough. Those of a frozen
    backbone are compared by leaving out a tenth of the groups at a time, of both splits.

    Args:
        heads: the train stages whose heads the judge has.
        backbone: the judge's.

    Returns:
        None, and why in the log, where there are too few pictures.
    """
    train, val = (_some(context.rows(split)) for split in ("train", "val"))
    keys, pooled_NP = _pooled(context, heads, backbone, train, val)
    is_val = np.isin(keys, val.keys)
    groups = np.array([context.data.units.get(key, key) for key in keys])
    tuned = any(context.recipe.stages[name].trains_backbone for name in heads)
    try:
        if tuned and is_val.sum() >= FEWEST_PICTURES:
            return fit_familiarity(
                pooled_NP[~is_val], groups[~is_val].tolist(),
                pooled_NP[is_val], groups[is_val].tolist(),
            )  # fmt: skip
        return fit_familiarity(pooled_NP, groups.tolist())
    except DataError as error:
        if context.has_to_be_good:
            log.warning("The judge will not know what is unfamiliar to it: %s", error.what)
        return None


def looks(context: RunContext, heads: list[str]) -> int:
    """How many pictures `learn_familiarity` must look at itself."""
    if _extracted(context.recipe, heads) is not None:
        return 0
    return sum(min(len(context.rows(split)), MOST_PICTURES) for split in ("train", "val"))


def _some(table: AnnotationTable) -> AnnotationTable:
    """At most `MOST_PICTURES` rows, by the hash of their keys."""
    if len(table) <= MOST_PICTURES:
        return table
    keys = sorted(table.keys, key=lambda key: hashlib.sha256(key.encode()).digest())
    chosen = keys[:MOST_PICTURES]
    return table.with_frame(table.frame.filter(pl.col("image").is_in(chosen)))


def _extracted(recipe: RecipeOutline, heads: list[str]) -> str | None:
    """The extract stage whose features a head was trained on, as the judge sees pictures."""
    for name in heads:
        stage = recipe.stages[name]
        assert isinstance(stage, TrainStage), "the recipe has made sure of it"
        if stage.features is not None:
            source = recipe.stages[stage.features]
            assert isinstance(source, ExtractStage), "the recipe has made sure of it"
            if not source.flip:
                return stage.features
    return None


def _pooled(
    context: RunContext,
    heads: list[str],
    backbone: Backbone,
    train: AnnotationTable,
    val: AnnotationTable,
) -> tuple[list[str], NDArray[np.float32]]:
    """Keys and pooled features [N, P] of both splits' usable pictures."""
    from beholder.features.extract import extract

    extracted = _extracted(context.recipe, heads)
    table = train.with_frame(
        pl.concat([train.frame, val.frame]).unique("image", maintain_order=True)
    )
    with tempfile.TemporaryDirectory(prefix="beholder-familiarity-") as temporary:
        folder = Path(temporary) / "store"
        if extracted is not None:
            folder = context.output(extracted, "store")
        else:
            extract(
                backbone, table, context.data.root, folder, dtype="float32", tokens=False,
                amp="off", device=devices.choose_device(),
            )  # fmt: skip
        store = FeatureStore.open(folder)
        keys = [key for key in table.keys if key in store]
        _, pooled_NP = store.read(keys, tokens=False)
    return keys, pooled_NP
