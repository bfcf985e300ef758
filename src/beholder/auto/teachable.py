"""What a table has opinions for, and how many: what can be learnt from it, and what can't."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import polars as pl

from beholder.data.annotations import AnnotationTable
from beholder.data.labels import labels_cell
from beholder.errors import DataError

Opinion = Literal["score", "attributes", "comments"]
OPINIONS: tuple[Opinion, ...] = get_args(Opinion)
FEWEST = 8  # pictures with an opinion, below which nothing is learnt from it
RARE = 5  # pictures of a class, below which it is said that the class is rare


@dataclass(frozen=True)
class Teachable:
    """The opinions that a judge can learn from a table, and sentences on what it can't.

    Args:
        opinions: in the order of `OPINIONS`, at least one.
        notes: what is left out, or will be learnt from few pictures, and why.
    """

    opinions: tuple[Opinion, ...]
    notes: tuple[str, ...]


def find_opinions(table: AnnotationTable, only: Sequence[Opinion] = ()) -> Teachable:
    """Look at what a table has opinions for.

    Args:
        only: learn these alone; empty: all that can be learnt.

    Raises:
        DataError: nothing can be learnt, or not all of `only`; says why for each.
    """
    reasons = {
        "score": _why_no_score(table),
        "attributes": _why_no_attributes(table),
        "comments": _why_no_comments(table),
    }
    wanted = only or OPINIONS
    refused = [reasons[opinion] for opinion in wanted if reasons[opinion]]
    learnt = tuple(opinion for opinion in OPINIONS if opinion in wanted and not reasons[opinion])
    if not learnt or (only and refused):
        raise DataError(
            f"There is nothing to learn: {'; '.join(refused)}."
            if not learnt
            else f"Not all of {', '.join(only)} can be learnt: {'; '.join(refused)}.",
            fix="See with `beholder check TABLE` what is read from which column; `--columns` says "
            "which is what.",
        )
    notes = [] if only else [reason for reason in refused if "has no" not in reason]
    return Teachable(learnt, (*notes, *(_rare_classes(table) if "attributes" in learnt else ())))


def _why_no_score(table: AnnotationTable) -> str:
    """Why scores can't be learnt; empty: they can."""
    scores = table.frame["score"].drop_nulls()
    if scores.is_empty():
        return "the table has no scores"
    if len(scores) < FEWEST:
        return f"{len(scores)} scores are too few, {FEWEST} are the least"
    if scores.n_unique() == 1:
        return f"all {len(scores)} scores are {scores[0]:g}"
    return ""


def _why_no_attributes(table: AnnotationTable) -> str:
    labels = {name: table.frame[f"attribute.{name}"].drop_nulls() for name in table.attribute_names}
    if not labels:
        return "the table has no labels"
    if not any(series.n_unique() > 1 for series in labels.values()):
        return "every attribute has one class only: " + ", ".join(
            f"{name} is always {_shown(series[0])}" if len(series) else f"{name} is never given"
            for name, series in labels.items()
        )
    most = max(len(series) for series in labels.values())
    if most < FEWEST:
        return f"{most} labelled pictures are too few, {FEWEST} are the least"
    return ""


def _shown(label: str | pl.Series) -> str:
    return repr(label if isinstance(label, str) else labels_cell(label))


def _why_no_comments(table: AnnotationTable) -> str:
    count = table.frame.filter(pl.col("comments").list.len() > 0).height
    if count == 0:
        return "the table has no comments"
    if count < FEWEST:
        return f"{count} pictures with a comment are too few, {FEWEST} are the least"
    return ""


def _rare_classes(table: AnnotationTable) -> list[str]:
    """A sentence for every attribute with classes of a few pictures."""
    sentences = []
    for name in table.attribute_names:
        counts = Counter(table.labels(name).to_list())
        rare = {label: count for label, count in sorted(counts.items()) if count < RARE}
        if rare:
            shown = ", ".join(f"{label!r} ({count})" for label, count in list(rare.items())[:5])
            more = f" and {len(rare) - 5} more" if len(rare) > 5 else ""
            sentences.append(f"classes of {name!r} with fewer than {RARE} pictures: {shown}{more}")
    return sentences
