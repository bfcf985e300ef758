"""The table of an evaluation: each picture's verdict, in the columns of every output (`judge.row`),
beside its targets, `split` and `group`.

| column | what it holds |
| --- | --- |
| `target.score`, `target.comments` | the score and comments that the table has for the picture |
| `target.attributes.<name>` | the label that it has for an attribute; where several may hold at |
| | once all of them, `blur;noise`, or `none` |
| `cider_d` | how close the comment is to the target's, where both are there |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from beholder.data.annotations import ATTRIBUTE_PREFIX, AnnotationTable
from beholder.data.labels import labels_cell
from beholder.judge.row import LABEL, PROBABILITIES, PROBABILITY, columns_of, table_row
from beholder.judge.verdict import Verdict

TARGET = "target."
_BEFORE = {
    "score": "target.score", "predicted_score": "score", "references": "target.comments",
}  # fmt: skip


def columns_of_verdicts(
    verdicts: Sequence[Verdict], classes: Mapping[str, Sequence[str]]
) -> pl.DataFrame:
    """The verdicts alone, a row each, in their order."""
    kinds: dict[str, pl.DataType] = {
        "score": pl.Float64(), "low": pl.Float64(), "high": pl.Float64(),
        "distribution": pl.List(pl.Struct({"rating": pl.Float64(), "share": pl.Float64()})),
        "alternatives": pl.List(pl.String()),
        "familiarity": pl.Float64(), "unfamiliar": pl.Boolean(),
    }  # fmt: skip
    for name, labels in classes.items():
        kinds[PROBABILITY + name] = pl.Float64()
        kinds[PROBABILITIES + name] = pl.Struct(dict.fromkeys(labels, pl.Float64()))
    schema = {column: kinds.get(column, pl.String()) for column in columns_of(list(classes))}
    rows = [table_row(verdict, classes) for verdict in verdicts]
    return pl.DataFrame(rows, schema).drop("error")


def with_targets(
    verdicts: Sequence[Verdict], classes: Mapping[str, Sequence[str]], table: AnnotationTable
) -> pl.DataFrame:
    """One row per verdict, with the targets of its picture."""
    targets = table.frame.select(
        "image", "split", "group", pl.col("score").alias(f"{TARGET}score"),
        pl.col("comments").alias(f"{TARGET}comments"),
        *[
            _cells(table.frame[ATTRIBUTE_PREFIX + name]).alias(TARGET + LABEL + name)
            for name in table.attribute_names
        ],
    )  # fmt: skip
    frame = columns_of_verdicts(verdicts, classes)
    return frame.join(targets, on="image", how="left", maintain_order="left")


def _cells(column: pl.Series) -> pl.Series:
    """An attribute's column as text."""
    if not isinstance(column.dtype, pl.List):
        return column
    cells = [None if labels is None else labels_cell(labels) for labels in column.to_list()]
    return pl.Series(column.name, cells, dtype=pl.String)


def read_predictions(path: Path) -> pl.DataFrame:
    """The table of an evaluation; of an earlier version, with the columns' names of today."""
    frame = pl.read_parquet(path)
    if "predicted_score" not in frame.columns:
        return frame
    names = {}
    for column in frame.columns:
        if column.startswith(ATTRIBUTE_PREFIX):
            names[column] = TARGET + LABEL + column.removeprefix(ATTRIBUTE_PREFIX)
        elif column.startswith("predicted."):
            names[column] = LABEL + column.removeprefix("predicted.")
        else:
            names[column] = _BEFORE.get(column, column)
    return frame.rename(names)
