"""The contract is relative to the interval, and what ships is calibrated again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from beholder.errors import GateError
from beholder.export.parity import Parity, check_parity
from beholder.export.recalibration import Recalibration, recalibrated
from beholder.judge.calibration import Calibration, fit_temperature, temperature_scaled
from beholder.judge.verdict import Attribute, Verdict
from beholder.metrics.conformal import ConformalInterval, fit_conformal

COUNT = 200
LABELS = ("dark", "light")


def verdicts(score_N: np.ndarray, half: float, shares_NK: np.ndarray) -> list[Verdict]:
    return [
        Verdict(
            str(index), float(score), (score - half, score + half),
            attributes={
                "tone": Attribute(LABELS[0], shares[0], dict(zip(LABELS, shares, strict=True)))
            },
        )
        for index, (score, shares) in enumerate(zip(score_N, shares_NK, strict=True))
    ]  # fmt: skip


def judged(noise: float, seed: int = 0):
    """Verdicts before and after rounding, targets, labels, and the original's calibration."""
    generator = np.random.default_rng(seed)
    target_N = generator.uniform(1, 5, COUNT)
    before_N = target_N + generator.normal(0, 0.4, COUNT)
    after_N = before_N + generator.normal(0, noise, COUNT)
    logits_NK = generator.normal(0, 2, (COUNT, 2))
    truth = (generator.random(COUNT) < softmax(logits_NK, axis=1)[:, 1]).astype(int)
    rounded_NK = logits_NK + generator.normal(0, 3 * noise, (COUNT, 2))
    interval = fit_conformal(target_N, before_N)
    temperature = fit_temperature(softmax(logits_NK, axis=1), truth)
    calibration = Calibration(temperatures={"tone": temperature}, score=interval)
    both = [
        verdicts(score_N, interval.quantile, temperature_scaled(softmax(x, axis=1), temperature))
        for score_N, x in ((before_N, logits_NK), (after_N, rounded_NK))
    ]
    return both, target_N, [LABELS[index] for index in truth], calibration, rounded_NK, truth


def test_what_is_fitted_again_is_what_fitting_on_the_file_gives() -> None:
    both, target_N, labels, calibration, rounded_NK, truth = judged(0.5)
    moved, covered, new = recalibrated(*both, target_N, {"tone": labels}, calibration, 64)
    after_N = np.array([verdict.score for verdict in both[1]])
    found = new.apply(calibration)
    assert found.score.quantile == pytest.approx(fit_conformal(target_N, after_N).quantile)
    wanted = fit_temperature(softmax(rounded_NK, axis=1), truth)
    assert found.temperatures["tone"] == pytest.approx(wanted, rel=1e-3)
    assert new.interval > 1.2 and found.temperatures["tone"] > calibration.temperatures["tone"]
    before_N = np.array([verdict.score for verdict in both[0]])
    half = calibration.score.quantile
    assert moved == np.mean(np.abs(before_N - after_N) > half / 2)
    assert covered[1] >= covered[0]  # none is lost
    unchanged = np.mean(np.abs(target_N - after_N) <= half)
    assert unchanged < covered[0]  # as it would be with the intervals of the original


def test_an_equal_file_keeps_its_calibration() -> None:
    both, target_N, labels, calibration, *_ = judged(0.0)
    moved, covered, new = recalibrated(*both, target_N, {"tone": labels}, calibration, 64)
    assert moved == 0 and covered[0] == covered[1]
    assert new.apply(calibration) == calibration


def test_too_few_opinions_change_nothing() -> None:
    both, target_N, labels, calibration, *_ = judged(0.5)
    target_N[10:] = np.nan
    moved, covered, new = recalibrated(*both, target_N, {"tone": [None] * COUNT}, calibration, 64)
    assert moved > 0 and covered is None and new == Recalibration()
    assert labels


def test_intervals_of_several_widths_are_widened_alike() -> None:
    interval = ConformalInterval(
        level=0.9, quantile=1.5, pictures=40, positions=(1.0, 5.0), errors=(0.2, 1.0)
    )
    found = Recalibration(1.2).apply(Calibration(score=interval)).score
    np.testing.assert_allclose(found.margins_at([1, 3, 5]), 1.2 * interval.margins_at([1, 3, 5]))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_one_in_ten_may_move_by_a_quarter_of_the_width(precision: str) -> None:
    from beholder.export.parity import Change

    def parity(moved: float, covered: float) -> Parity:
        return Parity(
            "some", 100, 0.5, Change(0.9, 0.9, "the given scores"), moved=moved,
            coverage=Change(0.9, covered, "the given scores"),
        )  # fmt: skip

    check_parity(parity(0.1, 0.89), precision)
    with pytest.raises(GateError, match=r"11.0% of the scores move by more than a quarter"):
        check_parity(parity(0.11, 0.9), precision)
    with pytest.raises(GateError, match=r"coverage 0.9000 -> 0.8800 \(limit 0.01 less\)"):
        check_parity(parity(0.0, 0.88), precision)
