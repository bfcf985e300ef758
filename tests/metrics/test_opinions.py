"""Raters against scipy's maximum likelihood and against what was drawn; ceilings; bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize
from simulated_raters import Ratings, draw_ratings

from beholder.data.annotations import AnnotationTable
from beholder.errors import DataError
from beholder.metrics.ceiling import ceiling
from beholder.metrics.correlation import srcc
from beholder.metrics.opinion_check import check_opinions, render_opinions, with_corrected_scores
from beholder.metrics.opinions import fit_opinions


def indices(names: tuple[str, ...]) -> np.ndarray:
    """The indices that `Ratings.named` made names of."""
    return np.array([int(name.removeprefix("r").removesuffix(".jpg")) for name in names])


def negative_log_likelihood(drawn: Ratings, x: np.ndarray) -> float:
    """Of qualities, biases and logarithms of inconsistencies, in this order."""
    pictures, raters = len(drawn.quality), len(drawn.bias)
    quality, bias, log_nu = np.split(x, [pictures, pictures + raters])
    residual = drawn.score - quality[drawn.picture] - bias[drawn.rater]
    return float(np.sum(log_nu[drawn.rater] + residual**2 / 2 * np.exp(-2 * log_nu[drawn.rater])))


@pytest.mark.parametrize("per_picture", [12, 10])
def test_the_papers_form_is_the_maximum_of_the_likelihood(per_picture: int) -> None:
    drawn = draw_ratings(30, 12, per_picture, seed=0, noise=(0.5, 0.7))
    model = fit_opinions(*drawn.columns(), restricted=False)
    assert not model.at_floor.any()
    order = np.argsort(indices(model.raters))
    fitted = np.concatenate([model.quality, model.bias[order], np.log(model.inconsistency[order])])
    start = fitted + 0.05 * np.random.default_rng(0).standard_normal(fitted.size)
    best = optimize.minimize(lambda x: negative_log_likelihood(drawn, x), start, method="BFGS")
    quality, bias, log_nu = np.split(best.x, [30, 42])
    np.testing.assert_allclose(model.quality, quality + bias.mean(), atol=2e-3)
    np.testing.assert_allclose(model.bias[order], bias - bias.mean(), atol=2e-3)
    np.testing.assert_allclose(np.log(model.inconsistency[order]), log_nu, atol=2e-3)
    assert negative_log_likelihood(drawn, fitted) <= best.fun + 1e-6


def test_with_every_rating_there_it_is_the_maximum_of_the_restricted_likelihood() -> None:
    pictures, raters = 40, 4
    drawn = draw_ratings(pictures, raters, raters, seed=1)
    design = np.zeros((len(drawn.score), pictures + raters - 1))
    rows = np.arange(len(drawn.score))
    design[rows, drawn.picture] = 1.0
    for row, rater in enumerate(drawn.rater):  # the last bias is minus the others'
        design[row, pictures:] = -1.0 if rater == raters - 1 else 0.0
        if rater < raters - 1:
            design[row, pictures + rater] = 1.0

    def restricted(log_nu: np.ndarray) -> float:
        weight = np.exp(-2 * log_nu[drawn.rater])
        information = design.T @ (weight[:, None] * design)
        fitted = np.linalg.solve(information, design.T @ (weight * drawn.score))
        residual = drawn.score - design @ fitted
        _, determinant = np.linalg.slogdet(information)
        return float(log_nu[drawn.rater].sum() + (determinant + weight @ residual**2) / 2)

    best = optimize.minimize(restricted, np.zeros(raters), method="BFGS", options={"gtol": 1e-7})
    model = fit_opinions(*drawn.columns())
    order = np.argsort(indices(model.raters))
    np.testing.assert_allclose(np.log(model.inconsistency[order]), best.x, atol=1e-4)
    # standard errors: the inverse of the second derivatives, numerically
    step, identity = 1e-3, np.eye(raters)
    hessian = np.array(
        [
            [
                sum(
                    a * b * restricted(best.x + step * (a * identity[i] + b * identity[j]))
                    for a in (1, -1)
                    for b in (1, -1)
                )
                / (4 * step**2)
                for j in range(raters)
            ]
            for i in range(raters)
        ]
    )
    relative = (model.inconsistency_error / model.inconsistency)[order]
    np.testing.assert_allclose(relative, np.sqrt(np.diag(np.linalg.inv(hessian))), rtol=0.25)


def test_errors_of_quality_and_bias_are_those_of_weighted_least_squares() -> None:
    drawn = draw_ratings(15, 6, 3, seed=5)
    model = fit_opinions(*drawn.columns())
    pictures, raters = len(model.pictures), len(model.raters)
    weight = model.inconsistency[model.rater_K] ** -2.0
    design = np.zeros((len(model.score_K), pictures + raters))
    rows = np.arange(len(design))
    design[rows, model.picture_K] = 1.0
    design[rows, pictures + model.rater_K] = 1.0
    # biases of mean 0 as one more, exact observation
    held = np.concatenate([np.zeros(pictures), np.full(raters, 1e4)])
    information = design.T @ (weight[:, None] * design) + np.outer(held, held)
    errors = np.sqrt(np.diag(np.linalg.inv(information)))
    np.testing.assert_allclose(model.quality_error, errors[:pictures], rtol=1e-4)
    np.testing.assert_allclose(model.bias_error, errors[pictures:], rtol=1e-4)
    moments = design.T @ (weight * model.score_K)
    fitted = np.linalg.solve(information, moments)
    np.testing.assert_allclose(model.quality, fitted[:pictures], atol=1e-5)
    np.testing.assert_allclose(model.bias, fitted[pictures:], atol=1e-5)


@pytest.mark.parametrize(
    ("pictures", "raters", "per_picture"), [(100, 4, 4), (200, 20, 6), (150, 24, 24), (300, 40, 5)]
)
def test_what_ratings_were_drawn_from_lies_within_the_intervals(
    pictures: int, raters: int, per_picture: int
) -> None:
    inside: dict[str, list[np.ndarray]] = {"quality": [], "bias": [], "inconsistency": []}
    for seed in range(12):
        drawn = draw_ratings(pictures, raters, per_picture, seed)
        model = fit_opinions(*drawn.columns())
        for name, shares in inside.items():
            order = indices(model.pictures if name == "quality" else model.raters)
            error = np.abs(getattr(model, name) - getattr(drawn, name)[order])
            shares.append(error <= 1.96 * getattr(model, f"{name}_error"))
    for name, shares in inside.items():
        # few raters: few intervals, so that their share wavers by 0.03
        assert 0.88 <= np.concatenate(shares).mean() <= 0.995, name


def test_the_papers_form_takes_raters_for_too_consistent_where_few_rate_a_picture() -> None:
    drawn = draw_ratings(300, 20, 8, seed=0, noise=(0.5, 0.5))
    restricted = fit_opinions(*drawn.columns())
    paper = fit_opinions(*drawn.columns(), restricted=False)
    assert np.median(restricted.inconsistency) == pytest.approx(0.5, rel=0.02)
    assert np.median(paper.inconsistency) == pytest.approx(0.5 * np.sqrt(7 / 8), rel=0.02)
    fewer = draw_ratings(300, 20, 4, seed=2, noise=(0.5, 0.5))
    assert fit_opinions(*fewer.columns(), restricted=False).at_floor.any()
    assert not fit_opinions(*fewer.columns()).at_floor.any()


def test_any_scale_and_names_give_the_same_model() -> None:
    drawn = draw_ratings(40, 6, 4, seed=3)
    pictures, raters, scores = drawn.columns()
    model = fit_opinions(pictures, raters, scores)
    other = fit_opinions(pictures, raters, [50 + 20 * score for score in scores])
    np.testing.assert_allclose(other.quality, 50 + 20 * model.quality, rtol=1e-6)
    np.testing.assert_allclose(other.inconsistency, 20 * model.inconsistency, rtol=1e-6)
    again = fit_opinions(pictures[::-1], raters[::-1], scores[::-1])
    same = dict(zip(again.raters, again.bias, strict=True))
    np.testing.assert_allclose([same[name] for name in model.raters], model.bias, atol=1e-7)
    assert model.bias.mean() == pytest.approx(0.0, abs=1e-12)


def test_lone_ratings_are_left_out() -> None:
    drawn = draw_ratings(40, 6, 4, seed=3)
    pictures, raters, scores = drawn.columns()
    model = fit_opinions(
        [*pictures, "lone.jpg", pictures[0]], [*raters, "r0", "passer-by"], [*scores, 1.0, 5.0]
    )
    assert (model.left_out_pictures, model.left_out_raters) == (("lone.jpg",), ("passer-by",))
    np.testing.assert_allclose(model.quality, fit_opinions(pictures, raters, scores).quality)


def test_a_rater_of_one_score_only_is_noise_and_said_to_be() -> None:
    drawn = draw_ratings(60, 8, 8, seed=4, noise=(0.3, 0.4))
    scores = np.where(drawn.rater == 5, 3.0, drawn.score)
    check = check_opinions(table_of(drawn, scores))
    by_name = {rater.rater: rater for rater in check.raters}
    assert by_name["r5"].remarks == ("inconsistency", "one score only")
    assert by_name["r5"].agreement is None
    assert by_name["r5"].inconsistency == pytest.approx(1.0, abs=0.2)  # the qualities' deviation


def test_raters_who_agree_entirely() -> None:
    drawn = draw_ratings(20, 4, 4, seed=0)
    check = check_opinions(table_of(drawn, drawn.quality[drawn.picture]))
    assert check.ceiling.value == pytest.approx(1.0, abs=1e-3)
    assert check.outliers == []


@pytest.mark.parametrize(
    ("pictures", "raters", "scores", "message"),
    [
        ("abcd", "xyzx", [1, 2, 3, 4], "a picture needs two of them"),
        ("aab", "xyx", [1, 2, 3], "a picture needs two of them"),
        ("aabbcc", "xyxyxy", [1, 2, 3, 4, 1, 2], "Only 2 raters"),
        ("aaabbb", "xyzxyz", [3, 3, 3, 3, 3, 3], "All ratings are 3"),
        ("aabbccdd", "xyxyuvuv", [1, 2, 3, 1, 2, 3, 1, 2], "2 groups that have no picture"),
        ("aab", "xyx", [1, 2, math.nan], "not finite"),
        ("aab", "xy", [1, 2, 3], "not one of each"),
        ("", "", [], "a picture needs two of them"),
    ],
)  # fmt: skip
def test_ratings_that_say_nothing_of_raters(
    pictures: str, raters: str, scores: list[float], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        fit_opinions(list(pictures), list(raters), scores)


@pytest.mark.parametrize(
    ("pictures", "raters", "per_picture", "noise"),
    [(150, 12, 4, (0.3, 0.9)), (150, 12, 6, (1.0, 2.0)), (200, 24, 24, (0.3, 0.9))],
)
def test_the_ceiling_is_what_the_true_qualities_reach(
    pictures: int, raters: int, per_picture: int, noise: tuple[float, float]
) -> None:
    reached, estimated, inside = ({"mean": [], "corrected": []} for _ in range(3))
    for seed in range(80):
        drawn = draw_ratings(pictures, raters, per_picture, seed, noise)
        model = fit_opinions(*drawn.columns())
        means = np.bincount(drawn.picture, drawn.score) / per_picture
        order = np.argsort(indices(model.pictures))
        for scores, estimate in (("mean", means), ("corrected", model.quality[order])):
            limits = ceiling(model, scores=scores, draws=100)
            reached[scores].append(srcc(drawn.quality, estimate))
            estimated[scores].append(limits.value)
            inside[scores].append(limits.low <= reached[scores][-1] <= limits.high)
    for scores in estimated:
        assert np.mean(estimated[scores]) == pytest.approx(np.mean(reached[scores]), abs=0.01)
        assert np.mean(inside[scores]) >= 0.85
    assert np.mean(estimated["corrected"]) > np.mean(estimated["mean"])


def test_a_ceiling_of_some_pictures_is_wider_and_seeded() -> None:
    drawn = draw_ratings(200, 10, 5, seed=0)
    model = fit_opinions(*drawn.columns())
    whole, some = ceiling(model), ceiling(model, [*model.pictures[:20], "unknown.jpg"])
    assert some.high - some.low > 1.5 * (whole.high - whole.low)
    assert ceiling(model) == whole != ceiling(model, seed=1)
    assert math.isnan(ceiling(model, ["0000.jpg"]).value)
    noise = Ratings(
        drawn.picture, drawn.rater, np.random.default_rng(0).standard_normal(1000),
        drawn.quality, drawn.bias, drawn.inconsistency,
    )  # fmt: skip
    assert ceiling(fit_opinions(*noise.columns())).value < 0.4


def table_of(drawn: Ratings, scores: np.ndarray) -> AnnotationTable:
    keys = [f"{index:04d}.jpg" for index in range(len(drawn.quality))]
    lists: list[list[dict[str, object]]] = [[] for _ in keys]
    for picture, rater, score in zip(drawn.picture, drawn.rater, scores, strict=True):
        lists[picture].append({"rater": f"r{rater}", "score": float(score)})
    means = np.bincount(drawn.picture, scores) / np.bincount(drawn.picture)
    return AnnotationTable.from_columns(keys, score=means.tolist(), ratings=lists)


def test_raters_who_are_off_stand_out_and_nobody_else() -> None:
    drawn = draw_ratings(80, 12, 8, seed=7, noise=(0.3, 0.5))
    scores = drawn.score + np.where(drawn.rater == 3, 2.5, 0.0)
    wild = 3.0 * np.random.default_rng(1).standard_normal(len(scores))
    scores += np.where(drawn.rater == 9, wild, 0.0)
    scores += np.where(drawn.picture == 11, 2.0 * (drawn.rater % 2), 0.0)
    table = table_of(drawn, scores)
    check = check_opinions(table)
    stands_out = {rater.rater: rater.remarks for rater in check.outliers}
    assert stands_out == {"r3": ("bias",), "r9": ("inconsistency",)}
    calm = {picture.image: picture.disagreement for picture in check.pictures}
    assert calm["0011.jpg"] > np.median(list(calm.values()))
    assert check.disputed[0].disagreement == max(calm.values())
    by_hand = [r["score"] for r in table.frame["ratings"][11].to_list()]
    biases = dict(zip(check.model.raters, check.model.bias, strict=True))
    unbiased = [
        score - biases[r["rater"]]
        for score, r in zip(by_hand, table.frame["ratings"][11].to_list(), strict=True)
    ]
    assert calm["0011.jpg"] == pytest.approx(np.std(unbiased, ddof=1))
    text = render_opinions(check)
    assert "640 ratings, 12 raters of 80 pictures compared" in text
    assert "r3: bias" in text and "r9: inconsistency" in text
    assert f"{check.ceiling.value:.3f} (95 %" in text


def test_agreement_is_with_the_mean_of_the_others() -> None:
    drawn = draw_ratings(30, 5, 4, seed=2)
    check = check_opinions(table_of(drawn, drawn.score))
    for rater in check.raters:
        mine = drawn.rater == int(rater.rater[1:])
        others = [
            drawn.score[(drawn.picture == picture) & ~mine].mean()
            for picture in drawn.picture[mine]
        ]
        assert rater.agreement == pytest.approx(srcc(drawn.score[mine], others))
        assert rater.ratings == mine.sum()


def test_corrected_scores_are_nearer_to_the_truth() -> None:
    drawn = draw_ratings(100, 10, 4, seed=1, noise=(0.2, 0.6))
    table = table_of(drawn, drawn.score + 1.5 * (drawn.rater == 2))
    corrected = with_corrected_scores(table)
    plain, better = (
        srcc(drawn.quality, version.frame["score"].to_numpy()) for version in (table, corrected)
    )
    assert better > plain + 0.02
    assert corrected.frame.drop("score").equals(table.frame.drop("score"))
    with pytest.raises(DataError, match="who gave which score"):
        with_corrected_scores(AnnotationTable.from_columns(["a"], score=[1.0]))


def test_a_table_without_raters_has_no_opinions_and_one_of_lone_ratings_says_why() -> None:
    assert check_opinions(AnnotationTable.from_columns(["a"], score=[1.0])) is None
    assert check_opinions(AnnotationTable.from_columns(["a"], ratings=[None])) is None
    lone = [[{"rater": "x", "score": 1.0}], [{"rater": "y", "score": 2.0}]]
    check = check_opinions(AnnotationTable.from_columns(["a", "b"], ratings=lone))
    assert check.model is None and check.ceiling is None
    assert "2 ratings\n  Too few pictures" in render_opinions(check)
    assert check.to_dict()["problem"] == check.problem
    assert check.ceiling_of(["a"]) is None
