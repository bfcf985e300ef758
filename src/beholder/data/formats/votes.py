"""Votes: how many raters gave each grade, in columns `votes.<grade>`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import polars as pl

from beholder.data.annotations import VOTES

VOTE_PREFIX = "votes."
_MOST = 2**40  # votes; more are a damaged number


def grade_of(column: str) -> float | None:
    """The grade whose votes a column counts: 4.5 of `votes.4.5`; None for any other column."""
    if not column.startswith(VOTE_PREFIX):
        return None
    try:
        grade = float(column.removeprefix(VOTE_PREFIX))
    except ValueError:
        return None
    return grade if math.isfinite(grade) else None


def vote_columns(frame: pl.DataFrame) -> dict[float, str]:
    """The columns of votes by grade, rising."""
    by_grade = {grade_of(name): name for name in frame.columns}
    return {grade: by_grade[grade] for grade in sorted(g for g in by_grade if g is not None)}


def wrong_votes(columns: Mapping[float, str]) -> pl.Expr:
    """Rows whose Float64 `columns` by grade are given in part, no counts, all 0, or not as many as
    the row's `raters`."""
    counts = [pl.col(name) for name in columns.values()]
    missing = pl.sum_horizontal(count.is_null() for count in counts)
    number = pl.sum_horizontal(counts)
    fraction = pl.any_horizontal(
        (c < 0) | (c != c.floor()) | (c >= _MOST) for c in counts
    ).fill_null(False)
    other = (number != pl.col("raters")).fill_null(False)
    partly = (missing > 0) & (missing < len(counts))
    return partly | ((missing == 0) & (fraction | (number <= 0) | other))


def with_votes(frame: pl.DataFrame, columns: Mapping[float, str]) -> pl.DataFrame:
    """The frame with the usable votes of a row as one list, in place of their `columns`.

    A row that has votes but no score gets their mean as score, and what it lacks of their spread
    (`score_std`) and number (`raters`).
    """
    counts = [pl.col(name) for name in columns.values()]
    number = pl.sum_horizontal(counts)
    mean = pl.sum_horizontal(g * c for g, c in zip(columns, counts, strict=True)) / number
    square = pl.sum_horizontal(g * g * c for g, c in zip(columns, counts, strict=True)) / number
    derived = {
        "score_std": (square - mean.pow(2)).clip(lower_bound=0.0).sqrt(),
        "raters": number.cast(pl.Int64),
        "score": mean,
    }
    usable = pl.all_horizontal(count.is_not_null() for count in counts) & ~wrong_votes(columns)
    unscored = usable & pl.col("score").is_null()
    lists = pl.concat_list(count.cast(pl.Int64) for count in counts)
    return frame.with_columns(
        pl.when(usable).then(lists).alias(VOTES),
        *(
            pl.when(unscored).then(pl.coalesce(name, value)).otherwise(pl.col(name)).alias(name)
            for name, value in derived.items()
        ),
    ).drop(columns.values())
