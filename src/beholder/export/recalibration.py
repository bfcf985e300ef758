"""Calibration of what ships: intervals and temperatures fitted again on the exported file.

Rounded weights move scores and probabilities a little. What that asks of an interval or a
temperature is found on pictures with opinions: how much more the file errs there than its original.
The original's own calibration, which may come from cross-validation, is changed by that factor.

Shape suffixes: N pictures, K classes of an attribute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from beholder.judge.calibration import Calibration, fit_temperature
from beholder.judge.verdict import Verdict
from beholder.metrics.conformal import coverage, fit_conformal

Vector = NDArray[np.float64]
QUARTER = 0.25  # of an interval's width
TEMPERATURES = (1e-3, 1e3)  # that a calibration may have


@dataclass(frozen=True)
class Recalibration:
    """What the calibration of the original is multiplied by for the file: the intervals' widths, 1
    or more, and temperatures by attribute."""

    interval: float = 1.0
    temperatures: dict[str, float] = field(default_factory=dict)

    def apply(self, calibration: Calibration) -> Calibration:
        """The file's calibration."""
        score = calibration.score
        if score is not None:
            score = score.model_copy(update={"quantile": score.quantile * self.interval})
        temperatures = {
            name: float(np.clip(value * self.temperatures.get(name, 1.0), *TEMPERATURES))
            for name, value in calibration.temperatures.items()
        }
        return calibration.model_copy(update={"score": score, "temperatures": temperatures})


def recalibrated(
    before: Sequence[Verdict],
    after: Sequence[Verdict],
    target_N: Vector,
    labels_N: Mapping[str, Sequence[str | None]],
    calibration: Calibration,
    fewest: int,
) -> tuple[float | None, tuple[float, float] | None, Recalibration]:
    """Compare the file's verdicts with the original's on N pictures.

    Args:
        before, after: of the original and of the file, calibrated alike.
        target_N: given scores, NaN where there is none.
        labels_N: attribute whose temperature is fitted again -> given labels.
        fewest: opinions, below which nothing is fitted on them.

    Returns:
        The share of scores that move by more than a quarter of their interval's width (None: no
        intervals); how many given scores are within the original's and the file's new intervals
        (None: too few are given); and what calibrates the file.
    """
    moved, covered, widened = None, None, 1.0
    half_N = half_widths(before)
    if half_N is not None and calibration.score is not None:
        ours_N, theirs_N = (np.array([v.score for v in all_], float) for all_ in (before, after))
        moved = share_moved(ours_N, theirs_N, half_N)
        known_N = np.isfinite(target_N)
        if known_N.sum() >= fewest:
            target_N, half_N = target_N[known_N], half_N[known_N]
            ours_N, theirs_N = ours_N[known_N], theirs_N[known_N]
            level = calibration.score.level
            widened = interval_factor(target_N, ours_N, theirs_N, half_N, level)
            pairs = ((ours_N, half_N), (theirs_N, widened * half_N))
            first, second = (coverage(target_N, s_N - m_N, s_N + m_N).covered for s_N, m_N in pairs)
            covered = first, second
    temperatures = {}
    for name in labels_N:
        known = set(before[0].attributes[name].probabilities)
        rows = [row for row, label in enumerate(labels_N[name]) if label in known]
        if len(rows) >= fewest:
            ours, theirs = (
                [all_[row].attributes[name].probabilities for row in rows]
                for all_ in (before, after)
            )
            targets = [str(labels_N[name][row]) for row in rows]
            temperatures[name] = temperature_factor(ours, theirs, targets, sorted(known))
    return moved, covered, Recalibration(widened, temperatures)


def half_widths(verdicts: Sequence[Verdict]) -> Vector | None:
    """Half the width [N] of each interval, as it is before it is cut to the scale; None: there are
    none."""
    if any(verdict.interval is None for verdict in verdicts):
        return None
    return np.array([(v.interval[1] - v.interval[0]) / 2 for v in verdicts if v.interval])


def share_moved(before_N: Vector, after_N: Vector, half_N: Vector) -> float:
    """Share of scores that differ by more than a quarter of their interval's width, 0 to 1."""
    return float((np.abs(before_N - after_N) > 2 * QUARTER * half_N).mean())


def interval_factor(
    target_N: Vector, before_N: Vector, after_N: Vector, half_N: Vector, level: float
) -> float:
    """How much wider intervals of the file must be to cover as many targets as the original's, 1 or
    more; 1 where errors or widths are 0."""
    if not (half_N > 0).all():
        return 1.0
    quantiles = [
        fit_conformal(target_N / half_N, said_N / half_N, level=level).quantile
        for said_N in (before_N, after_N)
    ]
    return max(1.0, quantiles[1] / quantiles[0]) if quantiles[0] > 0 else 1.0


def temperature_factor(
    before: Sequence[Mapping[str, float]],
    after: Sequence[Mapping[str, float]],
    target: Sequence[str],
    labels: Sequence[str],
) -> float:
    """What the original's temperature is multiplied by for the file.

    Args:
        before, after: probability of every label, calibrated alike, of N pictures.
        target: their labels, each one of `labels`.
    """
    target_N = np.array([labels.index(label) for label in target])
    fitted = [
        fit_temperature(np.array([[row[label] for label in labels] for row in rows]), target_N)
        for rows in (before, after)
    ]
    return fitted[1] / fitted[0]
