"""Calibrating a judge on a split: probabilities become true; what can't be used is told."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.special import softmax

from beholder.data.annotations import AnnotationTable
from beholder.data.transforms import EvalTransform
from beholder.evaluation.calibrate import calibrate_judge
from beholder.evaluation.evaluate import evaluate_judge, headline, render_metrics
from beholder.judge import Judge
from beholder.judge.calibration import Calibration, fit_temperature
from beholder.judge.runtime.engine import HeadOutputs
from beholder.metrics.classification import ece
from beholder.metrics.conformal import winkler

CLASSES = {"light": ("dark", "bright"), "unknown": ("a", "b")}


class Scorer:
    """Scores a gray picture 0 to 5 by its mean."""

    def opinions(self, pixels_B3HW: np.ndarray, beam_size: int | None) -> HeadOutputs:
        return HeadOutputs(score_B=5.0 * pixels_B3HW.mean(axis=(1, 2, 3), dtype=np.float64))


class TooSure:
    """Says `bright` with certainty where the mean is above a half."""

    def opinions(self, pixels_B3HW: np.ndarray, beam_size: int | None) -> HeadOutputs:
        assert beam_size is None, "comments are not needed"
        mean_B = pixels_B3HW.mean(axis=(1, 2, 3)).astype(np.float64)
        light_BK = softmax(np.stack([0.5 - mean_B, mean_B - 0.5], axis=1) * 30, axis=1)
        return HeadOutputs(
            probabilities_BK={"light": light_BK, "unknown": np.full((len(mean_B), 2), 0.5)}
        )


def make_judge() -> Judge:
    transform = EvalTransform(size=(8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return Judge(TooSure(), transform, classes=CLASSES)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[AnnotationTable, Path]:
    """Gray pictures whose label is by chance, the more likely the brighter."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(3)
    levels = generator.integers(0, 256, 120)
    labels: list[str | None] = []
    for index, level in enumerate(levels):
        Image.new("RGB", (9, 9), (int(level),) * 3).save(root / f"{index}.png")
        labels.append("bright" if generator.random() < level / 255 else "dark")
    labels[:5] = [None] * 5
    (root / "9.png").write_bytes(b"no picture")
    keys = [f"{index}.png" for index in range(len(levels))]
    rows = {"light": labels, "unknown": [None] * len(keys)}
    return AnnotationTable.from_columns(keys, attributes=rows, classes=CLASSES), root


def test_too_sure_a_judge_becomes_calibrated(
    table: tuple[AnnotationTable, Path], caplog: pytest.LogCaptureFixture
) -> None:
    annotations, root = table
    with caplog.at_level(logging.WARNING):
        result = calibrate_judge(make_judge(), annotations, root)
    assert "9.png" in caplog.text
    assert "unknown: no labelled picture" in caplog.text
    assert set(result.calibration.temperatures) == {"light"}
    used = [key for key in annotations.keys[5:] if key != "9.png"]
    raw_BK = np.array(
        [
            [verdict.attributes["light"].probabilities[label] for label in CLASSES["light"]]
            for verdict in make_judge()([root / key for key in used])
        ]
    )
    labels = dict(annotations.frame.select("image", "attribute.light").iter_rows())
    given_B = np.array([CLASSES["light"].index(labels[key]) for key in used])
    temperature = fit_temperature(raw_BK, given_B)
    assert result.calibration.temperatures["light"] == temperature > 2
    before = ece(given_B, raw_BK.argmax(1), raw_BK)
    assert result.metrics["ece_before.light"] == pytest.approx(before, abs=1e-6)
    assert result.metrics["ece_after.light"] < 0.5 * result.metrics["ece_before.light"]
    assert result.metrics["temperature.light"] == pytest.approx(temperature, abs=1e-6)


def test_attribute_that_the_table_does_not_have_is_left_out(
    table: tuple[AnnotationTable, Path],
) -> None:
    annotations, root = table
    bare = AnnotationTable.from_columns(annotations.keys)
    assert calibrate_judge(make_judge(), bare, root).calibration == Calibration()


def scored(root: Path, count: int, groups: int, seed: int = 0) -> AnnotationTable:
    """Gray pictures whose given score is their level with noise of a known deviation."""
    generator = np.random.default_rng(seed)
    keys, scores = [], []
    for index in range(count):
        level = int(generator.integers(0, 256))
        keys.append(f"s{seed}-{index}.png")
        Image.new("RGB", (9, 9), (level,) * 3).save(root / keys[-1])
        scores.append(level / 51 + generator.normal(0, 0.4))
    names = [str(index % groups) for index in range(count)]
    return AnnotationTable.from_columns(keys, score=scores, group=names, split=["val"] * count)


def scorer(calibration: Calibration | None = None) -> Judge:
    transform = EvalTransform(size=(8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return Judge(Scorer(), transform, classes={}, calibration=calibration)


def test_intervals_of_scores_hold_on_further_pictures(tmp_path: Path) -> None:
    table = scored(tmp_path, 150, 150)
    assert scorer()(tmp_path / "s0-0.png").interval is None
    fitted = calibrate_judge(scorer(), table, tmp_path, level=0.9)
    interval = fitted.calibration.score
    assert interval is not None
    assert (interval.level, interval.pictures) == (0.9, 150)
    assert interval.quantile == pytest.approx(1.645 * 0.4, rel=0.2)
    assert fitted.metrics == {"interval_width": pytest.approx(2 * interval.quantile, abs=1e-6)}
    judge = scorer(fitted.calibration)
    verdict = judge(tmp_path / "s0-0.png")
    assert verdict.score is not None
    half = interval.quantile
    assert verdict.interval == pytest.approx((verdict.score - half, verdict.score + half))
    fresh = scored(tmp_path, 200, 200, seed=1)
    result = evaluate_judge(judge, fresh, tmp_path, resamples=100)
    reported = result.metrics["interval"]
    inside = result.predictions.select(pl.col("target.score").is_between("low", "high"))
    slices = reported.pop("slices")
    frame = result.predictions
    ends = (frame[name].to_numpy() for name in ("target.score", "low", "high"))
    assert reported == {
        "level": 0.9, "calibrated_on": 150, "calibrated_groups": 150, "pictures": 200,
        "covered": inside.to_series().mean(), "width": pytest.approx(2 * half),
        "winkler": pytest.approx(winkler(*ends, 0.9)),
    }  # fmt: skip
    # all pictures are of one size, and there are no labels
    assert [part["by"] for part in slices] == ["score"] * 3
    assert sum(part["pictures"] for part in slices) == 200
    assert 0.82 <= reported["covered"] <= 0.97
    assert headline(result.metrics)["coverage"] == reported["covered"]
    assert "intervals   90% asked" in render_metrics(result.metrics)
    without = evaluate_judge(scorer(), fresh, tmp_path, resamples=100)
    assert "interval" not in without.metrics
    assert without.predictions["low"].null_count() == 200


def test_too_few_pictures_or_groups_for_intervals_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = calibrate_judge(scorer(), scored(tmp_path, 8, 8), tmp_path)
    assert few.calibration == Calibration()
    assert "8 pictures with a score to calibrate on, 90% intervals need 9" in caplog.text
    caplog.clear()
    grouped = calibrate_judge(scorer(), scored(tmp_path, 30, 3), tmp_path)
    assert grouped.calibration.score is not None
    assert "of 3 groups only" in caplog.text
    caplog.clear()
    calibrate_judge(make_judge(), scored(tmp_path, 8, 8), tmp_path)  # gives no scores
    assert "score:" not in caplog.text
