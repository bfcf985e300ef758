"""The page's part on raters: who stands out, what is disputed, what a perfect model could reach."""

from __future__ import annotations

from typing import Any

import polars as pl

from beholder.metrics.opinion_check import SCORES, OpinionCheck
from beholder.report import plots
from beholder.report.cards import image_root, thumbnail
from beholder.report.collect import ReportData

DISPUTED = 6  # pictures


def raters_part(data: ReportData, score_name: str) -> dict[str, Any] | None:
    """Plots and rows of the opinion check; None where the table does not say who rated what."""
    check = data.opinions
    if check is None or check.model is None:
        return {"check": check} if check else None
    return {
        "check": check,
        "scores": SCORES[check.scores],
        "raters": plots.raters(
            [(entry.bias, entry.bias_error) for entry in check.raters],
            [(entry.inconsistency, entry.inconsistency_error) for entry in check.raters],
            [entry.rater if entry.remarks else "" for entry in check.raters],
        ),
        "ceiling": _ceiling_plot(data, check, score_name),
        "disputed": [
            (entry, thumbnail(image_root(data), entry.image) if data.metrics else "")
            for entry in check.disputed[:DISPUTED]
        ],
    }


def _ceiling_plot(data: ReportData, check: OpinionCheck, score_name: str) -> str:
    """The judge's SRCC beside that of a perfect model on the same pictures, if it was evaluated."""
    rows = []
    where = "all pictures"
    ceiling = check.ceiling
    if data.predictions is not None and "score" in (data.metrics or {}):
        known = pl.col("target.score").is_not_null() & pl.col("score").is_not_null()
        ceiling = check.ceiling_of(data.predictions.filter(known)["image"])
        where = "held-out pictures"
        srcc = (data.metrics or {})["score"]["srcc"]
        rows.append(("this judge", srcc["value"], srcc["low"], srcc["high"]))
    if ceiling is not None:
        rows.append(("perfect model", ceiling.value, ceiling.low, ceiling.high))
    whole = [row for row in rows if None not in row]
    return plots.intervals(whole, f"SRCC with {score_name}, {where}") if whole else ""
