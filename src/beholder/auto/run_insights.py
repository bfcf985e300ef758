"""What a finished run's features tell of it: what copying would have said, what fewer of the
pictures would have taught, and which pictures it does worst on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from beholder.auto.search import FOLDS
from beholder.auto.skill import (
    MOST_ATTRIBUTES,
    attribute_skill,
    multi_label_skill,
    neighbour_cider,
    score_skill,
)
from beholder.auto.teachable import Opinion
from beholder.data.annotations import ATTRIBUTE_PREFIX
from beholder.data.splits import assign_folds
from beholder.errors import DataError
from beholder.evaluation.predictions import TARGET, read_predictions
from beholder.evaluation.slices import LEAST, slices_of
from beholder.features.store import FeatureStore
from beholder.judge.row import LABEL
from beholder.metrics.correlation import rmse, srcc
from beholder.pipeline.data import RunData
from beholder.pipeline.manifest import load_manifest

MOST_PICTURES = 1000  # evenly from the table, that is as many as a look back takes
GROUPS_FOR_QUARTERS = 12  # below which a quarter of the groups is next to nothing
STANDS_OUT = 1.3  # times the others' error


def copied_comments_cider(data: RunData, folder: Path) -> float | None:
    """CIDEr-D on the test split of the comment of the most similar training picture; None: there is
    no comment on one side."""
    frame, features_NP = _features(data, folder, pl.col("comments").list.len() > 0)
    split = frame["split"].to_numpy()
    if not (split == "train").any() or (split == "test").sum() < 2:
        return None
    parts = [(split == "train", split == "test")]
    return neighbour_cider(features_NP, frame["comments"].to_list(), parts)


@dataclass(frozen=True)
class CrossValidated:
    """Scores predicted of groups that were left out, in turn.

    Args:
        always: RMSE of saying the mean of all other groups' scores.
    """

    pictures: int
    groups: int
    srcc: float
    rmse: float
    always: float


def cross_validated(data: RunData, folder: Path) -> CrossValidated | None:
    """What the run's cross-validation has found; None: there is none."""
    manifest = load_manifest(folder)
    record = manifest.find("errors") if manifest else None
    if record is None:
        return None
    frame = pl.read_parquet(folder / record.outputs["predictions"].path)
    target, fold = frame["score"].to_numpy(), frame["fold"].to_numpy()
    means = {number: target[fold != number].mean() for number in np.unique(fold)}
    constant = np.array([means[number] for number in fold])
    return CrossValidated(
        frame.height,
        len({data.units[key] for key in frame["image"]}),
        srcc(target, frame["predicted"].to_numpy()),
        rmse(target, frame["predicted"].to_numpy()),
        rmse(target, constant),
    )


class LearningCurve(NamedTuple):
    """Cross-validated skill of linear models that learn from a part of the groups.

    Args:
        quarter: None where there are too few groups for it.
    """

    quarter: float | None
    half: float
    whole: float

    @property
    def doubled(self) -> float:
        """What twice as many pictures may bring: each doubling brings the same share of what the
        one before has brought, as by a power law, and none brings more."""
        gain = max(0.0, self.whole - self.half)
        if self.quarter is None:
            return gain
        before = self.half - self.quarter
        return gain * min(1.0, gain / before) if before > 0.0 else gain


def learning_curves(
    data: RunData, folder: Path, opinions: tuple[Opinion, ...]
) -> dict[str, LearningCurve]:
    """Opinion -> its learning curve, of the pictures that are not held out."""
    frame, features_NP = _features(data, folder, pl.col("split").is_in(["train", "val"]))
    curves: dict[str, LearningCurve] = {}
    if "score" in opinions:
        given = frame["score"].drop_nulls().to_numpy()
        rows_N, folds_N, parts_N = _folds_and_parts(frame, frame["score"], data)
        if folds_N is not None and parts_N is not None:
            curves["the score"] = _curve(
                partial(score_skill, features_NP[rows_N], given, folds_N), parts_N
            )
    names = data.table.attribute_names[:MOST_ATTRIBUTES] if "attributes" in opinions else ()
    for name in names:
        labels = frame[f"attribute.{name}"]
        rows_N, folds_N, parts_N = _folds_and_parts(frame, labels, data)
        known = labels.drop_nulls()
        if folds_N is not None and parts_N is not None and known.n_unique() > 1:
            several = name in data.table.multi_label
            skill_of = partial(
                multi_label_skill if several else attribute_skill,
                features_NP[rows_N], known.to_list(), folds_N, powers=(0.0,),
            )  # fmt: skip
            curves[name] = _curve(partial(_first, skill_of), parts_N)
    return curves


def _curve(skill_of: Callable[[np.ndarray | None], float], parts_N: np.ndarray) -> LearningCurve:
    """A mean over two parts of every size: a single one tells of its groups more than of its
    size."""
    parts = int(parts_N.max()) + 1
    half = parts // 2
    halves = [skill_of(parts_N < half), skill_of(parts_N >= half)]
    quarters = [skill_of(parts_N == part) for part in (0, parts - 1)] if parts == 4 else []
    quarter = float(np.mean(quarters)) if quarters else None
    return LearningCurve(quarter, float(np.mean(halves)), skill_of(None))


def _first(skill_of: Callable[..., tuple[float, float]], usable_N: np.ndarray | None) -> float:
    return skill_of(usable_N)[0]


class Weakest(NamedTuple):
    """Pictures whose scores are further off than the others'.

    Args:
        off, others: mean absolute errors, of these and of all others.
    """

    by: str
    value: str
    pictures: int
    off: float
    others: float


def weakest_slice(data: RunData, folder: Path) -> Weakest | None:
    """The slice (of predicted scores, labels or sizes) with the largest error beside that of the
    others, of pictures that were predicted by what has not seen their group; None: there is none
    whose error stands out."""
    frame = _predicted(data, folder)
    if frame is None:
        return None
    error_N = (frame["target.score"] - frame["score"]).abs().to_numpy()
    root = data.root if frame.height <= MOST_PICTURES else None
    weakest: list[Weakest] = []
    for by, value, rows in slices_of(frame, root):
        inside = rows.to_numpy()
        parts = error_N[inside], error_N[~inside]
        if min(map(len, parts)) < LEAST:
            continue
        off, others = (float(part.mean()) for part in parts)
        chance = float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)))
        if off > STANDS_OUT * others and off - others > 3.0 * chance:
            weakest.append(Weakest(by, value, len(parts[0]), off, others))
    return max(weakest, key=lambda part: part.off / part.others, default=None)


def _predicted(data: RunData, folder: Path) -> pl.DataFrame | None:
    """Columns as of an evaluation: scores from the run's cross-validation, or of held-out
    pictures."""
    manifest = load_manifest(folder)
    record = manifest.find("errors") if manifest else None
    held_out = folder / "evaluation" / "predictions.parquet"
    if record is not None:
        path = folder / record.outputs["predictions"].path
        names = {"score": "target.score", "predicted": "score"}
        predicted = pl.read_parquet(path).rename(names).select("image", "score", "target.score")
    elif held_out.exists():
        predicted = read_predictions(held_out).select("image", "score", "target.score")
    else:
        return None
    labels = [
        pl.col(ATTRIBUTE_PREFIX + name).alias(TARGET + LABEL + name)
        for name in data.table.attribute_names
    ]
    known = predicted.drop_nulls()
    joined = known.join(data.table.frame.select("image", *labels), on="image", how="left")
    return joined if joined.height else None


def _features(data: RunData, folder: Path, chosen: pl.Expr) -> tuple[pl.DataFrame, np.ndarray]:
    """Rows of the table, and the pooled features [N, P] that the run has of them."""
    manifest = load_manifest(folder)
    record = manifest.find("features") if manifest else None
    if record is None:
        raise DataError("The run has no features.", where=str(folder))
    store = FeatureStore.open(folder / record.outputs["store"].path)
    frame = data.table.frame.filter(chosen & pl.col("image").is_in(store.keys))
    frame = frame.gather_every(-(-frame.height // MOST_PICTURES) or 1)
    if frame.is_empty():
        return frame, np.empty((0, 0))
    _, pooled_NP = store.read(frame["image"].to_list(), tokens=False)
    return frame, pooled_NP.astype(np.float64)


def _folds_and_parts(
    frame: pl.DataFrame, opinion: pl.Series, data: RunData
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Which rows have the opinion, and of these the folds, groups kept apart, and in which part,
    of four or two, they are; None where there are too few groups for either."""
    rows_N = opinion.is_not_null().to_numpy()
    units = [data.units[key] for key in frame["image"].filter(opinion.is_not_null())]
    groups = len(set(units))
    count = min(FOLDS, groups // 2)
    if count < 2:
        return rows_N, None, None
    parts = 4 if groups >= GROUPS_FOR_QUARTERS else 2
    return rows_N, assign_folds(units, count), assign_folds(units, parts, seed=1)
