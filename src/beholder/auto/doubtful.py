"""Opinions of a run's table that are probably mistakes: those that what has not seen the picture
finds implausible, ranked, for a person to go through.

What has not seen a picture is, for scores, the run's own cross-validation, and its judge on
held-out pictures; for labels, and for scores of a run without, linear models on the run's frozen
features, with groups kept apart; where it has no features, its judge on held-out pictures alone.
Comments are not ranked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from beholder.auto.out_of_fold import (
    out_of_fold_probabilities,
    out_of_fold_scores,
    out_of_fold_several,
)
from beholder.data.annotations import ATTRIBUTE_PREFIX, AnnotationTable
from beholder.data.files import atomic_path, write_text
from beholder.data.labels import labels_cell
from beholder.data.splits import assign_folds, unit_names
from beholder.errors import RunError
from beholder.evaluation.predictions import read_predictions
from beholder.features.store import FeatureStore
from beholder.judge.row import LABEL, PROBABILITIES
from beholder.metrics.doubt import (
    FAR,
    label_doubt,
    probably_wrong,
    score_doubt,
    several_labels_doubt,
    several_probably_wrong,
)
from beholder.metrics.multi_label import THRESHOLD
from beholder.pipeline.manifest import Manifest, load_manifest
from beholder.report.doubtful import render_doubtful

CSV, PAGE = "doubtful.csv", "doubtful.html"  # in the run
MOST_SHOWN = 60  # pictures of a kind on the page
FOLDS = 5
FEWEST = 5  # predicted pictures, below which nothing is told of what is usual
CROSS_VALIDATED = ("cross_validate", "cross")  # and its name in runs of earlier versions
SCHEMA = {
    "image": pl.String(), "kind": pl.String(), "target": pl.String(), "predicted": pl.String(),
    "doubt": pl.Float64(), "probably_wrong": pl.Boolean(), "rank": pl.Int64(),
    "split": pl.String(), "predicted_by": pl.String(),
}  # fmt: skip


@dataclass(frozen=True)
class Doubtful:
    """The ranked opinions.

    Args:
        name: of the run.
        rows: image, kind (`score`, `attributes.<name>`), target, predicted, doubt (see
            `metrics.doubt`), probably_wrong, rank within the kind from 1, split, predicted_by; the
            probably wrong ones first, then by rank, kinds in turns.
        covered: kind -> in words which of its opinions are ranked, and by what.
        root: folder of the pictures, as far as the run knows; None: it does not.
    """

    name: str
    rows: pl.DataFrame
    covered: dict[str, str]
    root: Path | None


@dataclass(frozen=True)
class _Predictions:
    """Of some rows what was predicted: scores [N], or probabilities [N, K] of classes."""

    images: list[str]
    values: np.ndarray
    by: list[str]
    classes: tuple[str, ...] = ()


def find_doubtful(run: Path) -> Doubtful:
    """Rank the opinions of a run's table.

    Raises:
        RunError: the folder is no run with a table, or nothing has predicted its pictures.
    """
    manifest, path = load_manifest(run), run / "annotations.parquet"
    if manifest is None or not path.exists():
        raise RunError(
            "There is no finished run here.",
            where=str(run),
            fix="Name the folder of a run, e.g. one of beholder train.",
        )
    table = AnnotationTable.from_parquet(path)
    evidence = _Evidence(run, manifest, table)
    parts: list[pl.DataFrame] = []
    covered: dict[str, str] = {}
    for kind, part in evidence.ranked():
        parts.append(part)
        covered[kind] = _covered(part, _opinions(table, kind))
    if not parts:
        raise RunError(
            f"Nothing has predicted {FEWEST} pictures of this run without having seen them.",
            where=str(run),
            fix="Give the recipe a stage that cross-validates or evaluates, or use beholder train.",
        )
    rows = pl.concat(parts).sort(
        pl.col("probably_wrong").not_(), "rank", "kind", maintain_order=True
    )
    return Doubtful(manifest.name, rows, covered, evidence.root())


def write_doubtful(run: Path, images: Path | None = None, most: int = MOST_SHOWN) -> Doubtful:
    """Rank the opinions of a run's table, and write them: all of them into `doubtful.csv`, the
    first of each kind with thumbnails into `doubtful.html`, both in the run.

    Args:
        images: folder of the pictures; None: where they were when the run was made.
        most: pictures of each kind on the page.

    Raises:
        RunError: as `find_doubtful`; or it is not known where the pictures are.
    """
    doubtful = find_doubtful(run)
    root = images or doubtful.root
    if root is None or not root.is_dir():
        raise RunError(
            "The pictures are not where the run was made with them."
            if root
            else "The run does not say where its pictures are.",
            where=str(root or run),
            fix="Name their folder: --images FOLDER.",
        )
    page = render_doubtful(doubtful.name, doubtful.rows, doubtful.covered, root, CSV, most)
    with atomic_path(run / CSV) as temporary:
        doubtful.rows.write_csv(temporary, include_bom=True)
    write_text(run / PAGE, page)
    return doubtful


def render_first(rows: pl.DataFrame, count: int = 5) -> str:
    """The first rows as a table for people."""
    lines = []
    width = max(len(image) for image in rows["image"].head(count))
    for row in rows.head(count).iter_rows(named=True):
        wrong = "  probably wrong" if row["probably_wrong"] else ""
        lines.append(
            f"  {row['image']:<{width}}  {row['kind']}: {row['target']} in the table, "
            f"{row['predicted']} predicted  (doubt {row['doubt']:.2f}){wrong}"
        )
    return "\n".join(lines)


class _Evidence:
    """What a run holds that was predicted of pictures by what has not seen them."""

    def __init__(self, run: Path, manifest: Manifest, table: AnnotationTable) -> None:
        self.run, self.manifest, self.table = run, manifest, table
        self.units = dict(zip(table.keys, unit_names(table, _contents(run)), strict=True))
        path = run / "evaluation" / "predictions.parquet"
        self.evaluated = read_predictions(path) if path.exists() else None

    def ranked(self) -> Iterator[tuple[str, pl.DataFrame]]:
        """Kind of opinion -> its rows, the most doubtful first."""
        predicted = self._scores()
        if predicted is not None:
            yield "score", self._ranked_scores(predicted)
        for name in self.table.attribute_names:
            predicted = self._labels(name)
            if predicted is not None:
                yield LABEL + name, self._ranked_labels(name, predicted)

    def root(self) -> Path | None:
        """Where the pictures are."""
        metrics, recipe = self.run / "evaluation" / "metrics.json", self.run / "recipe.yaml"
        if metrics.exists():
            known = json.loads(metrics.read_text("utf-8")).get("image_root")
            if known is not None:
                return Path(known)
        data = (yaml.safe_load(recipe.read_text("utf-8")) if recipe.exists() else {}).get("data")
        images = (data or {}).get("images")
        return Path(images) if images else None

    def _scores(self) -> _Predictions | None:
        """From the run's folds and its held-out pictures, or from linear models."""
        given = self._given("score")
        images: list[str] = []
        values: list[float] = []
        by: list[str] = []
        record = next((r for r in self.manifest.stages if r.kind in CROSS_VALIDATED), None)
        if record is not None:
            frame = pl.read_parquet(self.run / record.outputs["predictions"].path)
            images, values = frame["image"].to_list(), frame["predicted"].to_list()
            by = ["cross-validation"] * len(images)
        elif (of_features := self._linear("score")) is not None:
            return of_features
        if self.evaluated is not None:
            seen = set(images)
            known = self.evaluated.filter(
                pl.col("score").is_not_null() & pl.col("image").is_in(seen).not_()
            )
            images += known["image"].to_list()
            values += known["score"].to_list()
            by += ["judge"] * known.height
        rows = [row for row, image in enumerate(images) if image in given]
        if len(rows) < FEWEST:
            return None
        return _Predictions(
            [images[row] for row in rows], np.array(values)[rows], [by[row] for row in rows]
        )

    def _labels(self, name: str) -> _Predictions | None:
        """From linear models, or from held-out pictures."""
        of_features = self._linear(LABEL + name)
        if of_features is not None:
            return of_features
        column = PROBABILITIES + name
        if self.evaluated is None or column not in self.evaluated.columns:
            return None
        given = self._given(LABEL + name)
        known = self.evaluated.filter(pl.col("image").is_in(given) & pl.col(column).is_not_null())
        shares = known[column].struct.unnest()
        several = name in self.table.multi_label
        rows = [
            row for row, image in enumerate(known["image"])
            if set(given[image] if several else [given[image]]) <= set(shares.columns)
        ]  # fmt: skip
        if len(rows) < FEWEST or shares.width < (1 if several else 2):
            return None
        images = known["image"].to_list()
        return _Predictions(
            [images[row] for row in rows],
            shares.to_numpy()[rows],
            ["judge"] * len(rows),
            tuple(shares.columns),
        )

    def _linear(self, kind: str) -> _Predictions | None:
        """Predictions of linear models on the run's first pooled features; None: there are none,
        or too few groups or classes."""
        given = self._given(kind)
        store = self._store()
        images = [] if store is None else [key for key in given if key in store]
        units = [self.units[image] for image in images]
        folds = min(FOLDS, len(set(units)))
        if store is None or len(images) < FEWEST or folds < 2:
            return None
        opinions: list[Any] = [given[image] for image in images]
        several = kind.removeprefix(LABEL) in self.table.multi_label
        distinct = {label for labels in opinions for label in labels} if several else set(opinions)
        if len(distinct) < (1 if several else 2):
            return None
        _, pooled_NP = store.read(images, tokens=False)
        features_NP = pooled_NP.astype(np.float64)
        fold_N = assign_folds(units, folds)
        if kind == "score":
            scores = out_of_fold_scores(features_NP, np.array(opinions), fold_N)
            assert scores is not None, "no fold is empty"
            return _Predictions(images, scores, ["linear model"] * len(images))
        predict = out_of_fold_several if several else out_of_fold_probabilities
        classes, values = predict(features_NP, opinions, fold_N)
        return _Predictions(images, values, ["linear model"] * len(images), classes)

    def _store(self) -> FeatureStore | None:
        for record in self.manifest.stages:
            if record.kind == "extract":
                store = FeatureStore.open(self.run / record.outputs["store"].path)
                if store.pooled_dim is not None:
                    return store
        return None

    def _given(self, kind: str) -> dict[str, Any]:
        """Image key -> the table's opinion, where it has one."""
        return dict(_opinions(self.table, kind).iter_rows())

    def _ranked_scores(self, predicted: _Predictions) -> pl.DataFrame:
        given = self._given("score")
        target_N = np.array([given[image] for image in predicted.images])
        doubt_N = score_doubt(
            target_N, predicted.values, [self.units[image] for image in predicted.images]
        )
        targets, shown = _numbers(target_N), _numbers(predicted.values)
        return self._rows("score", predicted, targets, shown, doubt_N, doubt_N >= FAR)

    def _ranked_labels(self, name: str, predicted: _Predictions) -> pl.DataFrame:
        given = self._given(LABEL + name)
        targets = [given[image] for image in predicted.images]
        classes = np.array(predicted.classes)
        if name in self.table.multi_label:
            holds_NK = np.array([[label in labels for label in classes] for labels in targets])
            doubt_NK = several_labels_doubt(predicted.values, holds_NK)
            wrong_NK = several_probably_wrong(predicted.values, holds_NK)
            doubt_N, wrong_N = doubt_NK.max(axis=1), np.asarray(wrong_NK.any(axis=1))
            shown = [labels_cell(classes[row]) for row in predicted.values >= THRESHOLD]
            targets = [labels_cell(labels) for labels in targets]
        else:
            index_N = np.array([predicted.classes.index(label) for label in targets])
            doubt_N = label_doubt(predicted.values, index_N)
            wrong_N = probably_wrong(predicted.values, index_N)
            shown = classes[predicted.values.argmax(axis=1)].tolist()
        return self._rows(LABEL + name, predicted, targets, shown, doubt_N, wrong_N)

    def _rows(
        self,
        kind: str,
        predicted: _Predictions,
        targets: Sequence[str],
        shown: Sequence[str],
        doubt_N: np.ndarray,
        wrong_N: np.ndarray,
    ) -> pl.DataFrame:
        splits = dict(self.table.frame.select("image", "split").iter_rows())
        count = len(predicted.images)
        frame = pl.DataFrame(
            {
                "image": predicted.images, "kind": [kind] * count, "target": list(targets),
                "predicted": list(shown), "doubt": np.round(doubt_N, 4),
                "probably_wrong": wrong_N, "rank": [0] * count,
                "split": [splits[image] for image in predicted.images],
                "predicted_by": predicted.by,
            },
            SCHEMA,
        )  # fmt: skip
        ranked = frame.sort("probably_wrong", "doubt", "image", descending=[True, True, False])
        return ranked.with_columns(rank=pl.int_range(1, count + 1, dtype=pl.Int64))


def _opinions(table: AnnotationTable, kind: str) -> pl.DataFrame:
    """Image keys and the opinions of this kind that the table has."""
    column = kind if kind == "score" else ATTRIBUTE_PREFIX + kind.removeprefix(LABEL)
    return table.frame.select("image", column).drop_nulls(column)


def _covered(ranked: pl.DataFrame, given: pl.DataFrame) -> str:
    """In words which rows are ranked, and by what."""
    ways = {
        "cross-validation": "by the run's cross-validation, without their groups",
        "judge": "held out, by the judge",
        "linear model": "by linear models on the run's features, cross-validated without their "
        "groups",
    }
    counts = dict(ranked["predicted_by"].value_counts().iter_rows())
    parts = [f"{counts[by]} {way}" for by, way in ways.items() if by in counts]
    left = given.height - ranked.height
    rest = f"; {left} others are not ranked, nothing has predicted them unseen" if left else ""
    return (
        f"{ranked.height} of {given.height} opinions, {' and '.join(parts)}{rest}; "
        f"{ranked['probably_wrong'].sum()} are probably wrong."
    )


def _contents(run: Path) -> dict[str, str]:
    """Image key -> hash of the picture's content, as far as the run has kept it."""
    path = run / "pictures.parquet"
    if not path.exists():
        return {}
    return dict(pl.read_parquet(path, columns=["image", "sha256"]).drop_nulls().iter_rows())


def _numbers(values_N: np.ndarray) -> list[str]:
    return [f"{value:.4g}" for value in values_N]
