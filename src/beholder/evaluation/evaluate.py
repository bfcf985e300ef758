"""A judge against the opinions of a table: verdicts of its pictures, and the
metrics of each head.

A picture that can't be judged is left out of the metrics, counted, and listed. What else a table
asks that the judge can't answer is counted too (`asked` of the metrics), and never makes a figure
better: a label that is no class of the judge counts as a wrong answer.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from beholder.data.annotations import AnnotationTable
from beholder.data.images import resolve_key
from beholder.data.labels import split_labels
from beholder.data.progress import progress
from beholder.data.sharing import ALONE, Processes, joined_parts, part_of
from beholder.errors import DataError, PictureError
from beholder.evaluation.multi_label import multi_label_lines, multi_label_metrics
from beholder.evaluation.predictions import TARGET, with_targets
from beholder.evaluation.robustness import robustness_lines
from beholder.evaluation.slices import interval_figures, interval_slices
from beholder.judge.calibration import Calibration, temperature_scaled
from beholder.judge.row import LABEL, PROBABILITY
from beholder.judge.runner import Request, judge_pictures
from beholder.judge.verdict import Failure, Judged, Verdict
from beholder.metrics.captions import evaluate_captions
from beholder.metrics.classification import (
    UNLABELLED,
    calibration_error,
    mean_acsa,
    mean_top1,
    reliability,
    score_attribute,
    show,
)
from beholder.metrics.correlation import bootstrap
from beholder.metrics.info import signature

if TYPE_CHECKING:
    from beholder.judge import Judge

log = logging.getLogger("beholder")

CORRELATIONS = ("plcc", "srcc", "krcc", "rmse")
ATTRIBUTE_METRICS = ("top1", "acsa", "macro_f1", "ece")
CAPTION_METRICS = ("BLEU", "ROUGE_L", "CIDEr-D")


@dataclass(frozen=True)
class Evaluation:
    """Metrics as plain JSON values, one row per judged picture, and what could not be judged."""

    metrics: dict[str, Any]
    predictions: pl.DataFrame
    failures: list[Failure]


def evaluate_judge(
    judge: Judge,
    table: AnnotationTable,
    root: Path,
    *,
    batch_size: int = 32,
    resamples: int = 2000,
    seed: int = 0,
    groups: Mapping[str, str] | None = None,
    processes: Processes = ALONE,
) -> Evaluation:
    """Judge every picture of the table and compare with the opinions it gives.

    Args:
        table: its rows' opinions are the targets; what is missing in a row is not compared.
        root: folder that the image keys start from.
        resamples, seed: of the bootstrap behind the intervals (95 %).
        groups: image key -> what the picture belongs to, with no independent pictures in one;
            None: the table's groups.
        processes: those that all call this and judge a part each; every one gets the whole.

    Raises:
        DataError: the table is empty, the root is missing, or no picture could be judged.
    """
    if len(table) == 0:
        raise DataError("There is no row to evaluate on.", fix="Choose another table or split.")
    if not root.is_dir():
        raise DataError("The folder of pictures does not exist.", where=str(root))
    requests, failures = find_requests(table, root)
    starts = part_of(range(0, len(requests), batch_size), processes)
    part = requests[starts[0] : starts[-1] + batch_size] if starts else []
    judging = judge_pictures(judge, part, batch_size=batch_size)
    if processes.rank == 0:
        judging = progress(judging, "judging", total=len(part))
    judged = [*failures, *joined_parts(list(judging), processes)]
    return compare_verdicts(
        judged, table, judge.classes, multi_label=judge.multi_label,
        calibration=judge.calibration, root=root, resamples=resamples, seed=seed, groups=groups,
    )  # fmt: skip


def compare_verdicts(
    judged: Sequence[Judged],
    table: AnnotationTable,
    classes: Mapping[str, Sequence[str]],
    *,
    multi_label: Collection[str] = (),
    calibration: Calibration | None = None,
    root: Path | None = None,
    resamples: int = 2000,
    seed: int = 0,
    groups: Mapping[str, str] | None = None,
) -> Evaluation:
    """Compare verdicts with the opinions that a table gives on the same pictures.

    Args:
        judged: of the table's pictures, by their image keys.
        table, resamples, seed, groups: as for `evaluate_judge`.
        classes: attribute -> labels, of the judge.
        multi_label: those of which it may say several labels at once.
        calibration: the judge's; None: not known.
        root: folder that the image keys start from; None: not known.

    Raises:
        DataError: there is no verdict.
    """
    verdicts = [entry for entry in judged if isinstance(entry, Verdict)]
    failures = [entry for entry in judged if isinstance(entry, Failure)]
    if not verdicts:
        raise DataError(
            f"None of the {len(table)} pictures could be judged; the first: {failures[0].message}",
            where=failures[0].image,
        )
    for failure in failures:
        log.warning("not judged: %s: %s", failure.image, failure.message)
    frame = with_targets(verdicts, classes, table)
    metrics: dict[str, Any] = {
        "counts": {"pictures": len(verdicts), "failed": len(failures)},
        **({} if root is None else {"image_root": str(root)}),
        "asked": _asked(classes, multi_label, table, frame),
        "signature": {},
    }
    calibration = calibration or Calibration()
    groups = table.groups if groups is None else groups
    _score_metrics(metrics, frame, groups, resamples, seed)
    _interval_metrics(metrics, frame, calibration, root)
    single = {name: labels for name, labels in classes.items() if name not in multi_label}
    _attribute_metrics(metrics, frame, single, calibration, verdicts)
    several = {name: labels for name, labels in classes.items() if name in multi_label}
    multi_label_metrics(metrics, frame, several, calibration, verdicts)
    frame = _comment_metrics(metrics, frame)
    for line in not_answered(metrics):
        log.warning("%s", line)
    return Evaluation(metrics, frame, failures)


def find_requests(table: AnnotationTable, root: Path) -> tuple[list[Request], list[Failure]]:
    """The table's pictures with their boxes, and those whose keys lead to no file."""
    requests: list[Request] = []
    failures: list[Failure] = []
    for key, box in table.frame.select("image", "box").iter_rows():
        try:
            requests.append(Request(key, resolve_key(root, key), tuple(box) if box else None))
        except PictureError as error:
            failures.append(Failure(key, error.code, error.what))
    return requests, failures


def _asked(
    classes: Mapping[str, Sequence[str]],
    multi_label: Collection[str],
    table: AnnotationTable,
    frame: pl.DataFrame,
) -> dict[str, Any]:
    """How many rows give each opinion, how many of them are compared, and which labels are no
    class of the judge (they are compared, and wrong)."""
    score, comments = pl.col("score").is_not_null(), pl.col("comments").list.len() > 0
    asked: dict[str, Any] = {
        "score": _given(table.frame.filter(score).height, frame, "target.score", pl.col("score")),
        "comments": {
            "given": table.frame.filter(comments).height,
            "compared": frame.filter(
                (pl.col("target.comments").list.len() > 0) & pl.col("comment").is_not_null()
            ).height,
        },
        "attributes": {},
    }
    for name in table.attribute_names:
        column = f"attribute.{name}"
        labels = table.frame[column].drop_nulls()
        if name not in classes:
            asked["attributes"][name] = {"given": len(labels), "compared": 0}
            continue
        target = TARGET + LABEL + name
        entry = _given(len(labels), frame, target, pl.col(LABEL + name))
        known = set(classes[name])
        cells = frame[target].drop_nulls().to_list()
        if name in multi_label:
            cells = [label for cell in cells for label in split_labels(cell)]
        unknown = Counter(cells)
        entry["no_class"] = {label: n for label, n in sorted(unknown.items()) if label not in known}
        asked["attributes"][name] = entry
    return asked


def _given(given: int, frame: pl.DataFrame, column: str, predicted: pl.Expr) -> dict[str, Any]:
    compared = frame.filter(pl.col(column).is_not_null() & predicted.is_not_null())
    return {"given": given, "compared": compared.height}


def not_answered(metrics: dict[str, Any]) -> list[str]:
    """Sentences on what the table asks that the judge can't answer; none where it answers all."""
    asked = metrics.get("asked")
    if asked is None:  # of an evaluation before these were counted
        return []
    lines = []
    opinions = {"scores": asked["score"], "comments": asked["comments"]}
    opinions |= {f"labels of {name!r}": entry for name, entry in asked["attributes"].items()}
    for what, entry in opinions.items():
        left = entry["given"] - entry["compared"]
        if left and not entry["compared"]:
            lines.append(f"{left} {what} are not compared: the judge says nothing of the kind")
        elif left:
            lines.append(f"{left} of {entry['given']} {what} are not compared: no verdict")
        if entry.get("no_class"):
            shown = ", ".join(f"{label!r} ({count})" for label, count in entry["no_class"].items())
            lines.append(
                f"{sum(entry['no_class'].values())} of {entry['compared']} {what} are no class of "
                f"the judge and count as wrong: {shown}"
            )
    return lines


def _score_metrics(
    metrics: dict[str, Any],
    frame: pl.DataFrame,
    groups: Mapping[str, str],
    resamples: int,
    seed: int,
) -> None:
    known = frame.filter(pl.col("target.score").is_not_null() & pl.col("score").is_not_null())
    if known.height < 2:
        return
    targets, predicted = known["target.score"].to_numpy(), known["score"].to_numpy()
    group_of = [groups[key] for key in known["image"]]
    metrics["counts"]["groups"] = count = len(set(group_of))
    intervals = bootstrap(targets, predicted, CORRELATIONS, n=resamples, seed=seed, groups=group_of)
    metrics["score"] = {
        name: {"value": _plain(i.value), "low": _plain(i.low), "high": _plain(i.high)}
        for name, i in intervals.items()
    }
    what = "pictures" if count == known.height else f"{count} group{'s' if count > 1 else ''}"
    how = f"95 % bootstrap interval: {resamples} resamples of {what}, seed {seed}"
    metrics["signature"] |= {name: signature(name, how) for name in CORRELATIONS}


def _interval_metrics(
    metrics: dict[str, Any], frame: pl.DataFrame, calibration: Calibration, root: Path | None
) -> None:
    """How many target scores lie within their intervals, where there are intervals."""
    known = frame.filter(pl.col("target.score").is_not_null() & pl.col("low").is_not_null())
    if known.height == 0:
        return
    fitted = calibration.score
    level = None if fitted is None else fitted.level
    metrics["interval"] = {
        "level": level,
        "calibrated_on": None if fitted is None else fitted.pictures,
        "calibrated_groups": None if fitted is None else fitted.groups,
        **interval_figures(known, level),
        "slices": interval_slices(known, level, root),
    }


def _attribute_metrics(
    metrics: dict[str, Any],
    frame: pl.DataFrame,
    classes: Mapping[str, Sequence[str]],
    calibration: Calibration,
    verdicts: Sequence[Verdict],
) -> None:
    """`frame` holds a row per verdict, in their order."""
    scores, entries = {}, {}
    for name, labels in classes.items():
        target = TARGET + LABEL + name
        if target not in frame.columns:
            continue
        no_class = metrics["asked"]["attributes"][name]["no_class"]
        labels = (*labels, *no_class)  # classes that are given and never predicted
        index = {label: position for position, label in enumerate(labels)}
        targets = [
            UNLABELLED if label is None else index[label] for label in frame[target].to_list()
        ]
        predicted = [index[label] for label in frame[LABEL + name].to_list()]
        probabilities = frame[PROBABILITY + name].to_numpy()
        scores[name] = score_attribute(targets, predicted, labels, probabilities)
        entries[name] = scores[name].to_dict()
        temperature = calibration.temperatures.get(name)
        if temperature is not None:
            sure = _uncalibrated(verdicts, name, temperature)
            bins = reliability(targets, predicted, sure)
            entries[name]["before_calibration"] = {
                "temperature": temperature,
                "ece": calibration_error(bins),
                "reliability": [asdict(entry) for entry in bins],
            }
    if scores:
        metrics["signature"] |= {name: signature(name) for name in ATTRIBUTE_METRICS}
        metrics["attributes"] = entries
        metrics["mean_top1"] = mean_top1(scores)
        metrics["mean_acsa"] = mean_acsa(scores)


def _uncalibrated(verdicts: Sequence[Verdict], name: str, temperature: float) -> np.ndarray:
    """The network's own probability of each verdict's label, before its temperature [B]."""
    probabilities = [list(verdict.attributes[name].probabilities.values()) for verdict in verdicts]
    return temperature_scaled(np.array(probabilities), 1.0 / temperature)[
        :, 0
    ]  # the label comes first


def _comment_metrics(metrics: dict[str, Any], frame: pl.DataFrame) -> pl.DataFrame:
    known = frame.filter(
        pl.col("comment").is_not_null() & (pl.col("target.comments").list.len() > 0)
    )
    if known.height < 2:
        return frame.with_columns(cider_d=pl.lit(None, dtype=pl.Float64))
    references = dict(known.select("image", "target.comments").iter_rows())
    hypotheses = dict(known.select("image", "comment").iter_rows())
    scores = evaluate_captions(references, hypotheses, metrics=CAPTION_METRICS)
    metrics["comments"] = {name: _plain(value) for name, value in scores.corpus.items()}
    metrics["signature"] |= scores.signature
    cider_d = scores.per_image["CIDEr-D"]
    return frame.with_columns(
        cider_d=pl.Series([cider_d.get(key) for key in frame["image"]], dtype=pl.Float64)
    )


def headline(metrics: dict[str, Any]) -> dict[str, float]:
    """The few numbers that a manifest and a terminal show."""
    numbers = {name: metrics["score"][name]["value"] for name in CORRELATIONS if "score" in metrics}
    if "interval" in metrics:
        numbers["coverage"] = metrics["interval"]["covered"]
        numbers["interval_width"] = metrics["interval"]["width"]
    for name, entry in metrics.get("attributes", {}).items():
        numbers[f"top1.{name}"] = entry["top1"]
    for name, entry in metrics.get("multi_label", {}).items():
        numbers[f"map.{name}"] = entry["mean_average_precision"]
        numbers[f"macro_f1.{name}"] = entry["macro_f1"]
    numbers["mean_top1"] = metrics.get("mean_top1")
    numbers["mean_acsa"] = metrics.get("mean_acsa")
    numbers.update(metrics.get("comments", {}))
    return {name: value for name, value in numbers.items() if value is not None}


def level_of(counts: Mapping[str, int]) -> str:
    """What a metric's interval is one of, in words: `95 %`, with the groups if pictures share them.

    Args:
        counts: of an evaluation's metrics; one before groups were drawn counts none.
    """
    groups = counts.get("groups")
    if groups is None or groups == counts["pictures"]:
        return "95 %"
    return f"95 %, {groups} groups" if groups > 1 else "95 %, one group"


def render_metrics(metrics: dict[str, Any]) -> str:
    """The evaluation as a few lines for people."""
    counts = metrics["counts"]
    lines = [f"{counts['pictures']} pictures judged, {counts['failed']} could not be"]
    lines += [f"  told        {line}" for line in not_answered(metrics)]
    for name, entry in metrics.get("score", {}).items():
        span = f"({level_of(counts)}: {show(entry['low'], 3)} to {show(entry['high'], 3)})"
        lines.append(f"  score       {name.upper():<9} {show(entry['value'], 3)}  {span}")
    if "interval" in metrics:
        entry = metrics["interval"]
        level = "" if entry["level"] is None else f"{entry['level']:.0%} asked, "
        lines.append(
            f"  intervals   {level}{entry['covered']:.1%} of "
            f"{entry['pictures']} covered, mean width {show(entry['width'], 3)}"
            f"{_winkler(entry)}"
        )
    for name, entry in metrics.get("attributes", {}).items():
        lines.append(
            f"  {name:<11} top-1 {show(entry['top1'], 3)}  ACSA {show(entry['acsa'], 3)}  "
            f"macro-F1 {show(entry['macro_f1'], 3)}  ECE {show(entry['ece'], 3)}"
            f"{_before(entry)}  majority class {show(entry['majority'], 3)}"
        )
    lines += multi_label_lines(metrics)
    if metrics.get("mean_top1") is not None:
        lines.append(
            f"  {'mean':<11} top-1 {show(metrics['mean_top1'], 3)}  "
            f"ACSA {show(metrics['mean_acsa'], 3)}"
        )
    for name, value in metrics.get("comments", {}).items():
        lines.append(f"  comments    {name:<9} {show(value, 3)}")
    lines += robustness_lines(metrics)
    lines += [f"  signature   {text}" for text in metrics["signature"].values()]
    return "\n".join(lines)


def _winkler(entry: dict[str, Any]) -> str:
    """The Winkler score, and the slice that is covered least, if that is less than was asked."""
    value = entry.get("winkler")
    text = "" if value is None else f", Winkler score {show(value, 3)}"
    least = min(entry.get("slices", ()), key=lambda part: part["covered"], default=None)
    if least is None or entry["level"] is None or least["covered"] >= entry["level"]:
        return text
    return f"{text}; least of {least['by']} {least['value']}: {least['covered']:.1%}"


def _before(entry: dict[str, Any]) -> str:
    before = entry.get("before_calibration")
    return f" ({show(before['ece'], 3)} before its temperature)" if before else ""


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
