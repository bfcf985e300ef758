"""Fits a judge's calibration on pictures that it was not trained on.

Shape suffixes: B pictures, K classes of an attribute.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from beholder.data.annotations import ATTRIBUTE_PREFIX, AnnotationTable
from beholder.data.progress import progress
from beholder.evaluation.evaluate import find_requests
from beholder.judge.calibration import (
    Calibration,
    each_temperature_scaled,
    fit_each_temperature,
    fit_temperature,
    is_better,
    temperature_scaled,
)
from beholder.judge.runner import judge_pictures
from beholder.judge.verdict import Failure, Verdict
from beholder.metrics.classification import ece
from beholder.metrics.conformal import coverage, enough_for, fit_conformal_by_score
from beholder.metrics.multi_label import THRESHOLD, best_thresholds, score_multi_label

if TYPE_CHECKING:
    from beholder.judge import Judge

log = logging.getLogger("beholder")


@dataclass(frozen=True)
class Calibrated:
    """The calibration; per attribute its temperature and the expected calibration error on the
    same pictures before and after (where several labels may hold at once, macro-F1 with 0.5 and
    with the thresholds of the labels), and of scores how wide their intervals are."""

    calibration: Calibration
    metrics: dict[str, float]


class Compared(NamedTuple):
    """A picture's given score, what it was predicted as without having been learnt from, and what
    it belongs to: pictures of one group are no strangers to each other."""

    given: float
    predicted: float
    group: str


def calibrate_judge(
    judge: Judge,
    table: AnnotationTable,
    root: Path,
    *,
    level: float = 0.9,
    compared: Sequence[Compared] | None = None,
    batch_size: int = 32,
) -> Calibrated:
    """Judge a split's pictures and fit what makes the judge's probabilities and intervals true of
    them.

    An attribute without a label there, scores of too few pictures for the level, and a picture that
    can't be judged are left out and told.

    Args:
        judge: without a calibration; comments are not needed (`generation` None).
        table: rows of the split, with scores and the attributes' labels.
        root: folder that the image keys start from.
        level: share of pictures whose given score lies within the interval, above 0 and below 1.
        compared: what the intervals are fitted on instead of the table's pictures.
    """
    assert judge.calibration == Calibration(), "the judge is calibrated already"
    verdicts, groups = _verdicts(judge, table, root, batch_size), table.groups
    temperatures: dict[str, float] = {}
    thresholds: dict[str, dict[str, float]] = {}
    metrics: dict[str, float] = {}
    for name, labels in judge.classes.items():
        given: dict[str, Any] = {}
        if name in table.attribute_names:
            given = dict(table.frame.select("image", ATTRIBUTE_PREFIX + name).iter_rows())
        several = name in judge.multi_label
        known = [v for key, v in verdicts.items() if _is_known(given.get(key), labels, several)]
        if not known:
            log.warning("%s: no labelled picture to calibrate on; no temperature is fitted", name)
            continue
        raw_BK = _probabilities(known, name, labels)
        if several:
            target_BK = np.array([[label in given[v.image] for label in labels] for v in known])
            temperatures[name], chosen, effect = _fit_several(name, target_BK.astype(float), raw_BK)
            thresholds[name] = dict(zip(labels, chosen, strict=True))
            metrics |= effect
            continue
        target_B = np.array([labels.index(given[v.image]) for v in known])
        temperature = _temperature(name, target_B, raw_BK, [groups[v.image] for v in known])
        if temperature is not None:
            temperatures[name] = temperature
        metrics |= _effect(name, target_B, raw_BK, temperature or 1.0)
    gives_scores = any(verdict.score is not None for verdict in verdicts.values())
    if compared is None and gives_scores:
        compared = _compared(table, verdicts)
    interval = Calibrated(Calibration(), {})
    if compared is not None:
        interval = fit_interval(compared, level, judge.score_range)
    calibration = Calibration(
        temperatures=temperatures, thresholds=thresholds, score=interval.calibration.score
    )
    return Calibrated(calibration, metrics | interval.metrics)


def _verdicts(
    judge: Judge, table: AnnotationTable, root: Path, batch_size: int
) -> dict[str, Verdict]:
    """By image key; what can't be judged is left out and logged."""
    requests, failures = find_requests(table, root)
    verdicts: dict[str, Verdict] = {}
    judging = judge_pictures(judge, requests, batch_size=batch_size)
    for judged in progress(judging, "calibrating", total=len(requests)):
        if isinstance(judged, Failure):
            failures.append(judged)
        else:
            verdicts[judged.image] = judged
    for failure in failures:
        log.warning("not calibrated on: %s: %s", failure.image, failure.message)
    return verdicts


def fit_interval(
    compared: Sequence[Compared], level: float, score_range: tuple[float, float] | None
) -> Calibrated:
    """The scores' interval alone; none, and why in the log, where there are too few pictures.

    Args:
        score_range: what intervals are cut to; None: nothing.
    """
    groups = {picture.group for picture in compared}
    if len(compared) < enough_for(level):
        log.warning(
            "score: %d pictures with a score to calibrate on, %.0f%% intervals need %d; none is "
            "fitted", len(compared), 100 * level, enough_for(level),
        )  # fmt: skip
        return Calibrated(Calibration(), {})
    if len(groups) < enough_for(level):
        log.warning(
            "score: the %d pictures that intervals are calibrated on are of %d groups only; "
            "pictures of other groups may be covered less often than %.0f%%",
            len(compared), len(groups), 100 * level,
        )  # fmt: skip
    given, predicted, group_of = zip(*compared, strict=True)
    interval = fit_conformal_by_score(given, predicted, group_of, level=level, scale=score_range)
    low, high = score_range or (-np.inf, np.inf)
    margin_B = interval.margins_at(predicted)
    ends_B = (np.clip(np.array(predicted) + side * margin_B, low, high) for side in (-1.0, 1.0))
    width = round(coverage(given, *ends_B).width, 6)
    return Calibrated(Calibration(score=interval), {"interval_width": width})


def _compared(table: AnnotationTable, verdicts: Mapping[str, Verdict]) -> list[Compared]:
    """The table's pictures that have a score and got one."""
    compared, groups = [], table.groups
    for key, score in table.frame.select("image", "score").iter_rows():
        predicted = verdicts[key].score if key in verdicts else None
        if score is not None and predicted is not None:
            compared.append(Compared(score, predicted, groups[key]))
    return compared


def _probabilities(verdicts: Sequence[Verdict], name: str, labels: Sequence[str]) -> np.ndarray:
    """Of all classes in the order of `labels` [B, K]."""
    shares = [verdict.attributes[name].probabilities for verdict in verdicts]
    return np.array([[share[label] for label in labels] for share in shares])


def _is_known(given: Any, labels: Sequence[str], several: bool) -> bool:
    """Whether a table's label, or all of its labels, are among a judge's."""
    return given is not None and set(given if several else [given]) <= set(labels)


def _temperature(
    name: str, target_B: np.ndarray, raw_BK: np.ndarray, groups_B: Sequence[str]
) -> float | None:
    """The temperature of an attribute; None: it has none that helps where it was not fitted."""
    if is_better(raw_BK, target_B, groups_B):
        return fit_temperature(raw_BK, target_B)
    log.info("%s: probabilities are no better with a temperature; none is applied", name)
    return None


def _fit_several(
    name: str, target_BK: np.ndarray, raw_BK: np.ndarray
) -> tuple[float, list[float], dict[str, float]]:
    """The temperature of a multi-label attribute, its labels' thresholds, and what they do."""
    temperature = fit_each_temperature(raw_BK, target_BK)
    scaled_BK = each_temperature_scaled(raw_BK, temperature)
    chosen = [round(float(least), 6) for least in best_thresholds(target_BK, scaled_BK)]
    labels = [str(index) for index in range(len(chosen))]
    before, after = (
        score_multi_label(target_BK, scaled_BK >= np.array(least), scaled_BK, labels).macro_f1
        for least in (THRESHOLD, chosen)
    )
    effect = {f"temperature.{name}": round(temperature, 6)}
    if before is not None and after is not None:
        effect |= {
            f"macro_f1_at_half.{name}": round(before, 6),
            f"macro_f1_at_thresholds.{name}": round(after, 6),
        }
    return temperature, chosen, effect


def _effect(
    name: str, target_B: np.ndarray, raw_BK: np.ndarray, temperature: float
) -> dict[str, float]:
    guessed_B = raw_BK.argmax(axis=1)
    before = ece(target_B, guessed_B, raw_BK)
    after = ece(target_B, guessed_B, temperature_scaled(raw_BK, temperature))
    assert before is not None and after is not None, "all pictures here are labelled"
    return {
        f"temperature.{name}": round(temperature, 6),
        f"ece_before.{name}": round(before, 6),
        f"ece_after.{name}": round(after, 6),
    }
