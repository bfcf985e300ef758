"""Scores and intervals stay on the scale, and nothing that was covered is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beholder.judge.calibration import Calibration
from beholder.judge.runtime.engine import HeadOutputs
from beholder.judge.verdict import Verdict
from beholder.judge.verdict_of import verdict_of
from beholder.metrics.conformal import ConformalInterval

SCALE = (1.0, 5.0)
CALIBRATION = Calibration(score=ConformalInterval(level=0.9, quantile=0.75, pictures=40))


BY_SCORE = Calibration(
    score=ConformalInterval(
        level=0.9, quantile=1.5, pictures=40, positions=(1.2, 3.0, 4.6), errors=(0.2, 1.0, 0.1)
    )
)


def verdict(
    score: float, scale: tuple[float, float] | None, calibration: Calibration = CALIBRATION
) -> Verdict:
    outputs = HeadOutputs(score_B=np.array([score]))
    return verdict_of("a.jpg", outputs, 0, {}, calibration, None, None, scale)


@given(st.floats(-100, 100), st.floats(*SCALE), st.sampled_from([CALIBRATION, BY_SCORE]))
def test_scores_and_intervals_stay_on_the_scale(
    score: float, target: float, calibration: Calibration
) -> None:
    cut, free = verdict(score, SCALE, calibration), verdict(score, None, calibration)
    assert SCALE[0] <= cut.interval[0] <= cut.score <= cut.interval[1] <= SCALE[1]
    if free.interval[0] <= target <= free.interval[1]:
        assert cut.interval[0] <= target <= cut.interval[1]
    if SCALE[0] <= score <= SCALE[1]:
        assert cut.score == score == free.score


def test_the_width_depends_on_the_score() -> None:
    for score, half in ((1.1, 0.3), (1.2, 0.3), (2.1, 0.9), (3.0, 1.5), (4.9, 0.15)):
        low, high = verdict(score, None, BY_SCORE).interval
        assert (low, high) == pytest.approx((score - half, score + half))


def test_order_is_kept() -> None:
    scores = [verdict(score, SCALE).score for score in np.linspace(-3, 9, 40)]
    assert scores == sorted(scores)
