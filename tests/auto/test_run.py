"""A table and a folder of pictures in, a judge and honest sentences out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from markupsafe import escape

import beholder
from beholder.auto import compose, run
from beholder.auto.run import Trained
from beholder.errors import DataError

BEFORE = Path(__file__).parents[1] / "golden" / "before"  # 24 pictures with all opinions


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    shutil.copytree(BEFORE / "pictures", folder / "photos")
    shutil.copy(BEFORE / "table.csv", folder / "table.csv")
    return folder


@pytest.fixture(autouse=True)
def without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting compares on 200 pictures, and has tests of its own."""
    monkeypatch.setattr(compose, "find_spec", lambda name: None)


@pytest.fixture(scope="module")
def scored(parent: Path) -> tuple[Trained, list[str]]:
    """A training of scores alone, of a frame, and what was told meanwhile."""
    sentences: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compose, "find_spec", lambda name: None)
        trained = beholder.train(**wishes(parent), tell=sentences.append)
    return trained, sentences


def wishes(parent: Path) -> dict[str, Any]:
    frame = pl.read_csv(parent / "table.csv").select("image", "score", "split")
    return {"table": frame, "images": parent / "photos", "into": parent / "scores", "minutes": 10}


def test_scores_alone_from_a_frame(parent: Path, scored: tuple[Trained, list[str]]) -> None:
    trained, sentences = scored
    assert trained.judge(parent / "photos" / "00.png").score is not None
    assert trained.judge.classes == {} and trained.judge.vocabulary is None
    assert set(trained.leaderboard.columns) == {
        "candidate", "skill", "score", "seconds", "pictures",
    }  # fmt: skip
    assert trained.leaderboard["skill"].is_sorted(descending=True)
    report = trained.report.read_text("utf-8")
    assert all(str(escape(sentence)) in report for sentence in trained.sentences)
    assert "Compared features" in report and "efficientnet-lite0-content" in report
    text = "\n".join(sentences)
    assert "5 pictures that it has not seen, of 5 groups" in text
    assert "always saying" in text
    assert (parent / "scores" / "summary.txt").read_text("utf-8").splitlines() == list(
        trained.sentences
    )


def test_the_same_again_does_nothing_again(
    parent: Path, scored: tuple[Trained, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = scored
    manifest = (parent / "scores" / "manifest.json").read_bytes()

    def fail(*arguments: object) -> None:
        raise AssertionError("compared again")

    monkeypatch.setattr(run.Search, "compare", fail)
    again = beholder.train(**wishes(parent))
    assert (parent / "scores" / "manifest.json").read_bytes() == manifest
    assert again.sentences == first.sentences


def test_comments_fit_into_the_minutes(parent: Path) -> None:
    trained = beholder.train(
        parent / "table.csv", parent / "photos", into=parent / "words", only=["comments"], minutes=1
    )
    assert isinstance(trained.judge(parent / "photos" / "00.png").comment, str)
    assert any("most similar training picture's comment" in line for line in trained.sentences)


def test_a_training_that_never_began_leaves_no_trace(parent: Path) -> None:
    with pytest.raises(DataError, match="nothing to learn"):
        beholder.train(
            pl.DataFrame({"image": ["00.png", "01.png"]}),
            parent / "photos",
            into=parent / "nothing",
            minutes=1,
        )
    assert not (parent / "nothing").exists()


def test_a_frame_needs_its_pictures(parent: Path) -> None:
    frame = pl.DataFrame({"image": ["00.png"], "score": [1.0]})
    with pytest.raises(DataError, match="does not say where its pictures are"):
        beholder.train(frame, into=parent / "no", minutes=1)
    assert not (parent / "no").exists()


def test_less_than_a_minute_is_refused(parent: Path) -> None:
    with pytest.raises(DataError, match="at least one minute"):
        beholder.train(parent / "table.csv", parent / "photos", into=parent / "no", minutes=0.5)
    assert not (parent / "no").exists()
