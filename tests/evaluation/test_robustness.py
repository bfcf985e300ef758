"""Harmless changes: judges for whom it is known how far each moves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beholder.data.transforms import EvalTransform
from beholder.evaluation.evaluate import render_metrics
from beholder.evaluation.robustness import (
    CHANGES,
    measure_robustness,
    robustness_lines,
    robustness_sentence,
)
from beholder.judge import Judge
from beholder.judge.calibration import Calibration
from beholder.judge.runner import Request
from beholder.judge.runtime.engine import HeadOutputs
from beholder.metrics.conformal import ConformalInterval

SIDE, COUNT, HALF_WIDTH = 64, 30, 0.41


class Scores:
    """An engine whose score is some figure of the pixels, and whose label says if it is large."""

    def __init__(self, figure: Callable[[np.ndarray], np.ndarray]) -> None:
        self.figure = figure

    def opinions(self, pixels_B3HW: np.ndarray, beam_size: int | None) -> HeadOutputs:
        score_B = self.figure(pixels_B3HW).astype(np.float64)
        large_BK = np.stack([1.0 - score_B, score_B], axis=1)
        return HeadOutputs(score_B=score_B, probabilities_BK={"light": large_BK})


def judge_of(figure: Callable[[np.ndarray], np.ndarray]) -> Judge:
    transform = EvalTransform(size=(SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3)
    interval = ConformalInterval(level=0.9, quantile=HALF_WIDTH, pictures=50)
    return Judge(
        Scores(figure), transform, classes={"light": ("dark", "bright")},
        calibration=Calibration(score=interval),
    )  # fmt: skip


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[Request]:
    """Noise of 64 x 64 pixels, each picture about a light of its own."""
    folder = tmp_path_factory.mktemp("noise")
    generator = np.random.default_rng(0)
    for number in range(COUNT):
        light = 60 + 130 * (number % 2)
        pixels = light + generator.integers(-60, 61, (SIDE, SIDE, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    return [Request(f"{n}.png", folder / f"{n}.png") for n in range(COUNT)]


def by_change(judge: Judge, requests: list[Request], most: int = 100) -> dict[str, dict]:
    measured = measure_robustness(judge, requests, most)
    assert measured is not None and measured["pictures"] == min(most, len(requests))
    assert [entry["change"] for entry in measured["changes"]] == list(CHANGES)
    return {entry["change"]: entry for entry in measured["changes"]}


def test_mean_brightness_is_moved_by_nothing(requests: list[Request]) -> None:
    changes = by_change(judge_of(lambda x_B3HW: x_B3HW.mean(axis=(1, 2, 3))), requests)
    assert changes["mirrored"]["mean_change"] == pytest.approx(0.0, abs=1e-6)
    for entry in changes.values():
        assert entry["mean_change"] < 0.01 and entry["moved"] == 0.0
        assert entry["labels"] == {"light": 0.0}


def test_a_single_pixel_moves_as_its_neighbours_say(requests: list[Request]) -> None:
    row, column = SIDE // 2, SIDE // 2
    changes = by_change(judge_of(lambda x_B3HW: x_B3HW[:, 0, row, column]), requests)
    pictures = np.stack([np.asarray(Image.open(r.path)) for r in requests])[..., 0] / 255.0
    before_N = pictures[:, row, column]
    for change, after_N in (
        ("mirrored", pictures[:, row, SIDE - 1 - column]),
        ("1 pixel shifted", pictures[:, row - 1, column - 1]),
    ):
        entry, moved_N = changes[change], np.abs(after_N - before_N)
        assert entry["mean_change"] == pytest.approx(moved_N.mean(), abs=1e-6)
        assert entry["moved"] == pytest.approx((moved_N > HALF_WIDTH / 2).mean())
        other = (after_N > 0.5) != (before_N > 0.5)
        assert entry["labels"]["light"] == pytest.approx(other.mean())
        assert entry["moved"] > 0.1
    assert changes["half size"]["mean_change"] > 0.05


def test_at_most_so_many_pictures_and_always_the_same(requests: list[Request]) -> None:
    judge = judge_of(lambda x_B3HW: x_B3HW[:, 0, 5, 5])
    assert by_change(judge, requests, 7) == by_change(judge, requests[::-1], 7)


def test_a_box_is_changed_alone(requests: list[Request]) -> None:
    boxed = [Request(r.name, r.picture, (0.0, 0.0, 32.0, 32.0)) for r in requests[:4]]
    cut = judge_of(lambda x_B3HW: x_B3HW.mean(axis=(1, 2, 3)))
    assert by_change(cut, boxed)["mirrored"]["mean_change"] < 1e-6


def test_what_cannot_be_read_is_left_out(requests: list[Request], tmp_path: Path) -> None:
    judge = judge_of(lambda x_B3HW: x_B3HW.mean(axis=(1, 2, 3)))
    gone = Request("gone.png", tmp_path / "gone.png")
    measured = measure_robustness(judge, [gone, *requests[:3]], 10)
    assert measured is not None and measured["pictures"] == 3
    assert measure_robustness(judge, [gone], 10) is None


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 5)])
def test_the_smallest_pictures_can_be_changed(size: tuple[int, int]) -> None:
    for change in CHANGES.values():
        assert min(change(Image.new("RGB", size)).size) >= 1


def test_it_is_told(requests: list[Request]) -> None:
    judge = judge_of(lambda x_B3HW: x_B3HW[:, 0, 32, 32])
    metrics = {"robustness": measure_robustness(judge, requests, 10)}
    lines = robustness_lines(metrics)
    assert len(lines) == len(CHANGES) and "by over a quarter of their interval" in lines[0]
    counts = {"counts": {"pictures": 10, "failed": 0}, "signature": {}}
    assert all(line in render_metrics(counts | metrics) for line in lines)
    assert "moves scores most" in (robustness_sentence(metrics) or "")
    assert robustness_lines({}) == [] and robustness_sentence({}) is None
