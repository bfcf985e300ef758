"""The parity contract on judges of known opinions: what is compared, with what, what breaks it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from beholder import Judge
from beholder.data.annotations import AnnotationTable
from beholder.data.transforms import EvalTransform
from beholder.data.vocabulary import Vocabulary
from beholder.errors import DataError, GateError, OpinionError
from beholder.export.parity import Material, Parity, check_parity, compare, material, verdicts
from beholder.judge.runner import Request
from beholder.judge.runtime.engine import HeadOutputs

COUNT = 100
VOCABULARY = Vocabulary.build(["a dark light picture with soft sharp grain"])


class Known:
    """Says of picture i, which is gray of level i, what a function of i says."""

    def __init__(self, score: Callable[[int], float], low: Callable[[int], bool], words: Any):
        self.score, self.low, self.words = score, low, words

    def opinions(self, pixels_B3HW: np.ndarray, beam_size: int | None) -> HeadOutputs:
        levels = [round(float(pixels_3HW.mean()) * 255) for pixels_3HW in pixels_B3HW]
        low = np.array([[0.7, 0.3] if self.low(i) else [0.3, 0.7] for i in levels])
        comments = [[VOCABULARY.encode(self.words(i))] for i in levels]
        return HeadOutputs(np.array([self.score(i) for i in levels]), {"tone": low}, comments)


def judge(
    score: Callable[[int], float] = float,
    low: Callable[[int], bool] = lambda i: i < 50,
    words: Callable[[int], str] = lambda i: f"a {'dark' if i % 3 else 'light'} picture",
) -> Judge:
    transform = EvalTransform(size=(8, 8), resize="native", mean=(0, 0, 0), std=(1, 1, 1))
    return Judge(
        Known(score, low, words), transform, classes={"tone": ("low", "high")},
        vocabulary=VOCABULARY,
    )  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grays")
    for level in range(COUNT):
        Image.new("RGB", (8, 8), (level,) * 3).save(folder / f"{level:03}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(root: Path) -> Material:
    with material(root) as pictures_there:
        return pictures_there


def compared(original: Judge, exported: Judge, pictures: Material) -> Parity:
    both = (verdicts(judge_, pictures) for judge_ in (original, exported))
    return compare(*both, pictures, original.classes)


def refusal(original: Judge, exported: Judge, pictures: Material, precision: Any) -> str:
    with pytest.raises(GateError) as caught:
        check_parity(compared(original, exported, pictures), precision)
    return str(caught.value)


def test_the_same_judge_breaks_nothing(pictures: Material) -> None:
    parity = compared(judge(), judge(), pictures)
    assert parity.pictures == COUNT
    assert parity.score_difference == 0
    assert parity.same_labels == {"tone": 1.0}
    assert parity.same_comments == 1.0
    for precision in ("fp32", "fp16", "int8"):
        check_parity(parity, precision)


def test_float32_must_be_the_same(pictures: Material) -> None:
    check_parity(compared(judge(), judge(score=lambda i: i + 9e-4), pictures), "fp32")
    shown = refusal(judge(), judge(score=lambda i: i + 0.01 * (i == 7)), pictures, "fp32")
    assert "a score differs by 0.01 (limit 0.001)" in shown
    all_but_one = lambda i: i < 50 or i == 99  # noqa: E731
    assert "1.0% of the labels of tone differ" in refusal(
        judge(), judge(low=all_but_one), pictures, "fp32"
    )
    other = judge(words=lambda i: "a dark picture" if i % 3 or i == 99 else "a light picture")
    assert "1.0% of the comments differ" in refusal(judge(), other, pictures, "fp32")


def test_rounded_weights_may_lose_so_much_and_no_more(pictures: Material) -> None:
    all_but_two = lambda i: i < 50 or i >= 98  # noqa: E731  # two of a hundred
    nearly = compared(judge(), judge(score=lambda i: i + 0.6 * (i % 2), low=all_but_two), pictures)
    assert nearly.accuracy["tone"].loss == pytest.approx(0.02)
    check_parity(nearly, "int8")
    other = judge(low=lambda i: i < 50 or i >= 97)
    assert "accuracy of tone 1.0000 -> 0.9700 (limit 0.02 less)" in refusal(
        judge(), other, pictures, "int8"
    )
    shuffled = judge(score=lambda i: float((i * 7) % 10))
    assert "SRCC 1.0000 -> " in refusal(judge(), shuffled, pictures, "fp16")
    mute = judge(words=lambda i: "sharp grain")
    assert "CIDEr-D " in refusal(judge(), mute, pictures, "fp16")


def test_a_score_that_is_not_a_number_breaks_it(pictures: Material) -> None:
    broken = judge(score=lambda i: math.nan if i == 3 else float(i))
    with pytest.raises(OpinionError, match="no usable score of a picture: nan"):
        refusal(judge(), broken, pictures, "fp32")


def test_where_a_metric_says_nothing_the_opinions_count(pictures: Material) -> None:
    flat, same = judge(score=lambda i: 1.0), judge(words=lambda i: "a dark picture")
    check_parity(compared(flat, judge(score=lambda i: 1.0 + 1e-6 * i), pictures), "fp16")
    moved = judge(score=lambda i: 1.0 + 1e-3 * i)
    assert "a score differs by 0.099" in refusal(flat, moved, pictures, "fp16")
    other = judge(words=lambda i: "a dark picture" if i % 5 else "soft grain")
    assert "20.0% of the comments differ" in refusal(same, other, pictures, "int8")


def test_a_table_gives_the_truth(root: Path, pictures: Material) -> None:
    table = AnnotationTable.from_columns(
        [request.path.name for request in pictures.requests],
        score=[float(COUNT - i) if i % 4 else None for i in range(COUNT)],
        comments=[["a soft picture", "a dark one"] if i % 2 else ["light"] for i in range(COUNT)],
        attributes={"tone": ["low" if i < 40 else "high" for i in range(COUNT)]},
    )
    requests = [Request(request.path.name, request.path) for request in pictures.requests]
    of_table = Material("table", requests, table)
    better = judge(score=lambda i: float(-i), low=lambda i: i < 40)
    parity = compared(judge(), better, of_table)
    assert parity.srcc is not None
    assert (parity.srcc.before, parity.srcc.after) == pytest.approx((-1.0, 1.0))
    assert parity.accuracy["tone"].before == pytest.approx(0.9)
    assert parity.accuracy["tone"].after == 1.0
    assert {parity.srcc.against, parity.accuracy["tone"].against} == {
        "the given scores", "the given labels",
    }  # fmt: skip
    assert parity.cider is not None
    assert parity.cider.against == "the given comments"
    check_parity(parity, "int8")  # what became better is not lost
    few = table.with_frame(table.frame.head(50))
    assert compared(judge(), better, Material("few", requests, few)).srcc.against == (
        "the original"
    )


def test_enough_pictures_and_not_too_many(root: Path, tmp_path: Path) -> None:
    with material(root) as chosen:
        assert len(chosen.requests) == COUNT
    few = material(Path(f"{root}/0[0-5]?.png"))
    with pytest.raises(DataError, match="at least 64 pictures; 60 can be used"), few:
        raise AssertionError("too few pictures were accepted")
    many = tmp_path / "many"
    many.mkdir()
    for index in range(600):
        (many / f"{index:03}.png").write_bytes(b"")
    with material(many) as chosen:
        names = [Path(request.name).name for request in chosen.requests]
    assert len(names) == len(set(names)) == 256
    assert names[0] == "000.png"
    assert names[-1] == "599.png"
    broken = Material("broken", [Request(str(p), p) for p in sorted(many.iterdir())], None)
    with pytest.raises(DataError, match="0 can be used"):
        compared(judge(), judge(), broken)


def test_what_is_calibrated_on_is_not_compared_on(pictures: Material) -> None:
    calibration, rest = pictures.split()
    assert (len(calibration), len(rest.requests)) == (32, 68)
    assert {*calibration, *rest.requests} == set(pictures.requests)
    few = Material("few", pictures.requests[:80])
    assert [len(part) for part in (few.split()[0], few.split()[1].requests)] == [16, 64]
    with pytest.raises(DataError, match="at least 80 pictures"):
        Material("fewer", pictures.requests[:79]).split()
