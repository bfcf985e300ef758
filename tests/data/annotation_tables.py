"""Small tables and pictures for the tests, made from a seed; hypothesis strategies for tables."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from beholder.data.annotations import SPLITS, AnnotationTable

_TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12)


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Smooth coloured noise: pictures of different seeds look different, also when resized."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def write_picture(path: Path, seed: int, size: tuple[int, int] = (64, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, size).save(path)
    return path


def small_table(count: int = 12, groups: int | None = None) -> AnnotationTable:
    """Scores, comments and one attribute for `count` pictures in `groups` groups."""
    rows = range(count)
    return AnnotationTable.from_columns(
        [f"train/{row:03d}.png" for row in rows],
        score=[1 + row % 9 / 2 for row in rows],
        comments=[[f"comment {row}, first", "second"][: row % 3] for row in rows],
        group=[None if groups is None else f"photo {row % groups}" for row in rows],
        attributes={"style": [("casual", "formal", None)[row % 3] for row in rows]},
    )


def _key(parts: list[str]) -> str:
    return unicodedata.normalize("NFC", "/".join(parts))


def _usable(key: str) -> bool:
    from beholder.data.keys import key_problem

    return key_problem(key) is None


keys = st.lists(_TEXT, min_size=1, max_size=3).map(_key).filter(_usable)
comments = _TEXT.map(str.strip).filter(bool)
labels = st.sampled_from(["casual", "formal", "옷", "a, b"])


@st.composite
def tables(draw: st.DrawFn, split: bool = False) -> AnnotationTable:
    """Any annotation table; with `split` every row has one."""
    images = draw(st.lists(keys, unique=True, max_size=8))
    count = len(images)

    def column(values: st.SearchStrategy, required: bool = False) -> list:
        cell = values if required else st.none() | values
        return draw(st.lists(cell, min_size=count, max_size=count))

    finite = st.floats(allow_nan=False, allow_infinity=False)
    corner = st.floats(0, 100)
    rating = st.fixed_dictionaries({"rater": _TEXT, "score": finite})
    rated = (
        {"ratings": column(st.lists(rating, min_size=1, max_size=3))} if draw(st.booleans()) else {}
    )
    box = st.tuples(corner, corner, st.floats(101, 900), st.floats(101, 900)).map(list)
    return AnnotationTable.from_columns(
        images,
        score=column(finite),
        raters=column(st.integers(0, 2**40)),
        score_std=column(st.floats(0, 1e6)),
        comments=column(st.lists(comments, max_size=3), required=True),
        box=column(box),
        split=column(st.sampled_from(SPLITS), required=split),
        group=column(_TEXT),
        **rated,
        attributes={"style": column(labels)},
        classes={"style": ("casual", "formal", "옷", "a, b", "never seen")},
    )
