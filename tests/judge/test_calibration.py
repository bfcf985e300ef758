"""Temperatures: the best one by a grid, what it must not change, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_softmax, softmax

from beholder.data.transforms import EvalTransform
from beholder.errors import DataError
from beholder.judge import Judge
from beholder.judge.calibration import (
    HIGHEST,
    LOWEST,
    Calibration,
    fit_temperature,
    is_better,
    temperature_scaled,
)
from beholder.judge.runtime.engine import HeadOutputs
from beholder.metrics.conformal import ConformalInterval


def overconfident(pictures: int, classes: int, sharper: float, seed: int = 0) -> tuple:
    """Logits whose truth is drawn from softmax(logits / sharper)."""
    generator = np.random.default_rng(seed)
    logits_BK = generator.normal(0, 2, (pictures, classes)) * sharper
    true_BK = softmax(logits_BK / sharper, axis=1)
    given_B = np.array([generator.choice(classes, p=row) for row in true_BK])
    return logits_BK, given_B


@pytest.mark.parametrize("pictures", [3, 40, 500])
@pytest.mark.parametrize("sharper", [0.3, 1.0, 3.0])
def test_the_temperature_is_the_best_of_a_grid(pictures: int, sharper: float) -> None:
    logits_BK, given_B = overconfident(pictures, 5, sharper)
    temperature = fit_temperature(softmax(logits_BK, axis=1), given_B)
    share = 1 / (pictures + 1)
    target_BK = np.eye(5)[given_B] * (1 - share) + share / 5
    grid = np.geomspace(LOWEST, HIGHEST, 4001)
    losses = [-(target_BK * log_softmax(logits_BK / t, axis=1)).sum(1).mean() for t in grid]
    assert temperature == pytest.approx(grid[np.argmin(losses)], rel=3e-3)


@pytest.mark.parametrize("sharper", [0.3, 1.0, 3.0])
def test_many_pictures_give_back_the_temperature_they_were_drawn_with(sharper: float) -> None:
    logits_BK, given_B = overconfident(20_000, 4, sharper)
    assert fit_temperature(softmax(logits_BK, axis=1), given_B) == pytest.approx(sharper, rel=0.04)


def test_unlabelled_pictures_do_not_count() -> None:
    logits_BK, given_B = overconfident(60, 3, 2.0)
    raw_BK = softmax(logits_BK, axis=1)
    given_B[::3] = -1
    known = given_B >= 0
    assert fit_temperature(raw_BK, given_B) == fit_temperature(raw_BK[known], given_B[known])


@pytest.mark.parametrize("pictures", [1, 10, 1000])
def test_where_all_are_right_sureness_grows_with_their_number(pictures: int) -> None:
    raw_BK = np.tile([0.6, 0.4], (pictures, 1))
    temperature = fit_temperature(raw_BK, np.zeros(pictures, np.int64))
    sure = temperature_scaled(raw_BK, temperature)[0, 0]
    assert 1 - sure == pytest.approx(1 / 2 / (pictures + 1), rel=1e-3)


def test_equal_probabilities_have_no_temperature() -> None:
    assert fit_temperature(np.full((8, 4), 0.25), np.arange(8) % 4) == 1.0
    assert fit_temperature(np.ones((8, 1)), np.zeros(8, np.int64)) == 1.0


def test_certain_and_wrong_is_finite() -> None:
    raw_BK = np.array([[1.0, 0.0]] * 3)
    assert fit_temperature(raw_BK, np.array([1, 1, 1])) == pytest.approx(HIGHEST, rel=1e-3)
    assert temperature_scaled(raw_BK, HIGHEST).tolist() == raw_BK.tolist()


@pytest.mark.parametrize("given_B", [[-1, -1], [0, 3], [0, -2]])
def test_nothing_labelled_and_unknown_classes_are_refused(given_B: list[int]) -> None:
    with pytest.raises(DataError, match=r"labelled|within 0 to 2"):
        fit_temperature(np.full((2, 3), 1 / 3), np.array(given_B))


LOGITS = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 6), st.integers(1, 7)),
    elements=st.floats(-30, 30, width=32),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(logits_BK=LOGITS, temperature=st.floats(LOWEST, HIGHEST))
def test_scaled_probabilities_are_the_softmax_of_scaled_logits(
    logits_BK: np.ndarray, temperature: float
) -> None:
    raw_BK = softmax(logits_BK, axis=1)
    expected_BK = softmax(logits_BK / temperature, axis=1)
    np.testing.assert_allclose(temperature_scaled(raw_BK, temperature), expected_BK, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(logits_BK=LOGITS, temperature=st.floats(0.3, HIGHEST))
def test_the_inverse_gives_the_networks_own(logits_BK: np.ndarray, temperature: float) -> None:
    raw_BK = softmax(logits_BK, axis=1)
    again_BK = temperature_scaled(temperature_scaled(raw_BK, temperature), 1 / temperature)
    np.testing.assert_allclose(again_BK, raw_BK, atol=1e-9)


class Fixed:
    """An engine that always says the same."""

    def __init__(self, raw_BK: np.ndarray) -> None:
        self.raw_BK = raw_BK

    def opinions(self, pixels_B3HW: np.ndarray, beam_size: int | None) -> HeadOutputs:
        return HeadOutputs(probabilities_BK={"mood": self.raw_BK})


@settings(max_examples=60, deadline=None)
@given(logits_BK=LOGITS, temperature=st.floats(LOWEST, HIGHEST))
def test_labels_and_their_order_stay(logits_BK: np.ndarray, temperature: float) -> None:
    raw_BK = softmax(logits_BK, axis=1)
    labels = [f"class {index}" for index in range(raw_BK.shape[1])]
    judges = [
        Judge(Fixed(raw_BK), EvalTransform(), classes={"mood": labels}, calibration=calibration)
        for calibration in (None, Calibration(temperatures={"mood": temperature}))
    ]
    names = ["picture"] * len(raw_BK)
    plain, calibrated = (judge.verdicts(names, np.zeros((1, 1, 3, 1, 1))) for judge in judges)
    for before, after in zip(plain, calibrated, strict=True):
        mood = after.attributes["mood"]
        assert before.attributes["mood"].label == mood.label
        assert list(before.attributes["mood"].probabilities) == list(mood.probabilities)
        assert sum(mood.probabilities.values()) == pytest.approx(1.0)
        assert mood.probability == mood.probabilities[mood.label]


@pytest.mark.parametrize("sharper", [0.4, 3.0])
def test_a_temperature_that_is_needed_is_better(sharper: float) -> None:
    logits_BK, given_B = overconfident(300, 4, sharper)
    assert is_better(softmax(logits_BK, axis=1), given_B, range(300))
    assert is_better(softmax(logits_BK, axis=1), given_B, ["one"] * 300)


def test_a_temperature_of_two_groups_that_contradict_each_other_is_not() -> None:
    # half of the pictures, all of one photograph, are told rightly and too timidly, the others
    # wrongly: what is fitted on either harms the other
    raw_BK = np.tile([0.7, 0.3], (80, 1))
    given_B = np.repeat([0, 1], 40)
    groups = np.repeat(["right", "wrong"], 40).tolist()
    assert not is_better(raw_BK, given_B, groups)
    assert not is_better(raw_BK[:1], given_B[:1], groups[:1])


def test_better_is_the_likelihood_of_folds_by_hand() -> None:
    logits_BK, given_B = overconfident(50, 3, 1.1, seed=5)
    raw_BK = softmax(logits_BK, axis=1)
    gain = 0.0
    for fold in range(5):
        held = np.arange(50) % 5 == fold
        temperature = fit_temperature(raw_BK[~held], given_B[~held])
        for row in np.flatnonzero(held):
            scaled = log_softmax(logits_BK[row] / temperature)[given_B[row]]
            gain += scaled - log_softmax(logits_BK[row])[given_B[row]]
    assert is_better(raw_BK, given_B, range(50)) == (gain > 0)


def test_a_judge_has_no_spread_to_normalise_intervals_with() -> None:
    normalised = ConformalInterval(level=0.9, quantile=2.0, floor=0.1, pictures=40)
    with pytest.raises(ValueError, match="no spread"):
        Calibration(score=normalised)
    assert Calibration().interval(3.0) is None
    plain = ConformalInterval(level=0.9, quantile=0.5, pictures=40)
    assert Calibration(score=plain).interval(3.0) == (2.5, 3.5)
