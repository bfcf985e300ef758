"""Many pictures: input order, errors in place, what a failing batch costs, folders and globs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from brightness_judge import Brightness, make_judge
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from beholder.batch.printing import render_verdict
from beholder.batch.requests import find_pictures
from beholder.errors import DataError, OpinionError, OutOfMemory, PictureError
from beholder.judge import Judge, Verdict
from beholder.judge.calibration import Calibration
from beholder.judge.runner import Picture, Request, judge_pictures
from beholder.judge.runtime.engine import HeadOutputs
from beholder.judge.verdict import Failure
from beholder.metrics.conformal import ConformalInterval


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for level in range(12):
        Image.new("RGB", (9, 9), (level * 20,) * 3).save(root / f"{level:02}.png")
    (root / "broken.png").write_bytes(b"not a picture")
    return root


@settings(max_examples=25, deadline=None)
@given(data=st.data(), batch_size=st.integers(1, 7), workers=st.integers(1, 3))
def test_outcomes_keep_input_order_whatever_the_batches(
    pictures: Path, data: st.DataObject, batch_size: int, workers: int
) -> None:
    order: Sequence[int] = data.draw(st.lists(st.integers(-1, 11), max_size=20))
    names = ["broken.png" if level < 0 else f"{level:02}.png" for level in order]
    requests = [Request(name, pictures / name) for name in names]
    outcomes = list(judge_pictures(make_judge(), requests, batch_size=batch_size, workers=workers))
    assert [outcome.image for outcome in outcomes] == names
    for level, outcome in zip(order, outcomes, strict=True):
        if level < 0:
            assert isinstance(outcome, Failure)
            assert outcome.code == "not_a_picture"
        else:
            assert isinstance(outcome, Verdict)
            assert outcome.score == pytest.approx(level * 20, abs=1e-3)


def test_stream_reads_only_a_few_batches_ahead(pictures: Path) -> None:
    started = 0

    def endless() -> object:
        nonlocal started
        while True:
            started += 1
            yield Request("00.png", pictures / "00.png")

    stream = judge_pictures(make_judge(), endless(), batch_size=4)  # type: ignore[arg-type]
    for _ in range(4):
        next(stream)
    stream.close()
    assert started <= 16


def test_folder_is_searched_sorted_and_glob_matches(pictures: Path) -> None:
    names = [Path(request.name).name for request in find_pictures([str(pictures)])]
    assert names == [*(f"{level:02}.png" for level in range(12)), "broken.png"]
    some = find_pictures([str(pictures / "0[13]*.png"), str(pictures / "none.png")])
    assert [Path(request.name).name for request in some] == ["01.png", "03.png", "none.png"]


@pytest.mark.parametrize("argument", ["empty", "*.nothing"])
def test_place_without_pictures_is_an_error(tmp_path: Path, argument: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture"):
        find_pictures([str(tmp_path / argument)])


def test_table_shows_score_interval_and_labels() -> None:
    judge = make_judge()
    interval = ConformalInterval(level=0.9, quantile=0.5, pictures=40)
    judge.calibration = Calibration(score=interval)
    text = render_verdict(judge(Image.new("RGB", (9, 9), (255, 255, 255))))
    assert "255.00  (254.50 to 255.50)" in text
    assert "bright (100%)" in text


class Fragile(Brightness):
    """Fails on every batch with a picture of certain brightness, in the way that is asked for.

    Args:
        levels: of the pictures that it fails on.
        error: what it raises; None: it says NaN of them.
    """

    def __init__(self, levels: Sequence[int], error: Exception | None) -> None:
        super().__init__()
        self.levels, self.error = levels, error

    def opinions(self, pixels_B3HW: np.ndarray, beam_size: int | None) -> HeadOutputs:
        raw = super().opinions(pixels_B3HW, beam_size)
        assert raw.score_B is not None
        bad_B = np.isin(raw.score_B.round(), self.levels)
        if self.error is not None and bad_B.any():
            raise self.error
        raw.score_B[bad_B] = np.nan
        return raw


def fragile_judge(levels: Sequence[int], error: Exception | None = None) -> Judge:
    judge = make_judge()
    judge.engine = Fragile(levels, error)
    return judge


ERRORS = [
    (None, "opinion"),
    (OutOfMemory("no room"), "memory"),
    (RuntimeError("a bug"), "internal"),
]


@pytest.mark.parametrize(("error", "code"), ERRORS)
@pytest.mark.parametrize("batch_size", [1, 3, 12])
def test_a_failing_batch_costs_only_the_pictures_that_fail_alone(
    pictures: Path, error: Exception | None, code: str, batch_size: int
) -> None:
    judge = fragile_judge([0, 60, 220], error)
    names = [f"{level:02}.png" for level in range(12)]
    requests = [Request(name, pictures / name) for name in names]
    judged = list(judge_pictures(judge, requests, batch_size=batch_size))
    assert [entry.image for entry in judged] == names
    for level, entry in enumerate(judged):
        if level in (0, 3, 11):
            assert isinstance(entry, Failure) and entry.code == code and entry.message
        else:
            assert isinstance(entry, Verdict)
            assert entry.score == pytest.approx(level * 20, abs=1e-3)


def test_a_picture_that_fails_alone_is_tried_no_more_than_its_halves_ask(pictures: Path) -> None:
    judge = fragile_judge([60], RuntimeError("a bug"))
    requests = [Request(str(level), pictures / f"{level:02}.png") for level in range(8)]
    list(judge_pictures(judge, requests, batch_size=8))
    assert isinstance(judge.engine, Fragile)
    assert judge.engine.batches == [8, 4, 2, 2, 1, 1, 4]


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_a_list_has_errors_in_their_places(
    pictures: Path, error: Exception | None, code: str
) -> None:
    files: list[Picture] = [
        pictures / "01.png", pictures / "broken.png", pictures / "none.png",
        (pictures / "03.png").read_bytes(), Image.new("RGB", (9, 9), (200,) * 3),
    ]  # fmt: skip
    first, broken, missing, failing, last = fragile_judge([60], error)(files)
    assert isinstance(first, Verdict) and first.score == pytest.approx(20, abs=1e-3)
    assert isinstance(last, Verdict) and last.score == pytest.approx(200, abs=1e-3)
    codes = [(entry.image, entry.code) for entry in (broken, missing, failing)]  # type: ignore[union-attr]
    assert codes == [
        (str(pictures / "broken.png"), "not_a_picture"),
        (str(pictures / "none.png"), "missing"),
        ("picture", code),
    ]
    with pytest.raises(PictureError):
        make_judge()(pictures / "broken.png")


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_a_judge_that_fails_on_everything_is_broken(
    pictures: Path, error: Exception | None, code: str
) -> None:
    requests = [Request("a", pictures / "03.png")] * 200
    judge = fragile_judge([60], error)
    with pytest.raises(OpinionError if error is None else type(error)):
        list(judge_pictures(judge, [Request("b", pictures / "broken.png"), *requests]))
    assert isinstance(judge.engine, Fragile)
    assert sum(size == 1 for size in judge.engine.batches) < 64, "it does not try them all"
    known = list(judge_pictures(judge, requests[:2], trusted=True))
    assert [entry.code for entry in known if isinstance(entry, Failure)] == [code] * 2


def test_what_a_bug_says_is_in_the_log_alone(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    judge = fragile_judge([60], RuntimeError("a secret"))
    _, failure = judge([pictures / "01.png", pictures / "03.png"])
    assert isinstance(failure, Failure)
    assert "secret" not in failure.message and "RuntimeError" in failure.message
    assert "RuntimeError: a secret" in caplog.text and "Traceback" in caplog.text


def test_a_box_is_judged_alone(tmp_path: Path) -> None:
    picture = Image.new("RGB", (20, 10), (0, 0, 0))
    picture.paste((250, 250, 250), (10, 0, 20, 10))
    picture.save(tmp_path / "a.png")
    judge, left, right = make_judge(), (0, 0, 10, 10), (10, 0, 20, 10)
    assert judge(tmp_path / "a.png", box=right).score == pytest.approx(250, abs=1e-3)
    assert judge(picture, box=left).score == pytest.approx(0, abs=1e-3)
    both = judge([picture, tmp_path / "a.png", picture], box=[left, right, None])
    scores = [entry.score for entry in both if isinstance(entry, Verdict)]
    assert scores == pytest.approx([0, 250, judge(picture).score], abs=1e-3)
    outside = judge([picture, picture], box=[(30, 0, 40, 10), left])
    assert isinstance(outside[0], Failure) and outside[0].code == "box"
    for wrong in ([left], [left, (1, 2, 3)], [left, (5, 5, 5, 9)], [left, "abcd"]):
        with pytest.raises(DataError, match="box"):
            judge([picture, picture], box=wrong)
