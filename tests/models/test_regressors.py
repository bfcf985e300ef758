"""Regressors against scikit-learn's and plain loops; the stack, its folder, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.optimize import nnls
from sklearn.kernel_ridge import KernelRidge as SklearnKernelRidge
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.metrics.pairwise import rbf_kernel

from beholder.data.splits import assign_folds
from beholder.errors import DataError, RegressorError
from beholder.metrics.correlation import srcc
from beholder.models.regressors import members
from beholder.models.regressors.autogluon import AutoGluonRegressor
from beholder.models.regressors.config import AutoGluonConfig, EnsembleConfig
from beholder.models.regressors.ensemble import ScoreEnsemble, stack
from beholder.models.regressors.members import MEMBERS, STRENGTHS, Learnt

GOLDEN = Path(__file__).parents[1] / "golden" / "before" / "score_ensemble"


def simulated(rows: int, columns: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def fit(name: str, rows: int, columns: int, seed: int = 0) -> tuple[Learnt, np.ndarray]:
    return MEMBERS[name].fit(*simulated(rows, columns), seed)


def predict(name: str, learnt: Learnt, x: np.ndarray) -> np.ndarray:
    return MEMBERS[name].predict(learnt, x)


@pytest.mark.parametrize(
    ("rows", "columns"), [(40, 90), (90, 40), (60, 60), (200, 5), (200, 2), (60, 1)]
)
def test_ridge_takes_the_strength_that_is_best_out_of_fold(rows: int, columns: int) -> None:
    x, y, folds = simulated(rows, columns)
    learnt, held_out = fit("ridge", rows, columns)
    wide = x.astype(np.float64)
    scale = np.square(wide - wide.mean(axis=0)).sum() / min(rows - 1, columns)
    predictions = []
    for strength in STRENGTHS * scale:
        predicted = np.empty_like(y)
        for fold in range(4):
            inside = folds != fold
            plain = SklearnRidge(alpha=strength, solver="svd").fit(wide[inside], y[inside])
            predicted[~inside] = plain.predict(wide[~inside])
        predictions.append(predicted)
    best = int(np.argmin([np.square(predicted - y).mean() for predicted in predictions]))
    np.testing.assert_allclose(held_out, predictions[best], atol=1e-6)
    expected = SklearnRidge(alpha=STRENGTHS[best] * scale, solver="svd").fit(wide, y)
    np.testing.assert_allclose(predict("ridge", learnt, x), expected.predict(wide), atol=1e-7)


@pytest.mark.parametrize("name", ["ridge", "kernel"])
def test_rows_that_say_the_same_and_constant_features_are_no_trouble(name: str) -> None:
    x, y, folds = simulated(40, 30)
    x = np.concatenate([x, x, np.ones_like(x)], axis=1)
    x[7] = x[3]
    learnt, held_out = MEMBERS[name].fit(x, y, folds, 0)
    assert np.isfinite(held_out).all()
    assert np.isfinite(predict(name, learnt, x)).all()
    same = np.ones((40, 3), np.float32)
    learnt, held_out = MEMBERS[name].fit(same, y, folds, 0)
    np.testing.assert_allclose(held_out[folds == 0], y[folds != 0].mean(), atol=1e-9)
    np.testing.assert_allclose(predict(name, learnt, same), y.mean(), atol=1e-9)


def test_kernel_ridge_with_every_row_a_landmark_is_exact() -> None:
    x, y, folds = simulated(70, 12)
    learnt, held_out = fit("kernel", 70, 12, seed=1)
    gamma = learnt.arrays["intercept_gamma"][1]
    similar = rbf_kernel(x.astype(np.float64), gamma=gamma)
    scale = np.trace(similar - similar.mean(axis=0)) / 69
    predictions = []
    for strength in STRENGTHS * scale:
        # an intercept without a penalty: centring in the feature space is centring the kernel
        predicted = np.empty_like(y)
        for fold in range(4):
            inside = folds != fold
            predicted[~inside] = _centred_kernel_ridge(similar, y, inside, ~inside, strength)
        predictions.append(predicted)
    best = int(np.argmin([np.square(predicted - y).mean() for predicted in predictions]))
    np.testing.assert_allclose(held_out, predictions[best], atol=1e-5)
    every = np.ones(len(x), bool)
    expected = _centred_kernel_ridge(similar, y, every, every, STRENGTHS[best] * scale)
    np.testing.assert_allclose(predict("kernel", learnt, x), expected, atol=1e-5)


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
    whole, _ = fit("kernel", 300, 12, seed=1)
    monkeypatch.setattr(members, "LANDMARKS", 150)
    drawn, held_out = fit("kernel", 300, 12, seed=1)
    assert drawn.arrays["landmarks"].shape == (150, 12)
    fresh = simulated(200, 12, seed=5)[0]
    by_all, by_drawn = predict("kernel", whole, fresh), predict("kernel", drawn, fresh)
    assert np.corrcoef(by_all, by_drawn)[0, 1] > 0.98
    assert srcc(simulated(300, 12)[1], held_out) > 0.8


@pytest.mark.parametrize("name", ["trees", pytest.param("mlp", marks=pytest.mark.slow)])
def test_out_of_fold_predictions_know_nothing_of_their_fold(name: str) -> None:
    x, y, folds = simulated(120, 20)
    learnt, held_out = fit(name, 120, 20, seed=3)
    assert srcc(y, held_out) > 0.75
    assert srcc(y, predict(name, learnt, x)) > srcc(y, held_out)
    changed = y.copy()
    changed[folds == 2] = 0.0
    _, others = MEMBERS[name].fit(x, changed, folds, 3)
    # scores of fold 2 may change how long is trained, and with it the others' predictions; its own
    # come from the same fits
    same_length = np.corrcoef(held_out[folds == 2], others[folds == 2])[0, 1]
    assert same_length > 0.95
    again, held_out_again = fit(name, 120, 20, seed=3)
    assert np.array_equal(held_out, held_out_again)
    assert np.array_equal(predict(name, learnt, x), predict(name, again, x))


def test_out_of_fold_predictions_of_trees_by_a_plain_loop() -> None:
    import lightgbm

    from beholder.models.regressors.members import ROUNDS, tree_parameters

    x, y, folds = simulated(120, 10)
    _, held_out = fit("trees", 120, 10, seed=3)
    bins = lightgbm.Dataset(x, params=tree_parameters(x, 3)).construct()
    errors = np.empty((ROUNDS, len(y)))
    for fold in range(4):
        inside = folds != fold
        data = lightgbm.Dataset(x[inside], y[inside], reference=bins)
        booster = lightgbm.train(tree_parameters(x, 3), data, ROUNDS)
        for count in range(ROUNDS):
            errors[count, ~inside] = booster.predict(x[~inside], num_iteration=count + 1)
    best = np.square(errors - y).mean(axis=1).argmin()
    np.testing.assert_array_equal(held_out, errors[best])


def test_stacking_weights_are_those_of_non_negative_regression() -> None:
    generator = np.random.default_rng(0)
    y = generator.standard_normal(300)
    held_out = np.stack([y + generator.standard_normal(300) * s for s in (0.5, 1.0, 2.0)] + [-y])
    weights, intercept = stack(held_out + 3.0, y)
    columns = held_out - held_out.mean(axis=1, keepdims=True)
    plain, _ = nnls(columns.T, y - y.mean())
    np.testing.assert_allclose(weights, plain, atol=1e-8)
    assert intercept == pytest.approx(y.mean() - plain @ (held_out + 3.0).mean(axis=1))
    assert weights[3] == 0.0


def test_stack_is_no_worse_than_its_members_and_back_on_the_scale_of_the_scores() -> None:
    x, y, _ = simulated(240, 30)
    scores = 3.0 + 1.7 * y
    ensemble = ScoreEnsemble.fit(x, scores, units_of(240), seed=2)
    assert list(ensemble.weights) == ["ridge", "kernel", "trees", "mlp"]
    stacked = ensemble.quality["stack"]["rmse"]
    assert all(stacked <= ensemble.quality[name]["rmse"] + 1e-9 for name in ensemble.members)
    fresh_x, fresh_y, _ = simulated(240, 30)
    assert srcc(fresh_y, ensemble.predict(fresh_x)) > 0.9
    assert abs(ensemble.predict(x).mean() - 3.0) < 0.1
    parts = ensemble.predict_members(x)
    weights = np.array(list(ensemble.weights.values()))
    expected = (weights @ parts + ensemble.arrays["intercept"]) * scores.std() + scores.mean()
    np.testing.assert_allclose(ensemble.predict(x), expected, rtol=1e-9)


@pytest.fixture(scope="module")
def fitted() -> ScoreEnsemble:
    x, y, _ = simulated(80, 12)
    return ScoreEnsemble.fit(x, y, units_of(80), seed=4)


def test_a_saved_ensemble_predicts_bit_for_bit_the_same(
    fitted: ScoreEnsemble, tmp_path: Path
) -> None:
    x = simulated(50, 12, seed=9)[0]
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


def test_an_ensemble_that_was_stored_by_an_earlier_version_predicts_the_same() -> None:
    stored = load_file(GOLDEN / "predictions.safetensors")
    ensemble = ScoreEnsemble.load(GOLDEN / "model")
    by_member = ensemble.predict_members(stored["features"])
    np.testing.assert_allclose(by_member, stored["members"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ensemble.predict(stored["features"]), stored["scores"], rtol=1e-9)


def test_the_same_seed_gives_the_same_ensemble_in_any_feature_type(fitted: ScoreEnsemble) -> None:
    x, y, _ = simulated(80, 12)
    again = ScoreEnsemble.fit(x.astype(np.float64), y, units_of(80), seed=4)
    assert np.array_equal(again.predict(x), fitted.predict(x))
    other = ScoreEnsemble.fit(x, y, units_of(80), seed=5)
    assert not np.array_equal(other.predict(x), fitted.predict(x))


def test_constant_features_and_far_off_ones_are_harmless() -> None:
    x, y, _ = simulated(80, 12)
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
    x, y, _ = simulated(12, 5)
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
    x, y, _ = simulated(200, 12)
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
