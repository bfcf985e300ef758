"""Regressors against scikit-learn's and plain loops; the stack, its folder, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge as SklearnKernelRidge
from sklearn.linear_model import LinearRegression
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.metrics.pairwise import rbf_kernel

from beholder.data.splits import assign_folds
from beholder.errors import DataError, RegressorError
from beholder.metrics.correlation import srcc
from beholder.models.regressors import kernel
from beholder.models.regressors.autogluon import AutoGluonRegressor
from beholder.models.regressors.config import AutoGluonConfig, EnsembleConfig
from beholder.models.regressors.ensemble import MEMBERS, ScoreEnsemble, stack
from beholder.models.regressors.kernel import KernelRidge
from beholder.models.regressors.mlp import Mlp
from beholder.models.regressors.ridge import Ridge, RidgePath
from beholder.models.regressors.trees import Trees


def made(rows: int, columns: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlated features, scores that hang on a few directions of them, folds by units of two."""
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((8, columns))
    hidden = generator.standard_normal((rows, 8))
    x = hidden @ mixing + 0.3 * generator.standard_normal((rows, columns)) + 1.5
    y = hidden[:, 0] + np.sin(2 * hidden[:, 1]) + 0.1 * generator.standard_normal(rows)
    folds = assign_folds([str(row // 2) for row in range(rows)], 4)
    return x.astype(np.float32), (y - y.mean()) / y.std(), folds


def units_of(rows: int) -> list[str]:
    return [str(row // 2) for row in range(rows)]


@pytest.mark.parametrize(
    ("rows", "columns"), [(40, 90), (90, 40), (60, 60), (200, 5), (200, 2), (60, 1)]
)
def test_ridge_of_every_strength_is_scikit_learns_also_out_of_fold(rows: int, columns: int) -> None:
    x, y, folds = made(rows, columns)
    path = RidgePath(x, y)
    strengths = path.strengths()
    held_out = path.held_out(strengths, folds)
    wide = x.astype(np.float64)
    for index, strength in enumerate(strengths):
        plain = SklearnRidge(alpha=strength, solver="svd").fit(wide, y)
        weights, intercept = path.coefficients(strength)
        np.testing.assert_allclose(wide @ weights + intercept, plain.predict(wide), atol=1e-7)
        for fold in range(4):
            inside = folds != fold
            other = SklearnRidge(alpha=strength, solver="svd").fit(wide[inside], y[inside])
            expected = other.predict(wide[~inside])
            np.testing.assert_allclose(held_out[index, ~inside], expected, atol=1e-6)


def test_ridge_takes_the_strength_that_is_best_out_of_fold() -> None:
    x, y, folds = made(80, 60)
    member, held_out = Ridge.fit(x, y, folds, seed=0)
    errors = {}
    for strength in RidgePath(x, y).strengths():
        errors[strength] = 0.0
        for fold in range(4):
            inside = folds != fold
            plain = SklearnRidge(alpha=strength).fit(x[inside], y[inside])
            errors[strength] += np.square(plain.predict(x[~inside]) - y[~inside]).sum() / len(y)
    best = min(errors, key=errors.__getitem__)
    assert np.square(held_out - y).mean() == pytest.approx(errors[best], rel=1e-4)
    expected = SklearnRidge(alpha=best).fit(x, y).predict(x)
    np.testing.assert_allclose(member.predict(x), expected, atol=1e-4)


def test_rows_that_say_the_same_and_constant_features_are_no_trouble_to_ridge() -> None:
    x, y, folds = made(40, 30)
    x = np.concatenate([x, x, np.ones_like(x)], axis=1)
    x[7] = x[3]
    path = RidgePath(x, y)
    assert len(path.values_R) < min(x.shape)
    assert np.isfinite(path.held_out(path.strengths(), folds)).all()
    few, first = folds[:10], folds[:10] == 0
    empty = RidgePath(np.ones((10, 3)), y[:10])
    held_out = empty.held_out(empty.strengths()[:1], few)
    np.testing.assert_allclose(held_out[0, first], y[:10][~first].mean())


def test_kernel_ridge_with_every_row_a_landmark_is_exact() -> None:
    x, y, folds = made(70, 12)
    member, held_out = KernelRidge.fit(x, y, folds, seed=1)
    similar = rbf_kernel(x.astype(np.float64), gamma=member.gamma)
    path_features = np.linalg.cholesky(similar + 1e-12 * np.eye(len(x)))
    strengths = RidgePath(path_features, y).strengths()
    found = []
    for strength in strengths:
        # an intercept without a penalty: centring in the feature space is centring the kernel
        predicted = np.empty_like(y)
        for fold in range(4):
            inside = folds != fold
            predicted[~inside] = _centred_kernel_ridge(similar, y, inside, ~inside, strength)
        found.append(predicted)
    errors = [np.square(predicted - y).mean() for predicted in found]
    best = int(np.argmin(errors))
    np.testing.assert_allclose(held_out, found[best], atol=1e-5)
    every = np.ones(len(x), bool)
    expected = _centred_kernel_ridge(similar, y, every, every, strengths[best])
    np.testing.assert_allclose(member.predict(x), expected, atol=1e-5)


def _centred_kernel_ridge(
    similar: np.ndarray, y: np.ndarray, inside: np.ndarray, outside: np.ndarray, strength: float
) -> np.ndarray:
    """Scikit-learn's, on the kernel of centred features."""
    known, cross = similar[np.ix_(inside, inside)], similar[np.ix_(outside, inside)]
    mean = known.mean(axis=0)
    centred = known - mean - mean[:, None] + mean.mean()
    centred_cross = cross - mean - cross.mean(axis=1)[:, None] + mean.mean()
    model = SklearnKernelRidge(alpha=strength, kernel="precomputed")
    model.fit(centred, y[inside] - y[inside].mean())
    return model.predict(centred_cross) + y[inside].mean()


def test_kernel_ridge_on_drawn_landmarks_comes_near_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, folds = made(300, 12)
    whole, _ = KernelRidge.fit(x, y, folds, seed=1)
    monkeypatch.setattr(kernel, "LANDMARKS", 150)
    drawn, held_out = KernelRidge.fit(x, y, folds, seed=1)
    assert drawn.landmarks_MP.shape == (150, 12)
    fresh = made(200, 12, seed=5)[0]
    assert np.corrcoef(whole.predict(fresh), drawn.predict(fresh))[0, 1] > 0.98
    assert srcc(y, held_out) > 0.8


@pytest.mark.parametrize("member", [Trees, Mlp])
def test_out_of_fold_predictions_know_nothing_of_their_fold(member: type[Trees | Mlp]) -> None:
    x, y, folds = made(120, 20)
    fitted, held_out = member.fit(x, y, folds, seed=3)
    assert srcc(y, held_out) > 0.75
    assert srcc(y, fitted.predict(x)) > srcc(y, held_out)
    changed = y.copy()
    changed[folds == 2] = 0.0
    _, others = member.fit(x, changed, folds, seed=3)
    # scores of fold 2 may change how long is trained, and with it the others' predictions; its own
    # come from the same fits
    same_length = np.corrcoef(held_out[folds == 2], others[folds == 2])[0, 1]
    assert same_length > 0.95
    again, held_out_again = member.fit(x, y, folds, seed=3)
    assert np.array_equal(held_out, held_out_again)
    assert np.array_equal(fitted.predict(x), again.predict(x))


def test_out_of_fold_predictions_of_trees_by_a_plain_loop() -> None:
    import lightgbm

    from beholder.models.regressors.trees import ROUNDS, _parameters

    x, y, folds = made(120, 10)
    _, held_out = Trees.fit(x, y, folds, seed=3)
    bins = lightgbm.Dataset(x, params=_parameters(x, 3)).construct()
    errors = np.empty((ROUNDS, len(y)))
    for fold in range(4):
        inside = folds != fold
        data = lightgbm.Dataset(x[inside], y[inside], reference=bins)
        booster = lightgbm.train(_parameters(x, 3), data, ROUNDS)
        for count in range(ROUNDS):
            errors[count, ~inside] = booster.predict(x[~inside], num_iteration=count + 1)
    best = np.square(errors - y).mean(axis=1).argmin()
    np.testing.assert_array_equal(held_out, errors[best])


def test_stacking_weights_are_those_of_non_negative_regression() -> None:
    generator = np.random.default_rng(0)
    y = generator.standard_normal(300)
    held_out = np.stack([y + generator.standard_normal(300) * s for s in (0.5, 1.0, 2.0)] + [-y])
    weights, intercept = stack(held_out + 3.0, y)
    plain = LinearRegression(positive=True).fit(held_out.T + 3.0, y)
    np.testing.assert_allclose(weights, plain.coef_, atol=1e-8)
    assert intercept == pytest.approx(plain.intercept_)
    assert weights[3] == 0.0


def test_stack_is_no_worse_than_its_members_and_back_on_the_scale_of_the_scores() -> None:
    x, y, _ = made(240, 30)
    scores = 3.0 + 1.7 * y
    ensemble = ScoreEnsemble.fit(x, scores, units_of(240), seed=2)
    assert list(ensemble.weights) == ["ridge", "kernel", "trees", "mlp"]
    stacked = ensemble.quality["stack"]["rmse"]
    assert all(stacked <= ensemble.quality[name]["rmse"] + 1e-9 for name in ensemble.members)
    fresh_x, fresh_y, _ = made(240, 30)
    assert srcc(fresh_y, ensemble.predict(fresh_x)) > 0.9
    assert abs(ensemble.predict(x).mean() - 3.0) < 0.1
    parts = ensemble.predict_members(x)
    weights = np.array(list(ensemble.weights.values()))
    expected = (weights @ parts + ensemble.arrays["intercept"]) * scores.std() + scores.mean()
    np.testing.assert_allclose(ensemble.predict(x), expected, rtol=1e-9)


@pytest.fixture(scope="module")
def fitted() -> ScoreEnsemble:
    x, y, _ = made(80, 12)
    return ScoreEnsemble.fit(x, y, units_of(80), seed=4)


def test_a_saved_ensemble_predicts_bit_for_bit_the_same(
    fitted: ScoreEnsemble, tmp_path: Path
) -> None:
    x = made(50, 12, seed=9)[0]
    fitted.save(tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"ensemble.json", "arrays.safetensors", "trees.txt"}
    loaded = ScoreEnsemble.load(tmp_path / "model")
    assert np.array_equal(loaded.predict(x), fitted.predict(x))
    assert loaded.quality == fitted.quality
    assert loaded.weights == fitted.weights
    fitted.save(tmp_path / "model")  # replaces it as a whole
    loaded.save(tmp_path / "again")
    for name in names:
        ours, theirs = tmp_path / "model" / name, tmp_path / "again" / name
        assert ours.read_bytes() == theirs.read_bytes()


def test_the_same_seed_gives_the_same_ensemble_in_any_feature_type(fitted: ScoreEnsemble) -> None:
    x, y, _ = made(80, 12)
    again = ScoreEnsemble.fit(x.astype(np.float64), y, units_of(80), seed=4)
    assert np.array_equal(again.predict(x), fitted.predict(x))
    other = ScoreEnsemble.fit(x, y, units_of(80), seed=5)
    assert not np.array_equal(other.predict(x), fitted.predict(x))


def test_constant_features_and_far_off_ones_are_harmless() -> None:
    x, y, _ = made(80, 12)
    config = EnsembleConfig(members=("ridge", "kernel"))
    x[:, 3] = 7.25
    ensemble = ScoreEnsemble.fit(x, y, units_of(80), config=config)
    far = x[:2].copy()
    far[0, 3] = 1e6  # never varied, so never learnt from
    np.testing.assert_array_equal(ensemble.predict(far), ensemble.predict(x[:2]))
    far[1, 0] = 1e9
    assert np.abs(ensemble.predict(far)).max() < 50


def test_a_damaged_folder_is_refused(fitted: ScoreEnsemble, tmp_path: Path) -> None:
    with pytest.raises(RegressorError, match="no score ensemble"):
        ScoreEnsemble.load(tmp_path / "model")
    fitted.save(tmp_path / "model")
    card = tmp_path / "model" / "ensemble.json"
    trees = tmp_path / "model" / "trees.txt"
    text, card_text = trees.read_text(), card.read_text()
    trees.write_text(text.replace("leaf_value=", "leaf_value=1", 1))
    with pytest.raises(RegressorError, match=r"trees\.txt was changed"):
        ScoreEnsemble.load(tmp_path / "model")
    trees.unlink()
    with pytest.raises(RegressorError, match=r"lacks its file trees\.txt"):
        ScoreEnsemble.load(tmp_path / "model")
    trees.write_text(text)
    card.write_text(card_text.replace('"mlp"', '"mpl"', 1))
    with pytest.raises(RegressorError, match="changed"):
        ScoreEnsemble.load(tmp_path / "model")
    card.write_text(json.dumps({**json.loads(card_text), "format": 99}))
    with pytest.raises(RegressorError, match="newer"):
        ScoreEnsemble.load(tmp_path / "model")
    card.write_text("{")
    with pytest.raises(RegressorError, match="can't be read"):
        ScoreEnsemble.load(tmp_path / "model")


def test_bad_input_is_named(fitted: ScoreEnsemble) -> None:
    x, y, _ = made(12, 5)
    keys = [f"{row}.jpg" for row in range(12)]

    def fit(features: np.ndarray, scores: np.ndarray, units: list[str]) -> None:
        config = EnsembleConfig(members=("ridge",))
        ScoreEnsemble.fit(features, scores, units, config=config, keys=keys)

    with pytest.raises(DataError, match="All 12 scores are 3"):
        fit(x, np.full(12, 3.0), keys)
    with pytest.raises(DataError, match="12 pictures in 3 groups can't be divided into 5 folds"):
        fit(x, y, list("aaaabbbbcccc"))
    broken = x.copy()
    broken[[2, 7], 1] = np.nan, np.inf
    with pytest.raises(DataError, match=r"features of 2\.jpg, 7\.jpg are not finite"):
        fit(broken, y, keys)
    unknown = y.copy()
    unknown[:7] = np.nan
    with pytest.raises(DataError, match=r"scores of 0\.jpg.* and 2 more are not finite"):
        fit(x, unknown, keys)
    with pytest.raises(DataError, match="belong together"):
        fit(x[:5], y, keys)
    with pytest.raises(DataError, match="reads 12 features"):
        fitted.predict(x)
    with pytest.raises(DataError, match="row 1 are not finite"):
        fitted.predict(np.array([np.zeros(12), np.full(12, np.nan)]))
    assert fitted.predict(np.empty((0, 12))).shape == (0,)


def test_every_member_of_the_schema_is_there() -> None:
    assert set(EnsembleConfig().members) == set(MEMBERS)
    with pytest.raises(ValueError, match="twice"):
        EnsembleConfig(members=("ridge", "ridge"))


def test_autogluon_behind_the_same_interface() -> None:
    pytest.importorskip("autogluon.tabular")
    x, y, _ = made(200, 12)
    config = AutoGluonConfig(kind="autogluon", time_limit=20.0)
    regressor = AutoGluonRegressor.fit(x, 3.0 + y, units_of(200), config=config)
    predicted = regressor.predict(x)
    assert predicted.shape == (200,)
    assert srcc(y, predicted) > 0.4
    assert abs(predicted.mean() - 3.0) < 0.3
    with pytest.raises(DataError, match="reads 12 features"):
        regressor.predict(x[:, :5])
    with pytest.raises(DataError, match="at least 100 pictures"):
        AutoGluonRegressor.fit(x[:90], y[:90], units_of(90), config=config)
