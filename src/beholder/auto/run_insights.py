"""What a finished run's features tell of it: what copying would have said, and what half of the
pictures would have taught.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
from beholder.data.splits import assign_folds
from beholder.errors import DataError
from beholder.features.store import FeatureStore
from beholder.metrics.correlation import rmse, srcc
from beholder.pipeline.data import RunData
from beholder.pipeline.manifest import load_manifest

MOST_PICTURES = 1000  # evenly from the table, that is as many as a look back takes


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


def halved_skills(
    data: RunData, folder: Path, opinions: tuple[Opinion, ...]
) -> dict[str, tuple[float, float]]:
    """Opinion -> its cross-validated skill when linear models learn from half of the groups, and
    when they learn from all; of the pictures that are not held out."""
    frame, features_NP = _features(data, folder, pl.col("split").is_in(["train", "val"]))
    skills: dict[str, tuple[float, float]] = {}
    if "score" in opinions:
        rows_N, folds_N, half_N = _folds_and_half(frame, frame["score"], data)
        if folds_N is not None:
            scores_N = frame["score"].to_numpy()[rows_N]
            skills["the score"] = (
                score_skill(features_NP[rows_N], scores_N, folds_N, half_N),
                score_skill(features_NP[rows_N], scores_N, folds_N),
            )
    names = data.table.attribute_names[:MOST_ATTRIBUTES] if "attributes" in opinions else ()
    for name in names:
        labels = frame[f"attribute.{name}"]
        rows_N, folds_N, half_N = _folds_and_half(frame, labels, data)
        known = labels.drop_nulls()
        if folds_N is not None and known.n_unique() > 1:
            skill_of = multi_label_skill if name in data.table.multi_label else attribute_skill
            given = (features_NP[rows_N], known.to_list(), folds_N)
            skills[name] = (
                skill_of(*given, half_N, powers=(0.0,))[0],
                skill_of(*given, powers=(0.0,))[0],
            )
    return skills


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


def _folds_and_half(
    frame: pl.DataFrame, opinion: pl.Series, data: RunData
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Which rows have the opinion, and of these the folds, groups kept apart, and which are of the
    half to learn from; None where there are too few groups for either."""
    rows_N = opinion.is_not_null().to_numpy()
    units = [data.units[key] for key in frame["image"].filter(opinion.is_not_null())]
    count = min(FOLDS, len(set(units)) // 2)
    if count < 2:
        return rows_N, None, None
    return rows_N, assign_folds(units, count), assign_folds(units, 2, seed=1) == 0
