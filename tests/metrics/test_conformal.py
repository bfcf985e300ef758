"""Conformal intervals: their rank by hand, and what they promise over many draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from beholder.errors import DataError
from beholder.metrics.conformal import ConformalInterval, coverage, fit_conformal


def test_the_quantile_is_the_error_of_that_rank() -> None:
    errors = np.arange(1.0, 20.0)  # 19 pictures: ceil(20 * 0.9) = 18
    interval = fit_conformal(np.zeros(19), errors[::-1], level=0.9)
    assert interval == ConformalInterval(level=0.9, quantile=18.0, pictures=19)
    assert fit_conformal(np.zeros(9), np.arange(9.0), level=0.9).quantile == 8.0  # the largest
    assert fit_conformal(np.zeros(19), -errors, level=0.5).quantile == 10.0
    np.testing.assert_array_equal(interval.margins(3), [18.0] * 3)


def test_normalised_errors_are_in_units_of_spread_and_floor() -> None:
    spread = np.array([0.0, 1.0, 3.0])
    interval = fit_conformal([1, 4, 9], [0, 0, 0], level=0.5, spread_N=spread, floor=1.0)
    assert interval.quantile == 2.0  # of 1/1, 4/2, 9/4 the second
    np.testing.assert_array_equal(interval.margins(2, [0.0, 2.0]), [2.0, 6.0])


@given(st.lists(st.floats(-50, 50), min_size=9, max_size=60), st.sampled_from([0.5, 0.8, 0.9]))
def test_at_least_the_level_of_the_calibration_pictures_is_within(
    errors: list[float], level: float
) -> None:
    interval = fit_conformal(np.zeros(len(errors)), errors, level=level)
    inside = np.abs(errors) <= interval.quantile
    assert inside.mean() >= level
    assert (np.abs(errors) < interval.quantile).sum() < np.ceil((len(errors) + 1) * level - 1e-9)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), normalised=st.booleans())
def test_nine_of_ten_further_pictures_of_the_same_kind_are_covered(
    seed: int, normalised: bool
) -> None:
    # heavy tails and a spread that says something of them: nothing of either is assumed
    generator = np.random.default_rng(seed)
    shares = []
    for _ in range(100):
        spread = generator.gamma(2.0, 0.5, 600)
        errors = spread * generator.standard_t(3, 600)
        known, fresh = slice(0, 200), slice(200, None)
        form = {"spread_N": spread[known], "floor": 0.1} if normalised else {}
        interval = fit_conformal(np.zeros(200), errors[known], level=0.9, **form)
        margins = interval.margins(400, spread[fresh])
        shares.append(coverage(errors[fresh], -margins, margins).covered)
    # over calibrations; a single one has a deviation of 0.026 with these numbers of pictures
    expected = np.ceil(201 * 0.9) / 201
    assert np.mean(shares) == pytest.approx(expected, abs=0.012)


def test_coverage_within_two_points_of_ninety_percent_over_seeds() -> None:
    """On held-out data of the same kind, calibrated on 1000 pictures."""
    for seed in range(20):
        generator = np.random.default_rng(seed)
        scores = generator.normal(3.0, 1.0, 6000)
        spread = generator.gamma(2.0, 0.2, 6000)
        predicted = scores + spread * generator.standard_normal(6000)
        known, fresh = slice(0, 3000), slice(3000, None)
        for form in ({}, {"spread_N": spread[known], "floor": 0.05}):
            interval = fit_conformal(scores[known], predicted[known], level=0.9, **form)
            margins = interval.margins(3000, spread[fresh])
            covered = coverage(
                scores[fresh], predicted[fresh] - margins, predicted[fresh] + margins
            )
            assert 0.88 <= covered.covered <= 0.92, (seed, form)


def test_normalised_intervals_are_narrower_where_the_spread_tells_the_error() -> None:
    generator = np.random.default_rng(0)
    spread = generator.gamma(1.0, 0.5, 4000)
    errors = spread * generator.standard_normal(4000)
    known, fresh = slice(0, 2000), slice(2000, None)
    plain = fit_conformal(np.zeros(2000), errors[known])
    normed = fit_conformal(np.zeros(2000), errors[known], spread_N=spread[known], floor=0.01)
    assert normed.margins(2000, spread[fresh]).mean() < 0.9 * plain.margins(2000).mean()
    # and they cover the hard pictures too, which the plain ones miss
    hard = spread[fresh] > np.quantile(spread, 0.9)
    assert np.mean(np.abs(errors[fresh][hard]) <= plain.quantile) < 0.7
    within = np.abs(errors[fresh]) <= normed.margins(2000, spread[fresh])
    assert within[hard].mean() == pytest.approx(0.9, abs=0.05)


def test_coverage_over_calibrations_is_the_beta_distribution_it_should_be() -> None:
    generator = np.random.default_rng(3)
    shares = []
    for _ in range(400):
        interval = fit_conformal(np.zeros(50), generator.standard_normal(50), level=0.9)
        shares.append(stats.norm.cdf(interval.quantile) - stats.norm.cdf(-interval.quantile))
    rank = 46  # ceil(51 * 0.9)
    assert stats.kstest(shares, stats.beta(rank, 50 + 1 - rank).cdf).pvalue > 0.01


def test_what_can_not_be_calibrated() -> None:
    with pytest.raises(DataError, match="8 pictures with a score are too few") as caught:
        fit_conformal(np.zeros(8), np.ones(8), level=0.9)
    assert "at least 9" in str(caught.value)
    fit_conformal(np.zeros(99), np.ones(99), level=0.99)
    with pytest.raises(DataError, match="too few"):
        fit_conformal(np.zeros(98), np.ones(98), level=0.99)
    with pytest.raises(DataError, match="between 0 and 1"):
        fit_conformal(np.zeros(20), np.ones(20), level=1.0)
    with pytest.raises(DataError, match="20 target scores, but 19"):
        fit_conformal(np.zeros(20), np.ones(19))
    with pytest.raises(DataError, match="finite"):
        fit_conformal(np.zeros(20), np.full(20, np.nan))
    with pytest.raises(DataError, match="needs a floor"):
        fit_conformal(np.zeros(20), np.ones(20), floor=0.1)
    with pytest.raises(DataError, match="0 or more"):
        fit_conformal(np.zeros(20), np.ones(20), spread_N=np.full(20, -1.0), floor=0.1)
    normalised = fit_conformal(np.zeros(20), np.ones(20), spread_N=np.ones(20), floor=0.1)
    with pytest.raises(DataError, match="need the spread"):
        normalised.margins(3)
    with pytest.raises(DataError, match="ends of intervals"):
        coverage([], [], [])
