"""The page's parts on attributes: classes, calibration, what is confused, why; and labels of which
several may hold at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from beholder.report import plots
from beholder.report.cards import as_uri, image_root, picture_cards, thumbnail
from beholder.report.collect import ReportData

MISTAKES = 6  # of each attribute
CONFUSIONS, OF_EACH = 3, 4


def attribute_parts(data: ReportData) -> list[dict[str, Any]]:
    """For each evaluated attribute: its metrics, a table of classes, the reliability diagram, the
    most frequent confusions, and the mistakes that the judge was surest of."""
    parts = []
    for name, entry in (data.metrics or {}).get("attributes", {}).items():
        wrong = _wrong(data, name)
        before = entry.get("before_calibration")
        parts.append(
            {
                "name": name,
                "entry": entry,
                "before": before,
                "classes": _class_rows(entry),
                "no_class": _no_class(data, name),
                "reliability": plots.reliability(
                    name, entry["reliability"], before["reliability"] if before else None
                )
                if entry["ece"] is not None
                else "",
                "confusions": _confusions(data, name, wrong),
                "mistakes": picture_cards(data, wrong.head(MISTAKES)),
            }
        )
    return parts


def multi_label_parts(data: ReportData) -> list[dict[str, Any]]:
    """For each evaluated attribute of which several labels may hold at once: its metrics with a
    row per label, and the pictures where the judge was surest and wrong."""
    return [
        {
            "name": name,
            "entry": entry,
            "no_class": _no_class(data, name),
            "mistakes": picture_cards(data, _wrong(data, name).head(MISTAKES)),
        }
        for name, entry in (data.metrics or {}).get("multi_label", {}).items()
    ]


def explained(data: ReportData) -> list[dict[str, Any]]:
    """Pictures with the overlays that the evaluation has written."""
    folder = data.folder / "evaluation" / "explanations"
    if data.metrics is None or not (folder / "index.json").exists():
        return []
    root = image_root(data)
    entries = json.loads((folder / "index.json").read_text("utf-8"))
    return [
        {
            "image": entry["image"],
            "thumbnail": thumbnail(root, entry["image"]),
            "overlays": [_overlay(folder, overlay) for overlay in entry["overlays"]],
        }
        for entry in entries
    ]


def _overlay(folder: Path, overlay: dict[str, Any]) -> dict[str, Any]:
    return {**overlay, "picture": as_uri((folder / overlay["file"]).read_bytes())}


def _no_class(data: ReportData, name: str) -> list[str]:
    """Labels that are no class of the judge, with their counts."""
    not_answered = (data.metrics or {}).get("asked", {}).get("attributes", {}).get(name, {})
    return [f"{label} ({count})" for label, count in not_answered.get("no_class", {}).items()]


def _class_rows(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "label": label,
            "support": support,
            "precision": entry["precision_per_class"][label],
            "recall": entry["accuracy_per_class"][label],
            "f1": entry["f1_per_class"][label],
        }
        for label, support in zip(entry["classes"], entry["support"], strict=True)
    ]


def _wrong(data: ReportData, name: str) -> pl.DataFrame:
    """The mistakes, the surest first."""
    if data.predictions is None:
        return pl.DataFrame()
    target, label = pl.col(f"target.attributes.{name}"), pl.col(f"attributes.{name}")
    wrong = data.predictions.filter(target.is_not_null() & (target != label))
    return wrong.sort(f"probability.{name}", "image", descending=[True, False])


def _confusions(data: ReportData, name: str, wrong: pl.DataFrame) -> list[dict[str, Any]]:
    """The most frequent pairs of given and predicted class, with a few of their pictures."""
    if wrong.height == 0:
        return []
    target, label = f"target.attributes.{name}", f"attributes.{name}"
    pairs = (
        wrong.group_by(target, label)
        .len()
        .sort("len", target, label, descending=[True, False, False])
    )
    root = image_root(data)
    confusions = []
    for true, guess, count in pairs.head(CONFUSIONS).iter_rows():
        keys = wrong.filter((pl.col(target) == true) & (pl.col(label) == guess))["image"]
        confusions.append(
            {
                "given": true,
                "predicted": guess,
                "count": count,
                "pictures": [(key, thumbnail(root, key)) for key in keys.head(OF_EACH)],
            }
        )
    return confusions
