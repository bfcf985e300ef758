"""A judge against given opinions: its attributes before and after calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beholder.data.annotations import AnnotationTable
from beholder.data.transforms import EvalTransform
from beholder.evaluation.evaluate import evaluate_judge, headline, render_metrics
from beholder.judge import Judge
from beholder.judge.calibration import Calibration
from beholder.judge.runtime.engine import HeadOutputs
from beholder.metrics.classification import score_attribute

CLASSES = {"light": ("dark", "bright", "never"), "plain": ("a", "b")}


class Brightness:
    """`bright` by the mean; `plain` is always `a`."""

    def opinions(self, pixels_B3HW: np.ndarray, beam_size: int | None) -> HeadOutputs:
        mean_B = pixels_B3HW.mean(axis=(1, 2, 3)).astype(np.float64)
        light_BK = np.stack([(1 - mean_B) * 0.9, mean_B * 0.9, np.full(len(mean_B), 0.1)], axis=1)
        return HeadOutputs(
            probabilities_BK={"light": light_BK, "plain": np.tile([0.75, 0.25], (len(mean_B), 1))}
        )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for index in range(8):
        Image.new("RGB", (9, 9), (index * 36,) * 3).save(tmp_path / f"{index}.png")
    return tmp_path


def test_attributes_before_and_after_calibration(root: Path) -> None:
    transform = EvalTransform(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
    calibration = Calibration(temperatures={"light": 0.5})
    judge = Judge(Brightness(), transform, classes=CLASSES, calibration=calibration)
    targets = ["dark", "bright", None, "dark", "bright", "bright", "dark", "bright"]
    table = AnnotationTable.from_columns(
        [f"{index}.png" for index in range(8)],
        attributes={"light": targets, "plain": ["a", "b"] * 4},
        classes=CLASSES,
    )
    result = evaluate_judge(judge, table, root)
    light, plain = (result.metrics["attributes"][name] for name in ("light", "plain"))
    levels = np.array([index * 36 / 255 for index in range(8)])
    raw_BK = np.stack([(1 - levels) * 0.9, levels * 0.9, np.full(8, 0.1)], axis=1)
    said_BK = raw_BK**2 / (raw_BK**2).sum(axis=1, keepdims=True)
    index_B = np.array(
        [-1 if label is None else CLASSES["light"].index(label) for label in targets]
    )
    expected = score_attribute(index_B, raw_BK.argmax(1), CLASSES["light"], said_BK)
    before = score_attribute(index_B, raw_BK.argmax(1), CLASSES["light"], raw_BK)
    assert light["ece"] == pytest.approx(expected.ece)
    assert light["top1"] == expected.top1
    assert light["support"] == [3, 4, 0]
    assert light["f1_per_class"]["never"] is None
    assert light["before_calibration"]["ece"] == pytest.approx(before.ece)
    assert light["before_calibration"]["temperature"] == 0.5
    assert len(light["before_calibration"]["reliability"]) == len(light["reliability"]) == 15
    assert "before_calibration" not in plain
    assert result.metrics["mean_top1"] == pytest.approx((expected.top1 + 0.5) / 2)
    assert result.metrics["mean_acsa"] == pytest.approx((expected.acsa + 0.5) / 2)
    assert headline(result.metrics)["mean_acsa"] == result.metrics["mean_acsa"]
    text = render_metrics(result.metrics)
    assert f"({before.ece:.3f} before its temperature)" in text
    assert "mean" in text
    assert text.count("before its temperature") == 1


def test_what_the_judge_can_not_answer_is_counted_and_makes_nothing_better(root: Path) -> None:
    transform = EvalTransform(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
    judge = Judge(Brightness(), transform, classes=CLASSES)
    light = ["dark", "dark", "dim", None, "dim", "bright", "bright", "Bright", "dark"]
    table = AnnotationTable.from_columns(
        [*(f"{index}.png" for index in range(8)), "absent.png"],
        score=[1.0] * 9,
        comments=[["some words"], *[[]] * 8],
        attributes={"light": light, "sleeve": ["long"] * 5 + [None] * 4},
    )
    metrics = evaluate_judge(judge, table, root).metrics
    assert metrics["counts"] == {"pictures": 8, "failed": 1}
    assert metrics["asked"] == {
        "score": {"given": 9, "compared": 0},
        "comments": {"given": 1, "compared": 0},
        "attributes": {
            "light": {"given": 8, "compared": 7, "no_class": {"Bright": 1, "dim": 2}},
            "sleeve": {"given": 5, "compared": 0},
        },
    }
    # pictures 0 to 3 are said to be dark, 4 to 7 bright: right are 0, 1, 5 and 6 of seven labels
    entry = metrics["attributes"]["light"]
    assert entry["classes"] == ["dark", "bright", "never", "Bright", "dim"]
    assert entry["support"] == [2, 2, 0, 1, 2]
    assert entry["top1"] == pytest.approx(4 / 7)
    assert entry["acsa"] == pytest.approx((1 + 1 + 0 + 0) / 4)
    # F1: dark 2*2/(2+3), bright 2*2/(2+4), Bright and dim 0
    assert entry["macro_f1"] == pytest.approx((4 / 5 + 4 / 6) / 4)
    assert metrics["mean_top1"] == entry["top1"]
    assert list(metrics["attributes"]) == ["light"]
    text = render_metrics(metrics)
    assert "3 of 7 labels of 'light' are no class of the judge and count as wrong" in text
    assert "'Bright' (1), 'dim' (2)" in text
    assert "1 of 8 labels of 'light' are not compared: no verdict" in text
    assert "5 labels of 'sleeve' are not compared: the judge says nothing of the kind" in text
    assert "9 scores are not compared" in text
