"""PLCC, SRCC, KRCC, RMSE and their bootstrap against scipy and brute force."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from beholder.errors import DataError
from beholder.metrics import correlation
from beholder.metrics.correlation import (
    bootstrap,
    drop_missing,
    krcc,
    mos_challenge,
    paired_difference,
    plcc,
    resampled_metrics,
    rmse,
    srcc,
)
from beholder.metrics.logistic import fit_logistic, plcc_logistic

SCORES = st.lists(
    st.tuples(st.integers(-5, 5).map(float), st.floats(-100, 100)), min_size=2, max_size=60
)


@given(SCORES)
@settings(max_examples=200, deadline=None)
def test_equals_scipy_with_ties(pairs: list[tuple[float, float]]) -> None:
    x, y = (np.array(side) for side in zip(*pairs, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            plcc: stats.pearsonr(x, y).statistic,
            srcc: stats.spearmanr(x, y).statistic,
            krcc: stats.kendalltau(x, y).statistic,
        }
    for metric, value in expected.items():
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            assert math.isnan(metric(x, y))
        elif metric is not plcc or min(np.ptp(x), np.ptp(y)) > 1e-6:
            assert metric(x, y) == pytest.approx(value, abs=1e-9)
    assert rmse(x, y) == pytest.approx(math.sqrt(np.mean((x - y) ** 2)))


def test_undefined_is_nan_without_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in (plcc, srcc, krcc):
            assert math.isnan(metric([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
            assert math.isnan(metric([1.0], [2.0]))
            assert math.isnan(metric([], []))
            assert math.isnan(metric([1.0, math.nan, 3.0], [1.0, 2.0, 3.0]))
        assert math.isnan(rmse([1.0, math.nan], [1.0, 2.0]))


def test_huge_and_tiny_scores_do_not_overflow() -> None:
    x = np.array([1.0, 2.0, 4.0])
    assert plcc(x * 1e300, x * 1e-300) == pytest.approx(1.0)


def test_missing_pairs_are_dropped_together() -> None:
    x, y, z = drop_missing(
        [1.0, math.nan, 3.0, 4.0], [1.0, 2.0, math.nan, 4.0], [5.0, 6.0, 7.0, 8.0]
    )
    assert (x.tolist(), y.tolist(), z.tolist()) == ([1.0, 4.0], [1.0, 4.0], [5.0, 8.0])


def test_lengths_must_agree() -> None:
    with pytest.raises(DataError, match="same length"):
        plcc([1.0, 2.0], [1.0])


@pytest.mark.parametrize("size", [2, 7, 60, 301])
@pytest.mark.parametrize("ties", ["none", "one side", "both"])
def test_resamples_equal_the_metric_on_the_drawn_pairs(size: int, ties: str) -> None:
    rng = np.random.default_rng(size)
    x = rng.normal(size=size)
    y = x + rng.normal(size=size)
    if ties != "none":
        x = np.round(2 * x) / 2
    if ties == "both":
        y = np.round(y)
    resampled = resampled_metrics(x, (y, -y), list(correlation.FUNCTIONS), 40, 3)
    assert resampled.shape == (2, 4, 40)
    drawn = np.random.default_rng(3).integers(0, size, (40, size))
    for index, rows in enumerate(drawn):
        for name, (ours, opposite) in zip(
            correlation.FUNCTIONS, resampled.transpose(1, 0, 2), strict=True
        ):
            metric = correlation.FUNCTIONS[name]
            assert ours[index] == pytest.approx(metric(x[rows], y[rows]), nan_ok=True), name
            assert opposite[index] == pytest.approx(metric(x[rows], -y[rows]), nan_ok=True), name


def test_bootstrap_is_seeded_and_brackets_the_value() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    y = x + rng.normal(size=400)
    first = bootstrap(x, y, n=300, seed=5)
    assert first == bootstrap(x, y, n=300, seed=5)
    assert first != bootstrap(x, y, n=300, seed=6)
    for name, interval in first.items():
        assert interval.low < interval.value < interval.high
        assert interval.value == correlation.FUNCTIONS[name](x, y)
    narrow = bootstrap(x, y, n=300, seed=5, level=0.5)["plcc"]
    assert narrow.high - narrow.low < first["plcc"].high - first["plcc"].low


def test_bootstrap_agrees_with_scipy() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=200)
    y = x + rng.normal(size=200)
    ours = bootstrap(x, y, metrics=("plcc",), n=4000)["plcc"]
    theirs = stats.bootstrap(
        (x, y),
        lambda a, b: stats.pearsonr(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.015)
    assert ours.high == pytest.approx(theirs.high, abs=0.015)


def test_whole_groups_are_drawn() -> None:
    rng = np.random.default_rng(4)
    groups = rng.permutation(np.repeat(list("abcdef"), [9, 3, 7, 5, 8, 4]))
    x = rng.normal(size=36)
    y = x + rng.normal(size=36)
    ours = bootstrap(x, y, n=50, seed=3, groups=groups.tolist())
    first_seen = list(dict.fromkeys(groups.tolist()))
    drawn = np.random.default_rng(3).integers(0, 6, (50, 6))
    for name, metric in correlation.FUNCTIONS.items():
        values = []
        for resample in drawn:
            rows = np.concatenate([np.flatnonzero(groups == first_seen[i]) for i in resample])
            values.append(metric(x[rows], y[rows]))
        assert ours[name].low == pytest.approx(np.quantile(values, 0.025)), name
        assert ours[name].high == pytest.approx(np.quantile(values, 0.975)), name
        assert ours[name].value == metric(x, y)


def test_pairs_that_are_groups_of_their_own_are_drawn_as_pairs() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 40))
    assert bootstrap(x, y, n=60, groups=list(range(40))) == bootstrap(x, y, n=60)


def test_copies_of_a_picture_in_its_group_make_no_interval_narrower() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=60)
    y = x + rng.normal(size=60)
    copies = [np.repeat(side, 5) for side in (x, y)]
    alone = bootstrap(x, y, ("srcc",), n=400)["srcc"]
    grouped = bootstrap(*copies, ("srcc",), n=400, groups=np.repeat(range(60), 5).tolist())["srcc"]
    assert grouped == pytest.approx(alone, abs=1e-9)
    careless = bootstrap(*copies, ("srcc",), n=400)["srcc"]
    assert careless.high - careless.low < 0.7 * (alone.high - alone.low)


def test_one_group_has_no_interval_and_groups_are_one_per_pair() -> None:
    interval = bootstrap([1.0, 2.0, 3.0], [1.0, 3.0, 2.0], ("srcc",), n=20, groups=["a"] * 3)
    assert np.isnan(interval["srcc"].low) and interval["srcc"].value == pytest.approx(0.5)
    with pytest.raises(DataError, match="3 pairs of scores, but 2 groups"):
        bootstrap([1.0, 2.0, 3.0], [1.0, 3.0, 2.0], groups=["a", "b"])


def test_kendalls_tau_of_very_many_pairs_is_not_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlation, "MOST_PAIRS_OF_KRCC", 50)
    x = np.arange(51.0)
    y = x[::-1] + np.random.default_rng(0).normal(0, 9, 51)
    many = bootstrap(x, y, n=20)
    assert np.isnan(many["krcc"].low) and many["krcc"].value == correlation.krcc(x, y)
    few = bootstrap(x[1:], y[1:], n=20)
    assert np.isfinite(few["krcc"].low)
    for name in ("plcc", "srcc", "rmse"):
        assert np.isfinite(many[name].low)


def test_bootstrap_of_a_constant_model_and_unknown_metric() -> None:
    interval = bootstrap([1.0, 2.0, 3.0], [2.0, 2.0, 2.0], n=20)["plcc"]
    assert all(math.isnan(value) for value in interval)
    single = bootstrap([1.0], [2.0], metrics=("rmse",), n=20)["rmse"]
    assert single.value == 1.0
    assert math.isnan(single.low)
    with pytest.raises(DataError, match="plccc"):
        bootstrap([1.0, 2.0], [1.0, 2.0], metrics=("plccc",))


def test_paired_difference_sees_what_separate_intervals_do_not() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=300)
    shared = x + rng.normal(size=300)
    better, worse = shared, shared + 0.5 * rng.normal(size=300)
    difference = paired_difference(x, better, worse, n=500)["plcc"]
    assert 0 < difference.low < difference.value < difference.high
    assert difference.p_value < 0.05
    first, second = bootstrap(x, better, n=500)["plcc"], bootstrap(x, worse, n=500)["plcc"]
    assert first.low < second.high  # apart, the intervals overlap
    same = paired_difference(x, better, better, n=50)["plcc"]
    assert same[:3] == (0.0, 0.0, 0.0)
    assert same.p_value == 1.0


def test_logistic_mapping_straightens_a_saturating_scale() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 100, size=300)
    y = 1 + 4 / (1 + np.exp(-(x - 60) / 5))
    for parameters in (4, 5):
        assert plcc_logistic(y, x, parameters) > 0.9999
        assert plcc_logistic(y, -x, parameters) > 0.9999  # a falling mapping is allowed
        mapped = fit_logistic(y, x, parameters)(x)
        assert rmse(y, mapped) < 0.02
    assert plcc(y, x) < 0.93


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_five_parameters_are_never_worse_than_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 30))
    assert plcc_logistic(y, x, 5) >= abs(plcc(y, x)) - 1e-6


def test_logistic_of_bad_input() -> None:
    assert math.isnan(plcc_logistic([1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0, 5.0]))
    with pytest.raises(DataError, match="at least 5"):
        plcc_logistic([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])


def test_challenge_score() -> None:
    assert mos_challenge([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == pytest.approx(1.0)
    assert mos_challenge([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == 0.0
    assert mos_challenge([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]) == 0.0
    x, y = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 9.0]
    assert mos_challenge(x, y) == pytest.approx((plcc(x, y) + srcc(x, y)) / 2)
