"""Ratings: who gave which score, in a row per rating or in columns `rating.<rater>`."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from beholder.data.annotations import RATINGS, RATINGS_TYPE

RATING_PREFIX = "rating."


def rater_of(column: str) -> str | None:
    """The rater whose scores a column holds: Ann of `rating.Ann`; None for any other column."""
    if not column.casefold().startswith(RATING_PREFIX):
        return None
    return column[len(RATING_PREFIX) :].strip() or None


def rating_columns(frame: pl.DataFrame) -> dict[str, str]:
    """The columns of ratings by rater, in the order of the frame."""
    raters = {name: rater_of(name) for name in frame.columns}
    return {rater: name for name, rater in raters.items() if rater is not None}


def ratings_of_rows(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of a `rater` each: their `score`, which is a rating, becomes a list of one."""
    rating = pl.struct("rater", "score")
    is_rating = pl.col("rater").is_not_null() & pl.col("score").is_not_null()
    lists = pl.when(is_rating).then(pl.concat_list(rating)).otherwise(pl.lit([], RATINGS_TYPE))
    nobody = pl.lit(None, dtype=pl.Float64).alias("score")
    return frame.with_columns(lists.alias(RATINGS)).with_columns(nobody)


def repeated_rating(key: str) -> pl.Expr:
    """Rows whose `rater` has given a score to the same picture (`key`) in an earlier row."""
    is_rating = pl.col("rater").is_not_null() & pl.col("score").is_not_null()
    return is_rating & (is_rating.cast(pl.Int64).cum_sum().over(key, "rater") > 1)


def with_ratings(frame: pl.DataFrame, columns: Mapping[str, str]) -> pl.DataFrame:
    """The frame, a row per picture, with the raters' `columns` joined to its list of ratings.

    A picture that has ratings but no score gets their mean as score, and what it lacks of their
    spread (`score_std`) and number (`raters`).
    """
    wide = [
        pl.when(pl.col(name).is_not_null()).then(
            pl.struct(pl.lit(rater).alias("rater"), pl.col(name).alias("score"))
        )
        for rater, name in columns.items()
    ]
    if wide:
        lists = pl.concat_list(wide).list.drop_nulls()
        earlier = [pl.col(RATINGS)] if RATINGS in frame.columns else []
        frame = frame.with_columns(pl.concat_list([*earlier, lists]).alias(RATINGS))
    score = pl.col(RATINGS).list.eval(pl.element().struct.field("score"))
    number = pl.col(RATINGS).list.len()
    derived = {
        "score_std": score.list.std(ddof=0),
        "raters": number.cast(pl.Int64),
        "score": score.list.mean(),
    }
    unscored = (number > 0) & pl.col("score").is_null()
    return frame.with_columns(
        pl.when(number > 0).then(pl.col(RATINGS)).cast(RATINGS_TYPE).alias(RATINGS),
        *(
            pl.when(unscored).then(pl.coalesce(name, value)).otherwise(pl.col(name)).alias(name)
            for name, value in derived.items()
        ),
    ).drop(columns.values())
