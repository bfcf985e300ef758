"""A table and a folder of pictures in, a judge and honest sentences out."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from markupsafe import escape

import beholder
from beholder.auto import compose, run
from beholder.errors import DataError

BEFORE = Path(__file__).parents[1] / "golden" / "before"  # 24 pictures with all opinions


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    shutil.copytree(BEFORE / "pictures", folder / "photos")
    shutil.copy(BEFORE / "table.csv", folder / "table.csv")
    return folder


@pytest.fixture(autouse=True)
def without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting compares on 200 pictures, and has tests of its own."""
    monkeypatch.setattr(compose, "find_spec", lambda name: None)


def test_scores_alone_from_a_frame(place: Path) -> None:
    frame = pl.read_csv(place / "table.csv").select("image", "score", "split")
    told: list[str] = []
    trained = beholder.train(
        frame, place / "photos", into=place / "scores", minutes=1, tell=told.append
    )
    assert trained.judge(place / "photos" / "00.png").score is not None
    assert trained.judge.classes == {} and trained.judge.vocabulary is None
    assert set(trained.leaderboard.columns) == {
        "candidate", "skill", "score", "seconds", "pictures",
    }  # fmt: skip
    assert trained.leaderboard["skill"].is_sorted(descending=True)
    report = trained.report.read_text("utf-8")
    assert all(str(escape(sentence)) in report for sentence in trained.sentences)
    assert "Compared features" in report and "efficientnet-lite0-content" in report
    text = "\n".join(told)
    assert "5 pictures that it has not seen, of 5 groups" in text
    assert "always saying" in text
    assert (place / "scores" / "summary.txt").read_text("utf-8").splitlines() == list(
        trained.sentences
    )


def test_the_same_again_does_nothing_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wishes = {"images": place / "photos", "into": place / "labels", "minutes": 1}
    first = beholder.train(place / "table.csv", only=["attributes"], **wishes)
    manifest = (place / "labels" / "manifest.json").read_bytes()

    def fail(*arguments: object) -> None:
        raise AssertionError("compared again")

    monkeypatch.setattr(run.Search, "compare", fail)
    again = beholder.train(place / "table.csv", only=["attributes"], **wishes)
    assert (place / "labels" / "manifest.json").read_bytes() == manifest
    assert again.sentences == first.sentences
    assert any("right; the most frequent class alone" in line for line in again.sentences)


def test_comments_fit_into_the_minutes(place: Path) -> None:
    trained = beholder.train(
        place / "table.csv", place / "photos", into=place / "words", only=["comments"], minutes=1
    )
    assert isinstance(trained.judge(place / "photos" / "00.png").comment, str)
    assert any("most similar training picture's comment" in line for line in trained.sentences)


def test_a_training_that_never_began_leaves_no_trace(place: Path) -> None:
    with pytest.raises(DataError, match="nothing to learn"):
        beholder.train(
            pl.DataFrame({"image": ["00.png", "01.png"]}),
            place / "photos",
            into=place / "nothing",
            minutes=1,
        )
    assert not (place / "nothing").exists()


def test_a_frame_needs_its_pictures(place: Path) -> None:
    frame = pl.DataFrame({"image": ["00.png"], "score": [1.0]})
    with pytest.raises(DataError, match="does not say where its pictures are"):
        beholder.train(frame, into=place / "no", minutes=1)
    assert not (place / "no").exists()


def test_less_than_a_minute_is_refused(place: Path) -> None:
    with pytest.raises(DataError, match="at least one minute"):
        beholder.train(place / "table.csv", place / "photos", into=place / "no", minutes=0.5)
    assert not (place / "no").exists()
