"""Many pictures: input order, errors in place, folders and globs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from brightness_judge import make_judge
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from beholder.batch.printing import print_outcomes, render_outcome
from beholder.errors import DataError
from beholder.judge import Verdict
from beholder.judge.calibration import Calibration
from beholder.judge.runner import Failure, Request, find_pictures, judge_pictures
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
    asked = 0

    def endless() -> object:
        nonlocal asked
        while True:
            asked += 1
            yield Request("00.png", pictures / "00.png")

    stream = judge_pictures(make_judge(), endless(), batch_size=4)  # type: ignore[arg-type]
    for _ in range(4):
        next(stream)
    stream.close()
    assert asked <= 16


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


def test_jsonl_has_the_agreed_fields(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests = [Request(name, pictures / name) for name in ("11.png", "broken.png")]
    list(print_outcomes(judge_pictures(make_judge(), requests), "jsonl"))
    import json

    good, bad = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert set(good) == {"image", "score", "interval", "comment", "attributes"}
    assert good["attributes"]["light"]["label"] == "bright"
    assert set(bad) == {"image", "error"}
    assert set(bad["error"]) == {"code", "message"}


def test_csv_waits_for_the_first_verdict_to_know_its_columns(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("broken.png", "11.png", "broken.png")
    requests = [Request(name, pictures / name) for name in names]
    list(print_outcomes(judge_pictures(make_judge(), requests), "csv"))
    rows = [line.split(",") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == [
        "image", "score", "low", "high", "comment", "light", "light_probability", "error",
    ]  # fmt: skip
    assert [row[0] for row in rows[1:]] == list(names)
    assert len({len(row) for row in rows}) == 1


def test_table_shows_score_interval_and_labels() -> None:
    judge = make_judge()
    interval = ConformalInterval(level=0.9, quantile=0.5, pictures=40)
    judge.calibration = Calibration(score=interval)
    text = render_outcome(judge(Image.new("RGB", (9, 9), (255, 255, 255))))
    assert "255.00  (254.50 to 255.50)" in text
    assert "bright (100%)" in text
