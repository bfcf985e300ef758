"""Reads what a run has produced into plain values for the page."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl
import yaml

from beholder.data.annotations import AnnotationTable
from beholder.data.vocabulary import comment_words
from beholder.errors import RunError
from beholder.evaluation.predictions import read_predictions
from beholder.metrics.ceiling import Scores
from beholder.metrics.opinion_check import OpinionCheck, check_opinions
from beholder.pipeline.manifest import READ, Manifest, load_manifest

PLAN, SENTENCES = "plan.json", "summary.txt"  # of a run that `beholder train` made

# stage -> name of the curve -> [(step, value)]
Curves = dict[str, dict[str, list[tuple[float, float]]]]


@dataclass(frozen=True)
class DataSummary:
    """What the table holds: counts per split, scores, most frequent words, classes."""

    pictures: dict[str, int]
    groups: int
    scores: list[float]
    comments: int
    comment_lengths: list[int]
    distinct_words: int
    words: list[tuple[str, int]]
    classes: dict[str, list[tuple[str, int]]]


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows; what the run does not have is None or empty."""

    folder: Path
    manifest: Manifest
    recipe: str
    curves: Curves
    alarms: list[dict[str, Any]]
    metrics: dict[str, Any] | None
    predictions: pl.DataFrame | None
    summary: DataSummary | None
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    averages: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage `average` -> its interval, and metrics per held-out split."""
    speeds: dict[str, dict[str, float]] = field(default_factory=dict)
    """Stage that was trained -> throughput, waiting for data and peak memory, see `read_speeds`."""
    read: dict[str, Any] | None = None
    """What was understood of the table, see `formats.Reading.to_dict`; None: the sample's."""
    opinions: OpinionCheck | None = None
    """What the table's ratings say of raters and pictures; None: it does not say who rated what."""
    sentences: list[str] = field(default_factory=list)
    """What a person should know of the judge, as `beholder train` says it."""
    leaderboard: list[dict[str, Any]] = field(default_factory=list)
    """The candidates that `beholder train` compared, best first."""


def collect(run: Path) -> ReportData:
    """Read a run folder.

    Raises:
        RunError: it has no manifest, or the manifest can't be read.
    """
    manifest = load_manifest(run)
    if manifest is None:
        raise RunError(
            "This folder is not a run: it has no manifest.json.",
            where=str(run),
            fix="Name a folder that `beholder fit` or `beholder demo` wrote.",
        )
    metrics_path = run / "evaluation" / "metrics.json"
    predictions_path = run / "evaluation" / "predictions.parquet"
    table_path = run / "annotations.parquet"
    recipe = _text(run / "recipe.yaml")
    read = _text(run / READ)
    quarantine_path = run / "quarantine.csv"
    table = AnnotationTable.from_parquet(table_path) if table_path.exists() else None
    plan = _text(run / PLAN)
    return ReportData(
        folder=run,
        manifest=manifest,
        recipe=recipe,
        read=json.loads(read) if read else None,
        sentences=_text(run / SENTENCES).splitlines(),
        leaderboard=json.loads(plan)["leaderboard"] if plan else [],
        curves=read_curves(run / "metrics.jsonl"),
        alarms=read_alarms(run / "metrics.jsonl"),
        speeds=read_speeds(run / "metrics.jsonl"),
        metrics=json.loads(metrics_path.read_text("utf-8")) if metrics_path.exists() else None,
        predictions=read_predictions(predictions_path) if predictions_path.exists() else None,
        summary=summarise(table) if table is not None else None,
        opinions=check_opinions(table, _scores_of(recipe)) if table is not None else None,
        quarantined=pl.read_csv(quarantine_path).to_dicts() if quarantine_path.exists() else [],
        averages={
            path.parent.name: json.loads(path.read_text("utf-8"))
            for path in sorted(run.glob("scores/*/metrics.json"))
        },
    )


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.exists() else ""


def _scores_of(recipe: str) -> Scores:
    """What the run's scores are, where its table has ratings."""
    data = (yaml.safe_load(recipe) or {}).get("data") or {}
    return "corrected" if data.get("ratings") == "corrected" else "mean"


def read_curves(path: Path) -> Curves:
    """The curves of `metrics.jsonl`, named `<split> <metric>`; the newest value of a step wins."""
    points: dict[str, dict[str, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            entry = json.loads(line)
            split = entry.get("split", "train")
            for name, value in entry.items():
                if name in ("time", "stage", "step", "epoch", "split"):
                    continue
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    points[entry["stage"]][f"{split} {name}"][entry["step"]] = float(value)
    return {
        stage: {name: sorted(steps.items()) for name, steps in curves.items()}
        for stage, curves in points.items()
    }


def read_alarms(path: Path) -> list[dict[str, Any]]:
    """What tasks have found wrong while they trained: stage, epoch and `alarm`, in words."""
    if not path.exists():
        return []
    entries = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [entry for entry in entries if entry.get("split") == "alarm"]


def read_speeds(path: Path) -> dict[str, dict[str, float]]:
    """Per stage of `metrics.jsonl`: medians over its lines of `pictures_per_second` and
    `data_wait` (share of the time, 0 to 1), and the highest `peak_host_bytes` and, on an
    accelerator that counts them, `peak_device_bytes`."""
    by_stage: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            entry = json.loads(line)
            for name, value in entry.get("throughput", {}).items():
                by_stage[entry["stage"]][name].append(value)
    return {
        stage: {
            name: max(values) if name.startswith("peak") else median(values)
            for name, values in by_name.items()
        }
        for stage, by_name in by_stage.items()
    }


def summarise(table: AnnotationTable, top_words: int = 40) -> DataSummary:
    """Counts of a table for the page."""
    frame = table.frame
    comments = [comment for row in frame["comments"].to_list() for comment in row]
    tokens = [comment_words(comment) for comment in comments]
    counts = Counter(word for words in tokens for word in words)
    splits = Counter(split or "no split" for split in frame["split"].to_list())
    classes = {}
    for name, labels in table.classes.items():
        label_counts = Counter(table.labels(name).to_list())
        classes[name] = [(label, label_counts[label]) for label in labels]
    return DataSummary(
        pictures={s: splits[s] for s in ("train", "val", "test", "no split") if s in splits},
        groups=frame["group"].n_unique() if frame["group"].is_not_null().any() else 0,
        scores=frame["score"].drop_nulls().to_list(),
        comments=len(comments),
        comment_lengths=[len(words) for words in tokens],
        distinct_words=len(counts),
        words=counts.most_common(top_words),
        classes=classes,
    )
