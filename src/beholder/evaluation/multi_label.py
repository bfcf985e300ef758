"""What an evaluation says of attributes of which several labels may hold at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from beholder.data.labels import split_labels
from beholder.evaluation.predictions import TARGET
from beholder.judge.calibration import Calibration
from beholder.judge.row import LABEL
from beholder.judge.verdict import Verdict
from beholder.metrics.classification import show
from beholder.metrics.info import signature
from beholder.metrics.multi_label import score_multi_label

METRICS = ("mean_average_precision", "macro_f1")


def multi_label_metrics(
    metrics: dict[str, Any],
    frame: pl.DataFrame,
    classes: Mapping[str, Sequence[str]],
    calibration: Calibration,
    verdicts: Sequence[Verdict],
) -> None:
    """Add `multi_label`, an entry for each attribute, to the metrics of an evaluation. Labels that
    are no class of the judge are never said to hold, and count as missed.

    Args:
        frame: a row per verdict, in their order, with the targets.
        classes: the multi-label attributes of the judge.
    """
    entries = {}
    for name, known_labels in classes.items():
        if TARGET + LABEL + name not in frame.columns:
            continue
        labels = (*known_labels, *metrics["asked"]["attributes"][name]["no_class"])
        cells = frame[TARGET + LABEL + name].to_list()
        target_BK = np.array(
            [
                [np.nan] * len(labels) if cell is None else holding(split_labels(cell), labels)
                for cell in cells
            ]
        )
        attributes = [verdict.attributes[name] for verdict in verdicts]
        said_BK = np.array([holding(attribute.labels, labels) for attribute in attributes])
        sure_BK = np.array(
            [[attribute.probabilities.get(n, 0.0) for n in labels] for attribute in attributes]
        )
        thresholds = None
        if name in calibration.thresholds:
            thresholds = calibration.thresholds_of(name, labels)
        entries[name] = score_multi_label(target_BK, said_BK, sure_BK, labels, thresholds).to_dict()
    if entries:
        metrics["signature"] |= {name: signature(name) for name in METRICS}
        metrics["multi_label"] = entries


def holding(held: Sequence[str], labels: Sequence[str]) -> list[float]:
    """1 for each of the labels that holds, 0 for the others [K]."""
    return [float(label in held) for label in labels]


def multi_label_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """The entries for people: what is told of each attribute, and of each of its labels."""
    for name, entry in metrics.get("multi_label", {}).items():
        yield (
            f"  {name:<11} mean AP {show(entry['mean_average_precision'], 3)} (the same of every "
            f"picture {show(entry['constant_precision'], 3)})  macro-F1 "
            f"{show(entry['macro_f1'], 3)}  labels right {show(entry['right'], 3)} (most frequent "
            f"ones {show(entry['constant_right'], 3)})"
        )
        width = max(len(label["label"]) for label in entry["labels"])
        for label in entry["labels"]:
            yield (
                f"    {label['label']:<{width}}  {label['support']:>5} pictures  "
                f"AP {show(label['average_precision'], 3)}  F1 {show(label['f1'], 3)}  "
                f"precision {show(label['precision'], 3)}  recall {show(label['recall'], 3)}"
                + ("" if label["threshold"] is None else f"  from {label['threshold']:.2f} on")
            )
