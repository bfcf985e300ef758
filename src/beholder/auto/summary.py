"""The sentences at the end of a training: how good the judge is on pictures that it has not seen,
against what would be said without looking, how far to trust it, and what would help most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl

from beholder.auto.run_insights import CrossValidated, LearningCurve, Weakest
from beholder.auto.search import Standing
from beholder.data.annotations import AnnotationTable
from beholder.evaluation.evaluate import level_of
from beholder.evaluation.robustness import robustness_sentence
from beholder.metrics.correlation import Interval
from beholder.metrics.correlation import rmse as error_of
from beholder.metrics.opinion_check import check_opinions

HELPS = 0.02  # of a skill: what less than that brings can't be told from chance
GROUPS_LEAST = 10  # held-out groups, below which figures are of these groups more than of the judge


def sentences(
    metrics: Mapping[str, Any],
    table: AnnotationTable,
    *,
    test_groups: int,
    neighbour_cider: float | None,
    curves: Mapping[str, LearningCurve],
    weakest: Weakest | None = None,
    crossed: CrossValidated | None = None,
) -> list[str]:
    """What a person should know of the judge.

    Args:
        metrics: of the evaluation on the test split.
        table: with every row's split.
        test_groups: of pictures that belong together, in the test split.
        neighbour_cider: CIDEr-D on the test split of the comment of the most similar training
            picture; None: no comments.
        curves: opinion -> what it was told with by models that learn from some of the pictures.
        weakest: pictures whose scores are further off than the others'; None: none stand out.
        crossed: the scores' cross-validation, if there was one.
    """
    pictures = metrics["counts"]["pictures"]
    groups = f"{test_groups} groups" if test_groups != 1 else "one group"
    lines = [f"Judged {pictures} pictures that it has not seen, of {groups}."]
    if test_groups < GROUPS_LEAST:
        lines.append(f"With only {groups} held out, take these figures as a first impression.")
    lines += _score_lines(metrics, table, crossed)
    lines += _attribute_lines(metrics)
    lines += _comment_lines(metrics, neighbour_cider)
    ceiling = _ceiling(table) if "score" in metrics else None
    reached = crossed.srcc if crossed else metrics.get("score", {}).get("srcc", {}).get("value")
    lines += _what_helps(curves, more_raters(reached, ceiling), weakest)
    return lines


def nothing_held_out(standing: Standing) -> list[str]:
    """In the place of the sentences, where the test split is empty."""
    shown = ", ".join(f"{name} {value:.2f}" for name, value in standing.parts.items())
    return [
        "No picture was held out, so nothing is known of how good the judge is on others; "
        f"cross-validation of its features on {standing.pictures} pictures: {shown}."
    ]


def _score_lines(
    metrics: Mapping[str, Any], table: AnnotationTable, crossed: CrossValidated | None
) -> Iterator[str]:
    if "score" not in metrics:
        return
    srcc, rmse = metrics["score"]["srcc"], metrics["score"]["rmse"]
    train = table.subset("train").frame["score"].drop_nulls()
    test = table.subset("test").frame["score"].drop_nulls().to_numpy()
    constant = float(train.mean())  # type: ignore[arg-type]  # there are scores to learn from
    always = error_of(test, np.full(len(test), constant))
    span = _span(srcc, metrics["counts"])
    yield (
        f"Scores: SRCC {srcc['value']:.2f}{span} with people's; off by {rmse['value']:.2f} "
        f"(RMSE), always saying {constant:.2f} by {always:.2f}."
        if srcc["value"] is not None
        else f"Scores: off by {rmse['value']:.2f} (RMSE), always saying {constant:.2f} by "
        f"{always:.2f}; their order can't be compared."
    )
    if crossed is not None:
        yield (
            f"Cross-validated on the other {crossed.pictures} pictures, leaving out some of their "
            f"{crossed.groups} groups at a time: SRCC {crossed.srcc:.2f}, off by "
            f"{crossed.rmse:.2f}, always saying their mean by {crossed.always:.2f}."
        )
        if crossed.rmse >= crossed.always:
            yield (
                "The height of scores is predicted no better than by a constant: trust their order."
            )
    elif rmse["value"] >= always:
        yield "The scores are no better than a constant: do not use them yet."
    ceiling = _ceiling(table)
    if ceiling is not None:
        yield (
            f"A perfect judge would reach SRCC {ceiling.value:.2f} with these raters "
            f"({ceiling.low:.2f} to {ceiling.high:.2f})."
        )
    if "interval" in metrics:
        entry = metrics["interval"]
        yield (
            f"Intervals: {entry['level']:.0%} asked for, {entry['covered']:.0%} of the scores lie "
            f"in them, {entry['width']:.2f} wide on average."
        )
    robust = robustness_sentence(metrics)
    if robust is not None:
        yield robust


def _span(entry: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    if entry["low"] is None or entry["high"] is None:
        return ""
    return f" ({level_of(counts)}: {entry['low']:.2f} to {entry['high']:.2f})"


def _attribute_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in metrics.get("attributes", {}).items():
        if entry["top1"] is None:
            continue
        worse = entry["top1"] <= entry["majority"]
        yield (
            f"{name}: {entry['top1']:.0%} right; the most frequent class alone would be "
            f"{entry['majority']:.0%}{': no better than that yet' if worse else ''}."
        )
    for name, entry in metrics.get("multi_label", {}).items():
        precision, chance = entry["mean_average_precision"], entry["constant_precision"]
        if precision is None:
            continue
        worse = ": no better than that yet" if precision <= chance else ""
        yield (
            f"{name}: mean average precision {precision:.2f} over its labels, saying the same of "
            f"every picture {chance:.2f}{worse}; {entry['right']:.0%} of the labels right, the "
            f"most frequent ones alone {entry['constant_right']:.0%}."
        )


def _comment_lines(metrics: Mapping[str, Any], neighbour: float | None) -> Iterator[str]:
    value = metrics.get("comments", {}).get("CIDEr-D")
    if value is None:
        return
    if neighbour is None:
        yield f"Comments: CIDEr-D {value:.2f}."
        return
    beats = "" if value > neighbour else ": the captioner does not beat that yet"
    yield (
        f"Comments: CIDEr-D {value:.2f}; copying the most similar training picture's comment gets "
        f"{neighbour:.2f}{beats}."
    )


def _ceiling(table: AnnotationTable) -> Interval | None:
    """Of a perfect judge on the test split; None: not known who gave which score."""
    checked = check_opinions(table)
    return None if checked is None else checked.ceiling_of(table.subset("test").keys)


def more_raters(reached: float | None, ceiling: Interval | None) -> float | None:
    """What twice as many raters per picture would add to a judge's SRCC with their mean scores,
    though it learnt nothing from them; None: not known.

    The ceiling is the root of the scores' reliability, which doubling the raters makes
    2 r / (1 + r) (Spearman 1910; Brown 1910), and noise takes the same share of any judge's
    correlation (Spearman 1904).

    Args:
        reached: the judge's SRCC.
        ceiling: the SRCC of a perfect judge.
    """
    if reached is None or ceiling is None or ceiling.value <= 0.0:
        return None
    reliability = ceiling.value**2
    doubled = (2.0 * reliability / (1.0 + reliability)) ** 0.5
    return float(max(0.0, reached) * (doubled / ceiling.value - 1.0))


def _what_helps(
    curves: Mapping[str, LearningCurve], raters: float | None, weakest: Weakest | None
) -> Iterator[str]:
    """More pictures, more raters or other pictures: what brings most first."""
    name = max(curves, key=lambda key: curves[key].doubled, default=None)
    pictures = curves[name].doubled if name is not None else 0.0
    if raters is not None and raters >= max(HELPS, pictures):
        yield (
            f"More raters per picture would help most: twice as many would add about {raters:.2f} "
            f"to the SRCC of the scores, twice as many pictures about {pictures:.2f}."
        )
    elif name is not None and pictures >= HELPS:
        beside = "" if raters is None else f"; twice as many raters per picture, {raters:.2f}"
        yield (
            f"More pictures would help most: {name} was told with {_steps(curves[name])} "
            f"(cross-validated skill); twice as many may add about {pictures:.2f}{beside}."
        )
    elif name is not None:
        others = "" if raters is not None else ", or more raters per picture,"
        yield (
            "More pictures of the same kind would help little: "
            f"{name} was told with {_steps(curves[name])} (cross-validated skill). Other kinds of "
            f"pictures{others} may help."
        )
    if weakest is not None:
        what = "its score" if weakest.by == "score" else weakest.by
        yield (
            f"Other pictures would help where it does worst: where {what} is {weakest.value} "
            f"({weakest.pictures} pictures) scores are off by {weakest.off:.2f} on average, "
            f"elsewhere by {weakest.others:.2f}."
        )


def _steps(curve: LearningCurve) -> str:
    quarter = "" if curve.quarter is None else f"{curve.quarter:.2f} from a quarter of them, "
    return f"{quarter}{curve.half:.2f} from half and {curve.whole:.2f} from all"


def render_leaderboard(rows: pl.DataFrame) -> str:
    """The candidates as a table for people, best first."""
    names = [name for name in rows.columns if name not in ("candidate", "seconds", "pictures")]
    width = max(len("candidate"), *(len(name) for name in rows["candidate"]))
    lines = [f"  {'candidate':<{width}}  " + "  ".join(f"{name:>10}" for name in names)]
    for row in rows.iter_rows(named=True):
        values = "  ".join(
            f"{'':>10}" if row[name] is None else f"{row[name]:>{max(10, len(name))}.3f}"
            for name in names
        )
        lines.append(f"  {row['candidate']:<{width}}  {values}")
    return "\n".join(lines)
