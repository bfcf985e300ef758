"""How familiar a picture is: uniform on pictures of its kind, low on others, kept in a few KB."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import stats
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from beholder.errors import DataError
from beholder.metrics.familiarity import (
    FEWEST_GROUPS,
    FEWEST_PICTURES,
    KEPT,
    Familiarity,
    fit_familiarity,
)

MIXING = np.random.default_rng(9).normal(size=(30, 150)) * np.geomspace(0.01, 10.0, 150)


def pictures(count: int, seed: int, shift: float = 0.0) -> NDArray[np.float64]:
    """Features of very different scales that hang together, of pictures of one kind."""
    draws = np.random.default_rng(seed)
    hidden = draws.normal(size=(count, 30)) + shift
    return 5.0 + hidden @ MIXING + draws.normal(size=(count, 150)) * 0.3


def known(count: int = 400) -> Familiarity:
    return fit_familiarity(pictures(count, 0), range(count))


def test_it_is_uniform_on_pictures_of_the_same_kind() -> None:
    values = known().p_values(pictures(4000, 1))
    assert values.min() > 0 and values.max() <= 1
    assert stats.kstest(values, "uniform").statistic < 0.06  # 400 calibrate: their own chance
    alarms = [
        (fit_familiarity(pictures(120, 2 * seed), range(120)).p_values(pictures(400, 2 * seed + 1))
         < 0.05).mean()
        for seed in range(20)
    ]  # fmt: skip
    assert 0.02 < np.mean(alarms) < 0.06


def test_held_out_pictures_calibrate_what_was_trained_on_others() -> None:
    own, others, new = pictures(300, 0), pictures(200, 1, 0.6), pictures(2000, 2, 0.6)
    with_them = fit_familiarity(own, range(300), others, range(200))
    assert with_them.units == 200
    assert (with_them.p_values(new) < 0.05).mean() == pytest.approx(0.05, abs=0.04)
    assert (fit_familiarity(own, range(300)).p_values(new) < 0.05).mean() > 0.15


def test_strange_pictures_are_told_apart() -> None:
    judge, same = known(), pictures(500, 1)
    strange = pictures(500, 2)[:, ::-1]  # the same numbers, in other places
    values = np.concatenate([judge.p_values(same), judge.p_values(strange)])
    assert roc_auc_score(np.repeat([0, 1], 500), -values) > 0.99
    assert (judge.p_values(strange) < 0.05).all()


def test_a_group_counts_as_one() -> None:
    """60 groups of pictures that are nearly one: the alarm is right once in twenty groups, and not
    as often as if every picture spoke for itself."""
    draws = np.random.default_rng(3)

    def grouped(groups: int, each: int) -> NDArray[np.float64]:
        centres = draws.normal(size=(groups, 1, 20)) * 3.0
        return (centres + 0.1 * draws.normal(size=(groups, each, 20))).reshape(-1, 20)

    rates = []
    for _ in range(15):
        learnt = grouped(60, 8)
        judge = fit_familiarity(learnt, np.repeat(np.arange(60), 8).tolist())
        assert judge.units == 60
        rates.append((judge.p_values(grouped(300, 1)) < 0.05).mean())
    assert 0.01 < np.mean(rates) < 0.075
    alone = fit_familiarity(learnt, range(480))  # pictures of a group vouch for each other
    assert (alone.p_values(grouped(300, 1)) < 0.05).mean() > 0.2


def test_few_groups_are_no_measure_and_pictures_count() -> None:
    groups = np.arange(100) % (FEWEST_GROUPS - 1)
    assert fit_familiarity(pictures(100, 0), groups.tolist()).units == 100


def test_the_share_is_that_of_the_definition() -> None:
    """(1 + pictures at least as far away) / (1 + pictures), at the calibration pictures' own
    distances and between them never less."""
    judge = known(KEPT)
    distances = np.sort(judge.distances_M)
    by_hand = [(1 + np.sum(distances >= d)) / (1 + KEPT) for d in distances]
    np.testing.assert_allclose(judge.p_values_of(distances), by_hand, rtol=1e-6)
    between = np.random.default_rng(0).uniform(0, 1.2 * distances[-1], 500)
    least = [(1 + np.sum(distances >= d)) / (1 + KEPT) for d in between]
    assert (judge.p_values_of(between) >= np.array(least) - 1e-6).all()
    assert judge.p_values_of([np.nan, np.inf, 0.0]) == pytest.approx([1 / 257, 1 / 257, 1.0])


@given(st.integers(KEPT + 1, 3000), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_what_is_left_out_of_many_distances_hardly_matters(count: int, seed: int) -> None:
    own = np.random.default_rng(seed).gamma(9.0, size=(count, 1))
    judge = fit_familiarity(np.ones((50, 3)) + np.eye(50, 3), range(50))
    from beholder.metrics import familiarity as module

    distances_M, shares_M, units = module._tail(own[:, 0], range(count))
    assert units == count and len(distances_M) <= KEPT
    kept = judge.model_copy(
        update={
            "distances": module._encode(distances_M, "<f4"),
            "shares": module._encode(shares_M, "<f4"),
            "units": count,
        }
    )
    asked = np.random.default_rng(seed + 1).gamma(9.0, size=200)
    exact = [(1 + np.sum(own >= d)) / (1 + count) for d in asked]
    assert np.abs(kept.p_values_of(asked) - exact).max() < 0.01


def test_the_distance_is_mahalanobis_as_scikit_learn_has_it() -> None:
    own = pictures(300, 0)[:, :40]  # fewer features than dimensions: each is a sum of its own
    judge, new = fit_familiarity(own, range(300)), pictures(50, 1)[:, :40]
    scale = own.std(axis=0)
    oracle = LedoitWolf().fit(own / scale)
    expected = np.sqrt(oracle.mahalanobis(new / scale))
    np.testing.assert_allclose(judge.distance(new), expected, rtol=0.01)


def test_it_is_kept_in_a_few_kilobytes_and_says_the_same() -> None:
    draws = np.random.default_rng(0)
    wide = draws.normal(size=(800, 2304)) * np.geomspace(1e-4, 1e3, 2304)
    judge = fit_familiarity(wide[:400], range(400))
    text = judge.model_dump_json()
    assert len(zlib.compress(text.encode())) < 8_000
    again = Familiarity.model_validate_json(text)
    assert again == judge
    np.testing.assert_array_equal(again.p_values(wide[400:]), judge.p_values(wide[400:]))


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_batches_of_one_say_what_batches_of_many_do(batch: int) -> None:
    judge, new = known(), pictures(50, 1)
    parts = [judge.p_values(new[at : at + batch]) for at in range(0, 50, batch)]
    np.testing.assert_allclose(np.concatenate(parts), judge.p_values(new), rtol=1e-9)


def test_constant_features_do_not_disturb() -> None:
    own = np.hstack([pictures(100, 0), np.full((100, 5), 3.0), np.zeros((100, 2))])
    values = fit_familiarity(own, range(100)).p_values(own)
    assert np.isfinite(values).all()


def test_too_little_to_go_by() -> None:
    with pytest.raises(DataError, match=f"39 pictures are too few.*{FEWEST_PICTURES} are needed"):
        fit_familiarity(pictures(39, 0), range(39))
    broken = pictures(50, 0)
    broken[3, 4] = np.nan
    with pytest.raises(DataError, match="not finite"):
        fit_familiarity(broken, range(50))
    with pytest.raises(DataError, match="reads 150"):
        known(60).p_values(np.zeros((2, 3)))


@pytest.mark.parametrize("field", ["distances", "shares"])
@pytest.mark.parametrize("value", ["", "AAAA", "not base64!", "AADAfw=="])
def test_a_strangers_numbers_are_not_believed(field: str, value: str) -> None:
    told = json.loads(known(60).model_dump_json())
    told[field] = value
    with pytest.raises(ValidationError):
        Familiarity.model_validate(told)


def test_few_groups_count_by_their_pictures() -> None:
    distance_N = np.arange(40, dtype=np.float64)
    groups = ["large"] * 30 + [f"small {number}" for number in range(10)]
    from beholder.metrics import familiarity as module

    distances_M, shares_M, units = module._tail(distance_N, groups)
    assert units == 40
    np.testing.assert_allclose(shares_M, np.arange(40, 0, -1) / 40)
    np.testing.assert_array_equal(distances_M, distance_N)
