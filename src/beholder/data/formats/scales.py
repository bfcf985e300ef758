"""What columns say together: missing scores, votes as shares, scales, which way is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from beholder.data.annotations import RATINGS, VOTES, AnnotationTable
from beholder.data.formats.ratings import rating_columns
from beholder.data.formats.votes import vote_columns

USUAL_SCALES = ((0.0, 1.0), (1.0, 5.0), (0.0, 5.0), (1.0, 10.0), (0.0, 10.0), (0.0, 100.0))
"""Scales that people rate on, those first that say more of scores that fit several."""

_WIDE_SCALE = 10.0  # scores that span more are not on a scale of five
_SMALL_SPREAD = 0.05  # of the span of the scores: the deviation is of another scale


def settle(
    frame: pl.DataFrame, score_range: tuple[float, float] | None
) -> tuple[pl.DataFrame, list[str]]:
    """The frame, columns by role, with what has to be told.

    Args:
        score_range: the scale, where it is known.
    """
    notes: list[str] = []
    frame = _without_minus_one(frame, score_range, notes)
    frame = _with_counted_votes(frame, notes)
    return _on_one_scale(frame, notes), notes


def _numbers(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    return frame.select(pl.col(columns).str.strip_chars().cast(pl.Float64, strict=False))


def _without_minus_one(
    frame: pl.DataFrame, score_range: tuple[float, float] | None, notes: list[str]
) -> pl.DataFrame:
    """-1 as a missing score where the scale starts above it."""
    columns = [name for name in ("score", *rating_columns(frame).values()) if name in frame.columns]
    columns = [name for name in columns if frame.schema[name] == pl.String]
    if not columns:
        return frame
    numbers = _numbers(frame, columns)
    values = pl.concat([numbers[name] for name in columns]).drop_nulls().drop_nans()
    others = values.filter(values != -1)
    lowest = score_range[0] if score_range else others.min()
    count = len(values) - len(others)
    if not count or not isinstance(lowest, (int, float)) or lowest < 0:
        return frame
    notes.append(f"-1 is read as not rated, {count} times: all other scores are above it.")
    return frame.with_columns(
        pl.when(numbers[name].eq_missing(-1.0)).then(None).otherwise(frame[name]).alias(name)
        for name in columns
    )


def _with_counted_votes(frame: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """Votes as shares times their number; without a number, their mean as the score."""
    votes = vote_columns(frame)
    if not votes:
        return frame
    columns = list(votes.values())
    shares = _numbers(frame, columns)
    fraction = shares.select(
        pl.any_horizontal((c != c.floor()).any() for c in map(pl.col, columns)),
        ((pl.sum_horizontal(columns) - 1).abs() < 0.02).mean().alias("\x00one"),
    ).row(0)
    if not fraction[0] or (fraction[1] or 0) < 0.9:
        return frame
    if "raters" in frame.columns:
        total = _numbers(frame, ["raters"])["raters"]
        counts = [(shares[name] * total).round() for name in columns]
        number = pl.select(pl.sum_horizontal(counts)).to_series()
        whole = [count.cast(pl.Int64, strict=False).cast(pl.String) for count in counts]
        notes.append("The votes are shares; they are multiplied by their number.")
        return frame.with_columns(
            *(count.alias(name) for count, name in zip(whole, columns, strict=True)),
            number.cast(pl.Int64, strict=False).cast(pl.String).alias("raters"),
        )
    frame = frame.drop(columns)
    what = "and how many there were is not said: they are left out"
    if "score" not in frame.columns:
        mean = pl.sum_horizontal(grade * shares[name] for grade, name in votes.items())
        frame = frame.with_columns(pl.select(mean).to_series().cast(pl.String).alias("score"))
        what += ", their mean is the score"
    notes.append(f"The votes are shares, {what}.")
    return frame


def _on_one_scale(frame: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """Votes and deviations that are on another scale than the scores are left out, and told."""
    if "score" not in frame.columns:
        return frame
    scores = _numbers(frame, ["score"])["score"].drop_nulls().drop_nans()
    if scores.is_empty():
        return frame
    low, high = float(scores.min()), float(scores.max())  # type: ignore[arg-type]
    votes = vote_columns(frame)
    if votes and not min(votes) <= float(scores.median() or 0) <= max(votes):  # type: ignore[arg-type]
        notes.append(
            f"Two scales in one table: the scores are {low:.6g} to {high:.6g}, the votes are for "
            f"rating bins {min(votes):g} to {max(votes):g}; the votes are left out. To score by "
            "them: leave the column of scores out with --columns score=..., or make a table "
            "without it."
        )
        frame = frame.drop(votes.values())
    if "score_std" in frame.columns and high - low > _WIDE_SCALE:
        spread = _numbers(frame, ["score_std"])["score_std"].drop_nulls().drop_nans()
        if len(spread) and float(spread.max()) < _SMALL_SPREAD * (high - low):  # type: ignore[arg-type]
            notes.append(
                f"Two scales in one table: the scores are {low:.6g} to {high:.6g}, their deviation "
                f"at most {float(spread.max()):.3g}, as of rating bins 1 to 5; the deviation "  # type: ignore[arg-type]
                "is left out."
            )
            frame = frame.drop("score_std")
    return frame


def usual_scale(low: float, high: float) -> tuple[float, float] | None:
    """The first usual scale that scores from `low` to `high` fit; None: none of them."""
    return next((scale for scale in USUAL_SCALES if scale[0] <= low and high <= scale[1]), None)


def turned_over(table: AnnotationTable, low: float, high: float) -> AnnotationTable:
    """The table with scores that say how bad pictures are turned into how good they are: a score s
    of a scale from `low` to `high` becomes low + high - s; ratings and votes alike."""
    turned = pl.lit(low + high)
    frame = table.frame.with_columns((turned - pl.col("score")).alias("score"))
    if RATINGS in frame.columns:
        rater = pl.element().struct.field("rater")
        score = (low + high - pl.element().struct.field("score")).alias("score")
        frame = frame.with_columns(pl.col(RATINGS).list.eval(pl.struct(rater, score)))
    if table.rating_bins:
        frame = frame.with_columns(pl.col(VOTES).list.reverse())
    rating_bins = tuple(low + high - grade for grade in reversed(table.rating_bins))
    return replace(table, frame=frame, rating_bins=rating_bins)
