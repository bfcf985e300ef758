"""Intervals whose width depends on the score: against MAPIE, by hand, and what they promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beholder.errors import DataError
from beholder.metrics.conformal import (
    ConformalInterval,
    coverage,
    error_curve,
    fit_conformal,
    fit_conformal_by_score,
    winkler,
)

SCALE = (1.0, 5.0)


class Says:
    """What scikit-learn calls a regressor: what it was given to say of the first column."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.is_fitted_ = True

    def fit(self, x_N1: np.ndarray, y_N: np.ndarray) -> Says:
        return self

    def predict(self, x_N1: np.ndarray) -> np.ndarray:
        return self.function(np.asarray(x_N1)[:, 0])


def pictures(count: int, groups: int, seed: int, bias: float = 0.0) -> tuple[np.ndarray, ...]:
    """Targets, predictions with errors that grow towards the middle of the scale, and groups."""
    generator = np.random.default_rng(seed)
    predicted = generator.uniform(*SCALE, count)
    group = generator.integers(0, groups, count)
    deviation = 0.08 + 0.6 * np.exp(-(((predicted - 3.0) / 0.8) ** 2))
    shift = bias * generator.standard_normal(groups)[group]
    return predicted + deviation * generator.standard_normal(count) + shift, predicted, group


def test_one_width_is_that_of_mapie() -> None:
    mapie = pytest.importorskip("mapie.regression")
    target, predicted, _ = pictures(150, 150, 0)
    theirs = mapie.SplitConformalRegressor(Says(lambda x: x), confidence_level=0.8, prefit=True)
    theirs.conformalize(predicted[:, None], target)
    _, ends = theirs.predict_interval(predicted[:, None])
    ours = fit_conformal(target, predicted, level=0.8).margins_at(predicted)
    np.testing.assert_allclose(predicted - ours, ends[:, 0, 0])
    np.testing.assert_allclose(predicted + ours, ends[:, 1, 0])


def test_widths_by_score_are_those_of_mapie_for_the_same_curve() -> None:
    mapie = pytest.importorskip("mapie.regression")
    from mapie.conformity_scores import ResidualNormalisedScore

    target, predicted, _ = pictures(300, 300, 1)
    known, fresh = slice(0, 150), slice(150, None)
    curve = error_curve(predicted[known], np.abs(target - predicted)[known], np.ones(150), 150, 0.9)
    says = Says(lambda x: np.interp(x, *curve))
    score = ResidualNormalisedScore(residual_estimator=says, prefit=True, sym=True)
    theirs = mapie.SplitConformalRegressor(
        Says(lambda x: x), confidence_level=0.9, conformity_score=score, prefit=True
    )
    theirs.conformalize(predicted[fresh, None], target[fresh])
    _, ends = theirs.predict_interval(predicted[known, None])
    expected = says.predict(predicted[fresh, None])
    plain = fit_conformal(target[fresh] / expected, predicted[fresh] / expected)
    ours = ConformalInterval(
        level=0.9, quantile=plain.quantile, pictures=150,
        positions=tuple(curve[0]), errors=tuple(curve[1]),
    ).margins_at(predicted[known])  # fmt: skip
    np.testing.assert_allclose(predicted[known] - ours, ends[:, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(predicted[known] + ours, ends[:, 1, 0], rtol=1e-6)


@given(st.integers(0, 1000), st.sampled_from([0.5, 0.8, 0.9]))
@settings(max_examples=25, deadline=None)
def test_coverage_width_and_winkler_are_mapies(seed: int, level: float) -> None:
    metrics = pytest.importorskip("mapie.metrics.regression")
    generator = np.random.default_rng(seed)
    target, low = generator.normal(size=(2, 30))
    high = low + generator.gamma(1.0, 1.0, 30)
    ends = np.stack([low, high], axis=1)[:, :, None]
    found = coverage(target, low, high)
    assert found.covered == pytest.approx(metrics.regression_coverage_score(target, ends)[0])
    assert found.width == pytest.approx(metrics.regression_mean_width_score(ends)[0])
    assert winkler(target, low, high, level) == pytest.approx(
        metrics.regression_mwi_score(target, ends, level)
    )


def test_hard_scores_get_wide_intervals_and_easy_ones_are_covered_no_less() -> None:
    target, predicted, group = pictures(4000, 400, 2)
    fresh_target, fresh, _ = pictures(4000, 400, 3)
    fitted = fit_conformal_by_score(target, predicted, group.tolist(), scale=SCALE)
    plain = fit_conformal(target, predicted)
    assert fitted.positions and fitted.groups == 400 and fitted.pictures == 4000
    margins = fitted.margins_at(fresh)
    middle = np.abs(fresh - 3.0) < 0.3
    ends = np.abs(fresh - 3.0) > 1.6
    assert margins[middle].mean() > 2.5 * margins[ends].mean()
    assert margins.mean() < 0.8 * plain.quantile
    inside = np.abs(fresh_target - fresh) <= margins
    assert inside.mean() == pytest.approx(0.9, abs=0.02)
    assert inside[middle].mean() == pytest.approx(0.9, abs=0.05)
    assert inside[ends].mean() == pytest.approx(0.9, abs=0.06)
    assert (np.abs(fresh_target - fresh) <= plain.quantile)[middle].mean() < 0.75


def test_one_width_where_errors_do_not_depend_on_the_score() -> None:
    generator = np.random.default_rng(4)
    predicted = generator.uniform(*SCALE, 500)
    target = predicted + generator.normal(0, 0.4, 500)
    fitted = fit_conformal_by_score(target, predicted, list(range(500)))
    assert fitted == fit_conformal(target, predicted).model_copy(update={"groups": 500})


@pytest.mark.parametrize("bias", [0.0, 0.4])
def test_nine_of_ten_pictures_of_new_groups_are_covered(bias: float) -> None:
    shares = []
    for seed in range(30):
        target, predicted, group = pictures(600, 40, seed, bias)
        fresh_target, fresh, _ = pictures(600, 40, 1000 + seed, bias)
        margins = fit_conformal_by_score(target, predicted, group.tolist()).margins_at(fresh)
        shares.append(coverage(fresh_target, fresh - margins, fresh + margins).covered)
    assert np.mean(shares) == pytest.approx(0.9, abs=0.02)


def test_groups_weigh_the_same() -> None:
    # one group of 60 pictures with small errors, 9 of one picture with large ones
    errors = np.concatenate([np.full(60, 0.1), np.full(9, 1.0)])
    groups = ["many"] * 60 + [f"few {index}" for index in range(9)]
    predicted = np.full(69, 3.0)
    fitted = fit_conformal_by_score(predicted + errors, predicted, groups)
    assert fitted.quantile == pytest.approx(1.0)
    assert fit_conformal(predicted + errors, predicted).quantile == pytest.approx(1.0)
    assert fit_conformal_by_score(predicted + errors, predicted, groups, level=0.5).quantile == (
        pytest.approx(1.0)
    )
    assert fit_conformal(predicted + errors, predicted, level=0.5).quantile == pytest.approx(0.1)


@given(st.lists(st.tuples(st.floats(1, 5), st.floats(1, 5)), min_size=9, max_size=50))
@settings(max_examples=60, deadline=None)
def test_groups_of_one_and_the_same_width_are_plain_split_conformal(
    pairs: list[tuple[float, float]],
) -> None:
    target, predicted = np.array(pairs).T
    fitted = fit_conformal_by_score(target, predicted, list(range(len(pairs))), scale=SCALE)
    assert (fitted.margins_at(np.linspace(1, 5, 9)) >= 0).all()
    if not fitted.positions:
        assert fitted.quantile == fit_conformal(target, predicted).quantile


def test_what_does_not_fit_together_is_refused() -> None:
    known = {"level": 0.9, "quantile": 1.0, "pictures": 40}
    for wrong in (
        {"positions": (1.0, 2.0), "errors": (1.0,)},
        {"positions": (2.0, 1.0), "errors": (1.0, 1.0)},
        {"positions": (1.0, 2.0), "errors": (1.0, 0.0)},
        {"positions": (1.0,), "errors": (1.0,), "floor": 0.1},
        {"positions": (1.0, float("inf")), "errors": (1.0, 1.0)},
    ):
        with pytest.raises(ValueError):
            ConformalInterval(**known, **wrong)
    with pytest.raises(DataError, match="too few"):
        fit_conformal_by_score([1.0] * 8, [1.0] * 8, list(range(8)))
