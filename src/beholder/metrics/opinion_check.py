"""How far a table's raters can be trusted, and what a perfect model could reach.

Raters are reported (never left out) for their bias or inconsistency: where it is more than `FAR`
robust deviations from the median of all raters, a deviation being 1.4826 times the median absolute
one (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993) joined with the value's own
standard error. Inconsistency is compared by its logarithm, and only upwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from beholder.data.annotations import RATINGS, AnnotationTable
from beholder.errors import DataError
from beholder.metrics.ceiling import Scores, ceiling
from beholder.metrics.classification import show
from beholder.metrics.correlation import Interval, srcc
from beholder.metrics.opinions import Indices, OpinionModel, Vector, fit_opinions

FAR = 3.5
SCORES = {"mean": "mean ratings", "corrected": "corrected scores"}
_SHOWN = 5  # names of pictures and raters in the text


@dataclass(frozen=True)
class RaterOpinion:
    """One rater.

    Args:
        bias, inconsistency: with their standard errors, in units of the scores.
        agreement: SRCC of the rater's scores with the means of the others' on the same pictures;
            None where undefined.
        remarks: why the rater is an outlier, of `bias`, `inconsistency`, `one score only`; empty if
            it is none.
    """

    rater: str
    ratings: int
    bias: float
    bias_error: float
    inconsistency: float
    inconsistency_error: float
    agreement: float | None
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class PictureOpinion:
    """One picture: its quality with standard error, and how much its raters disagree, the deviation
    of their scores less their biases."""

    image: str
    ratings: int
    mean: float
    quality: float
    quality_error: float
    disagreement: float


@dataclass(frozen=True)
class OpinionCheck:
    """What a table's ratings tell about raters and pictures.

    Args:
        problem: why they tell nothing about raters; the model is then None and the lists are empty.
        scores: what the table's scores are: mean ratings, or the model's qualities.
        ceiling: the SRCC with these scores of a model that knows the true qualities.
    """

    ratings: int
    problem: str | None = None
    model: OpinionModel | None = None
    raters: tuple[RaterOpinion, ...] = ()
    pictures: tuple[PictureOpinion, ...] = ()
    scores: Scores = "mean"
    ceiling: Interval | None = None

    @property
    def outliers(self) -> list[RaterOpinion]:
        """The raters with remarks."""
        return [rater for rater in self.raters if rater.remarks]

    @property
    def disputed(self) -> list[PictureOpinion]:
        """The pictures, the most disputed first."""
        return sorted(self.pictures, key=lambda picture: (-picture.disagreement, picture.image))

    def ceiling_of(self, pictures: Iterable[str]) -> Interval | None:
        """The ceiling over some of the pictures; None where it is undefined."""
        if self.model is None:
            return None
        return _defined(ceiling(self.model, pictures, scores=self.scores))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        model = self.model
        return {
            "ratings": self.ratings,
            "problem": self.problem,
            "srcc_ceiling": self.ceiling._asdict() if self.ceiling else None,
            "raters": [asdict(rater) for rater in self.raters],
            "pictures": [asdict(picture) for picture in self.pictures],
            "left_out_raters": list(model.left_out_raters) if model else [],
            "left_out_pictures": list(model.left_out_pictures) if model else [],
        }


def check_opinions(table: AnnotationTable, scores: Scores = "mean") -> OpinionCheck | None:
    """Check the ratings of a table; None if it does not say who gave which score.

    Args:
        scores: what the table's scores are: means of the ratings, or `with_corrected_scores`.
    """
    ratings = _ratings(table)
    if ratings is None:
        return None
    try:
        model = fit_opinions(*(ratings[name].to_list() for name in ratings.columns))
    except DataError as error:
        return OpinionCheck(ratings.height, problem=str(error.what), scores=scores)
    return OpinionCheck(
        ratings.height,
        model=model,
        raters=tuple(_raters(model)),
        pictures=tuple(_pictures(model)),
        scores=scores,
        ceiling=_defined(ceiling(model, scores=scores)),
    )


def with_corrected_scores(table: AnnotationTable) -> AnnotationTable:
    """The table with the model's quality as the score of every picture in the model.

    Raises:
        DataError: the table has no ratings, or they tell nothing about raters.
    """
    ratings = _ratings(table)
    if ratings is None:
        raise DataError(
            "The table does not say who gave which score, so that biases can't be corrected.",
            fix="Give a column `rater` with a row per rating, or a column rating.<rater> each.",
        )
    model = fit_opinions(*(ratings[name].to_list() for name in ratings.columns))
    known = pl.DataFrame({"image": model.pictures, "quality": model.quality})
    frame = table.frame.join(known, on="image", how="left", maintain_order="left")
    corrected = frame.with_columns(score=pl.coalesce("quality", "score")).drop("quality")
    return table.with_frame(corrected)


def render_opinions(check: OpinionCheck) -> str:
    """The check for a person: raters, those that stand out, disputed pictures, the ceiling."""
    lines = [f"opinions: {check.ratings} ratings"]
    if check.model is None:
        return f"{lines[0]}\n  {check.problem}"
    model = check.model
    lines[0] += f", {len(check.raters)} raters of {len(check.pictures)} pictures compared"
    if model.left_out_raters or model.left_out_pictures:
        lines.append(
            f"  left out, having too few ratings in common: {len(model.left_out_raters)} raters, "
            f"{len(model.left_out_pictures)} pictures"
        )
    spread = np.median(model.inconsistency)
    lines.append(
        f"  raters      bias {model.bias.min():+.2f} to {model.bias.max():+.2f}, "
        f"median inconsistency {spread:.2f}"
    )
    lines += [f"  stands out  {_described(rater)}" for rater in check.outliers]
    for picture in check.disputed[:_SHOWN]:
        lines.append(
            f"  disputed    {picture.image}: {picture.mean:.2f} of {picture.ratings} ratings, "
            f"which differ by {picture.disagreement:.2f}"
        )
    lines.append(f"  ceiling     {_ceiling_text(check)}")
    return "\n".join(lines)


def _ceiling_text(check: OpinionCheck) -> str:
    interval = check.ceiling
    if interval is None:
        return "none: the pictures do not differ by more than the raters' noise"
    return (
        f"a perfect model's SRCC with the {SCORES[check.scores]} is {show(interval.value, 3)} "
        f"(95 %: {show(interval.low, 3)} to {show(interval.high, 3)})"
    )


def _described(rater: RaterOpinion) -> str:
    return (
        f"{rater.rater}: {', '.join(rater.remarks)} (bias {rater.bias:+.2f} ± "
        f"{rater.bias_error:.2f}, inconsistency {rater.inconsistency:.2f} ± "
        f"{rater.inconsistency_error:.2f}, agreement {show(rater.agreement, 2)}, {rater.ratings} "
        "ratings)"
    )


def _ratings(table: AnnotationTable) -> pl.DataFrame | None:
    """Columns image, rater, score, a row per rating; None where there is none."""
    if RATINGS not in table.frame.columns:
        return None
    rows = table.frame.select("image", pl.col(RATINGS)).drop_nulls(RATINGS).explode(RATINGS)
    return rows.unnest(RATINGS) if rows.height else None


def _raters(model: OpinionModel) -> list[RaterOpinion]:
    far_bias = np.abs(_deviations(model.bias, model.bias_error)) > FAR
    relative = model.inconsistency_error / model.inconsistency
    far_noise = _deviations(np.log(model.inconsistency), relative) > FAR
    counts = np.bincount(model.rater_K)
    groups = np.split(np.argsort(model.rater_K, kind="stable"), np.cumsum(counts)[:-1])
    sums_N = np.bincount(model.picture_K, model.score_K).astype(np.float64)
    counts_N = np.bincount(model.picture_K)
    raters = []
    for index, rows in enumerate(groups):
        pictures, scores = model.picture_K[rows], model.score_K[rows]
        holds = {
            "bias": far_bias[index],
            "inconsistency": far_noise[index],
            "one score only": np.ptp(scores) == 0,
        }
        raters.append(
            RaterOpinion(
                model.raters[index], int(counts[index]),
                float(model.bias[index]), float(model.bias_error[index]),
                float(model.inconsistency[index]), float(model.inconsistency_error[index]),
                _agreement(pictures, scores, sums_N, counts_N),
                tuple(remark for remark, applies in holds.items() if applies),
            )
        )  # fmt: skip
    return raters


def _deviations(values: Vector, errors: Vector) -> Vector:
    """Distances from the median in robust deviations, each joined with the value's own error."""
    centred = values - np.median(values)
    spread = 1.4826 * np.median(np.abs(centred))
    return centred / np.sqrt(spread**2 + errors**2)


def _agreement(
    pictures: Indices, scores: Vector, sums_N: Vector, counts_N: Indices
) -> float | None:
    """SRCC of a rater's scores with the means of the others' of the same pictures.

    Args:
        sums_N, counts_N: of all ratings of each picture, the rater's among them.
    """
    rows, repeats = np.unique(pictures, return_counts=True)
    rater_sums = np.bincount(pictures, scores, len(sums_N))[rows]
    value = srcc(rater_sums / repeats, (sums_N[rows] - rater_sums) / (counts_N[rows] - repeats))
    return value if math.isfinite(value) else None


def _pictures(model: OpinionModel) -> list[PictureOpinion]:
    counts = np.bincount(model.picture_K)
    means = np.bincount(model.picture_K, model.score_K) / counts
    unbiased_K = model.score_K - model.bias[model.rater_K]
    centres = np.bincount(model.picture_K, unbiased_K) / counts
    squares = np.bincount(model.picture_K, np.square(unbiased_K - centres[model.picture_K]))
    spreads = np.sqrt(squares / (counts - 1))
    columns: Sequence[Any] = (counts, means, model.quality, model.quality_error, spreads)
    rows = zip(model.pictures, *(column.tolist() for column in columns), strict=True)
    return [PictureOpinion(*row) for row in rows]


def _defined(interval: Interval) -> Interval | None:
    return interval if math.isfinite(interval.value) else None
