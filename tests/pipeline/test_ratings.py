"""A run's scores from ratings: plain means, or corrected; unlabelled pictures beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beholder.data.formats import read_annotations
from beholder.errors import DataError
from beholder.metrics.opinion_check import with_corrected_scores
from beholder.pipeline.data import load_data
from beholder.pipeline.recipe import DataConfig


@pytest.fixture
def rated(tmp_path: Path) -> Path:
    """Eight pictures by three raters, two more without any, and a table without raters."""
    generator = np.random.default_rng(0)
    for index in range(10):
        path = tmp_path / ("pictures" if index < 8 else "pictures/further") / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        noise = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    bias = np.array([0.0, 0.2, 1.0])
    scores = generator.normal(3, 1, (8, 1)) + bias + generator.normal(0, 0.3, (8, 3))
    rows = [f"{index}.png,{a},{b},{c}" for index, (a, b, c) in enumerate(scores.tolist())]
    text = "\n".join(["image,rating.a,rating.b,rating.c", *rows])
    (tmp_path / "ratings.csv").write_text(text)
    votes = [f"{index}.png,{index + 1},2" for index in range(8)]
    (tmp_path / "votes.csv").write_text("\n".join(["image,votes.1,votes.2", *votes]))
    return tmp_path


def config(folder: Path, table: str, **further: str) -> DataConfig:
    images = str(folder / "pictures")
    return DataConfig(annotations=str(folder / table), images=images, **further)


def test_scores_are_means_or_what_is_left_without_the_raters_biases(rated: Path) -> None:
    table = read_annotations(rated / "ratings.csv")
    plain = load_data(config(rated, "ratings.csv"), rated)
    assert plain.table.frame["score"].to_list() == table.frame["score"].to_list()
    corrected = load_data(config(rated, "ratings.csv", ratings="corrected"), rated)
    expected = with_corrected_scores(table).frame["score"]
    assert corrected.table.frame["score"].to_list() == expected.to_list()
    assert expected.to_list() != table.frame["score"].to_list()
    assert plain.digest != corrected.digest
    with pytest.raises(DataError, match="who gave which score"):
        load_data(config(rated, "votes.csv", ratings="corrected"), rated)


@pytest.mark.parametrize(("table", "column"), [("ratings.csv", "ratings"), ("votes.csv", "votes")])
def test_unlabelled_pictures_have_no_ratings_and_no_votes(
    rated: Path, table: str, column: str
) -> None:
    data = load_data(config(rated, table, unlabelled="further"), rated)
    assert len(data.table) == 10
    assert data.table.frame[column].is_null().to_list() == [False] * 8 + [True] * 2
