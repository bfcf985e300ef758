"""What a train stage learns beside people's opinions: what large judges say of the pictures.

Only training pictures get any of it, and those that no split has, which become training pictures:
people's opinions alone decide which weights are best, and how good they are.
"""

from __future__ import annotations

import polars as pl

from beholder.data.annotations import AnnotationTable


def with_targets(table: AnnotationTable, predictions: pl.DataFrame) -> AnnotationTable:
    """The training rows and those without a split, with predicted scores where none is given.

    Args:
        predictions: `image` and `predicted_score`, as an average stage writes them.
    """
    predicted = predictions.select("image", "predicted_score")
    frame = _train_rows(table).join(predicted, on="image", how="left", maintain_order="left")
    frame = frame.with_columns(pl.coalesce("score", "predicted_score").alias("score"))
    return table.with_frame(frame.drop("predicted_score"))


def with_comments(
    table: AnnotationTable, written: pl.DataFrame, *, instead: bool
) -> AnnotationTable:
    """The training rows and those without a split, with written comments.

    Training on a large model's best sentences is sequence-level distillation: Kim & Rush,
    "Sequence-Level Knowledge Distillation", EMNLP 2016, who leave the people's out.

    Args:
        written: `image` and `written`, as a write stage writes them; null where there is none.
        instead: leave people's comments out; else the written one is one more.
    """
    frame = _train_rows(table).join(written, on="image", how="left", maintain_order="left")
    none = pl.lit([], dtype=pl.List(pl.String))
    existing = none if instead else pl.col("comments")
    further = pl.when(pl.col("written").is_null()).then(none).otherwise(pl.concat_list("written"))
    frame = frame.with_columns(pl.concat_list(existing, further).alias("comments"))
    return table.with_frame(frame.drop("written"))


def taught_rows(table: AnnotationTable) -> pl.DataFrame:
    """The rows that large judges may say something of: of the train split, and of none."""
    return table.frame.filter((pl.col("split") == "train") | pl.col("split").is_null())


def _train_rows(table: AnnotationTable) -> pl.DataFrame:
    """The same, all of the train split."""
    return taught_rows(table).with_columns(pl.lit("train").alias("split"))
