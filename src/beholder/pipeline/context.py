"""What a stage is given to work with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from beholder.data.annotations import AnnotationTable
from beholder.pipeline.data import RunData
from beholder.pipeline.manifest import Manifest, StageRecord
from beholder.pipeline.schema import RecipeOutline

if TYPE_CHECKING:
    from beholder.training.loader import BatchSource


@dataclass
class RunContext:
    """The recipe, its data, and what the stages before have made.

    What decides how a network is built (vocabulary, classes, range of scores) is taken from the
    whole table, `data.table`; what is worked on is asked for as `rows`.

    `live` keeps things that are costly to build and shared by stages in one process, such as the
    backbone with its weights. With `verify` every file of an output is read before a stage counts
    as done; `verified` names those that were.
    """

    folder: Path
    recipe: RecipeOutline
    data: RunData
    manifest: Manifest
    live: dict[str, Any] = field(default_factory=dict)
    verify: bool = False
    verified: set[str] = field(default_factory=set)
    _rows: dict[str, AnnotationTable] = field(default_factory=dict, init=False, repr=False)

    @property
    def has_to_be_good(self) -> bool:
        """Whether what is made is worth comparing with what it was made from."""
        return True

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Lowest and highest score that there is: of the scale that the recipe tells, or of the
        whole table; None: it has no scores."""
        scores = self.data.table.frame["score"].drop_nulls()
        if scores.is_empty():
            return None
        return self.recipe.data.scale or (float(scores.min()), float(scores.max()))  # type: ignore[arg-type]

    def output(self, stage: str, name: str) -> Path:
        """Where an output of a finished stage is."""
        return self.folder / self.record(stage).outputs[name].path

    def record(self, stage: str) -> StageRecord:
        """What the manifest says of a finished stage."""
        record = self.manifest.find(stage)
        assert record is not None, f"stage {stage} has not run"
        return record

    def rows(self, split: str) -> AnnotationTable:
        """The rows of a split; of a table that has not been divided yet all that may be of it."""
        if split not in self._rows:
            table = self.data.table
            may_be = (pl.col("split") == split) | pl.col("split").is_null()
            self._rows[split] = (
                self.chosen(table.subset(split))
                if self.data.is_divided
                else table.with_frame(table.frame.filter(may_be))
            )
        return self._rows[split]

    def chosen(self, table: AnnotationTable) -> AnnotationTable:
        """Those of some rows that are worked on: all of them."""
        return table

    def full_sized(self, source: BatchSource, rows: int) -> BatchSource:
        """A source of as many rows as a step of a training has, if the table has so many."""
        return source


class RepeatedSource:
    """The rows of another source over and over.

    Args:
        source: any `training.loader.BatchSource`.
        rows: how many there are to be.
    """

    def __init__(self, source: BatchSource, rows: int) -> None:
        self.source = source
        self.rows = rows

    @property
    def keys(self) -> list[str]:
        """The image keys, in index order."""
        keys = self.source.keys
        return [keys[row % len(keys)] for row in range(self.rows)]

    def __len__(self) -> int:
        return self.rows

    def load(self, indices: Sequence[int], epoch: int) -> dict[str, Any]:
        """A batch of the rows that stand behind the indices."""
        return self.source.load([index % len(self.source) for index in indices], epoch)

    def balanced_shares(self) -> NDArray[np.float64]:
        """As of the source, so that they sum to 1."""
        shares = self.source.balanced_shares()[np.arange(self.rows) % len(self.source)]
        balanced: NDArray[np.float64] = shares / shares.sum()
        return balanced


@dataclass
class SmokeContext(RunContext):
    """What a stage is given in a smoke run: a folder that goes away, and a few rows."""

    keys: Collection[str] = ()

    @property
    def has_to_be_good(self) -> bool:
        """Nothing is: it was trained for a few steps."""
        return False

    def chosen(self, table: AnnotationTable) -> AnnotationTable:
        """Those of the few rows of the smoke run."""
        few = table.frame.filter(pl.col("image").is_in(list(self.keys)))
        return table.with_frame(few)

    def full_sized(self, source: BatchSource, rows: int) -> BatchSource:
        """The few rows over and over, so that a step is as large as it will be."""
        return RepeatedSource(source, rows)
