"""Skills of features whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from beholder.auto.skill import (
    ALPHAS,
    attribute_skill,
    comment_skill,
    neighbour_cider,
    score_skill,
    standardised,
)
from beholder.metrics.correlation import srcc

GENERATOR = np.random.default_rng(4)
FEATURES = GENERATOR.normal(size=(120, 6))
NOISE = GENERATOR.normal(size=(120, 6))
FOLDS = np.arange(120) % 5
SCORES = FEATURES @ np.arange(1.0, 7.0) + GENERATOR.normal(size=120)


def test_the_score_s_skill_is_that_of_scikit_learn_s_cross_validation() -> None:
    model = make_pipeline(StandardScaler(), RidgeCV(ALPHAS))
    predicted = cross_val_predict(model, FEATURES, SCORES, cv=PredefinedSplit(FOLDS))
    assert score_skill(FEATURES, SCORES, FOLDS) == pytest.approx(srcc(SCORES, predicted), abs=1e-3)


def test_features_that_tell_nothing_have_no_skill() -> None:
    assert abs(score_skill(NOISE, SCORES, FOLDS)) < 0.3
    assert score_skill(np.zeros((120, 6)), SCORES, FOLDS) <= 0.0
    labels = np.where(SCORES > 0, "good", "bad").tolist()
    assert attribute_skill(FEATURES, labels, FOLDS)[0] > 0.8
    assert attribute_skill(NOISE, labels, FOLDS)[0] < 0.3


def test_half_of_the_rows_teach_less() -> None:
    usable = np.arange(120) < 12
    assert score_skill(NOISE + FEATURES, SCORES, FOLDS, usable) < score_skill(
        NOISE + FEATURES, SCORES, FOLDS
    )
    nobody = np.zeros(120, bool)
    assert score_skill(FEATURES, SCORES, FOLDS, nobody) == 0.0


def test_class_weights_are_used_only_where_they_help() -> None:
    # one class is rare and easily told: weights change nothing, so there are none
    labels = np.where(FEATURES[:, 0] > 1.5, "rare", "common").tolist()
    telling = FEATURES[:, :1] * 5
    skill, power = attribute_skill(np.hstack([telling, telling**2]), labels, FOLDS)
    assert 0.0 <= power <= 1.0 and skill > 0.3
    assert attribute_skill(FEATURES, ["same"] * 120, FOLDS) == (0.0, 0.0)


def test_a_class_of_one_is_no_error() -> None:
    labels = ["common"] * 119 + ["single"]
    skill, _ = attribute_skill(FEATURES, labels, FOLDS)
    assert skill <= 0.0


def test_the_nearest_neighbour_s_comment_is_copied() -> None:
    features = np.repeat(np.eye(4) * 10, 3, axis=0)
    comments = [[f"{colour} things on a table"] for colour in ("red", "blue", "green", "black")]
    twelve = [comment for comment in comments for _ in range(3)]
    same = comment_skill(features, twelve, np.arange(12) % 3)
    mixed = comment_skill(features[::-1][GENERATOR.permutation(12)], twelve, np.arange(12) % 3)
    assert same > mixed
    held = np.arange(12) % 3 == 0
    assert neighbour_cider(features, twelve, [(~held, held)]) > 5.0


def test_standardised_is_of_the_rows_that_are_learnt_from() -> None:
    learnt = FOLDS != 0
    inputs = standardised(FEATURES * 7 + 3, learnt)
    np.testing.assert_allclose(inputs[learnt].mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(inputs[learnt].std(axis=0), 1.0)
    assert np.abs(standardised(np.full((120, 1), 2.0), learnt)).max() == 0.0
