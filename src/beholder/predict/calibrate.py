"""Fits a judge's calibration on pictures that it was not trained on.

Shape suffixes: B pictures, K classes of an attribute.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from beholder.data.annotations import ATTRIBUTE_PREFIX, AnnotationTable
from beholder.data.progress import progress
from beholder.judge.calibration import Calibration, fit_temperature, tempered
from beholder.judge.verdict import Verdict
from beholder.metrics.classification import ece
from beholder.predict.evaluation import find_requests
from beholder.predict.local import Failure, judge_pictures

if TYPE_CHECKING:
    from beholder.judge import Judge

log = logging.getLogger("beholder")


@dataclass(frozen=True)
class Calibrated:
    """The calibration and, per attribute, its temperature and the expected calibration error on
    the same pictures before and after."""

    calibration: Calibration
    metrics: dict[str, float]


def calibrate_judge(
    judge: Judge, table: AnnotationTable, root: Path, *, batch_size: int = 32
) -> Calibrated:
    """Judge a split's pictures and fit what makes the judge's probabilities true of them.

    An attribute without a label there, and a picture that can't be judged, are left out and told.

    Args:
        judge: without a calibration; comments are not needed (`beam_size` None).
        table: rows of the split, with the attributes' labels.
        root: folder that the image keys start from.
    """
    assert judge.calibration == Calibration(), "the judge is calibrated already"
    requests, failures = find_requests(table, root)
    verdicts: dict[str, Verdict] = {}
    outcomes = judge_pictures(judge, requests, batch_size=batch_size)
    for outcome in progress(outcomes, "calibrating", total=len(requests)):
        if isinstance(outcome, Failure):
            failures.append(outcome)
        else:
            verdicts[outcome.image] = outcome
    for failure in failures:
        log.warning("not calibrated on: %s: %s", failure.image, failure.message)
    temperatures: dict[str, float] = {}
    metrics: dict[str, float] = {}
    for name, labels in judge.classes.items():
        given: dict[str, str | None] = {}
        if name in table.attribute_names:
            given = dict(table.frame.select("image", ATTRIBUTE_PREFIX + name).iter_rows())
        known = [v for key, v in verdicts.items() if given.get(key) in labels]
        if not known:
            log.warning("%s: no labelled picture to calibrate on; no temperature is fitted", name)
            continue
        given_B = np.array([labels.index(given[v.image]) for v in known])
        raw_BK = _probabilities(known, name, labels)
        temperatures[name] = fit_temperature(raw_BK, given_B)
        metrics |= _effect(name, given_B, raw_BK, temperatures[name])
    return Calibrated(Calibration(temperatures=temperatures), metrics)


def _probabilities(verdicts: Sequence[Verdict], name: str, labels: Sequence[str]) -> np.ndarray:
    """Of all classes in the order of `labels` [B, K]."""
    said = [verdict.attributes[name].probabilities for verdict in verdicts]
    return np.array([[each[label] for label in labels] for each in said])


def _effect(
    name: str, given_B: np.ndarray, raw_BK: np.ndarray, temperature: float
) -> dict[str, float]:
    guessed_B = raw_BK.argmax(axis=1)
    before = ece(given_B, guessed_B, raw_BK)
    after = ece(given_B, guessed_B, tempered(raw_BK, temperature))
    assert before is not None and after is not None, "all pictures here are labelled"
    return {
        f"temperature.{name}": round(temperature, 6),
        f"ece_before.{name}": round(before, 6),
        f"ece_after.{name}": round(after, 6),
    }
