"""Columns whose cells hold several labels at once: `blur;noise`, `blur|noise`, `blur, noise`, or
lists of JSON, Parquet and Label Studio.

In text, an empty cell says that nobody knows, and `none` that no label holds; an empty list says
the latter.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from beholder.data.images import EXTENSIONS
from beholder.data.labels import NONE

SEPARATORS = (";", "|", ",")
_MOST_LABELS = 200
_LONGEST = 40  # signs of a label
_WORDS = 3.0  # of a label, on average
_RECURRING = 2.0  # pictures of a label, on average


@dataclass(frozen=True)
class SeveralLabels:
    """What the cells of a column hold.

    Args:
        separator: between the labels of a cell; None: cells are lists.
        labels: distinct ones.
        most: labels of one cell.
    """

    separator: str | None
    labels: int
    most: int


def several_labels(column: pl.Series, *, codes: bool = False) -> SeveralLabels | None:
    """How a column's cells hold several labels at once; None: they don't.

    Args:
        column: text, or lists of text; null where nothing is known.
        codes: it is known to hold labels, which may be numbers.
    """
    if isinstance(column.dtype, pl.List):
        return _described(column.drop_nulls(), None)
    text = column.drop_nulls().str.strip_chars()
    text = text.filter(text != "")
    for separator in SEPARATORS:
        if not text.str.contains(separator, literal=True).any():
            continue
        described = _described(label_lists(text, separator), separator, codes=codes)
        if described is not None and described.most > 1:
            return described
    return None


def label_lists(column: pl.Series, separator: str | None) -> pl.Series:
    """A column as lists of labels, without blank ones and `none`; null stays null, and so does a
    blank text.

    Args:
        separator: of a column of text; None: its cells are lists, or one label each.
    """
    lists = column
    if not isinstance(column.dtype, pl.List):
        text = column.str.strip_chars()
        text = text.set(text == "", None)
        lists = text.str.split(separator) if separator else text.reshape((-1, 1)).arr.to_list()
        lists = lists.set(text.is_null(), None)
    label = pl.element().str.strip_chars()
    blank = label.is_null() | (label == "") | (label.str.to_lowercase() == NONE)
    return lists.to_frame().select(pl.col(lists.name).list.eval(label.filter(~blank))).to_series()


def _described(
    lists: pl.Series, separator: str | None, *, codes: bool = False
) -> SeveralLabels | None:
    """None where the items are no labels: numbers, names of pictures, sentences, or texts that
    hardly come again."""
    counts = lists.list.len()
    items = lists.explode().drop_nulls()
    if items.is_empty():
        return None
    labels = items.n_unique()
    if labels > _MOST_LABELS or len(items) < _RECURRING * labels:
        return None
    words = items.str.count_matches(r"\S+").mean()
    longest = items.str.len_chars().max()
    assert isinstance(words, float) and isinstance(longest, int)
    endings = "|".join(EXTENSIONS)
    named = items.str.to_lowercase().str.contains(rf"(?:{endings})$").any()
    numbers = items.cast(pl.Float64, strict=False).is_not_null().mean()
    assert isinstance(numbers, float)
    if words > _WORDS or longest > _LONGEST or named or (numbers > 0.5 and not codes):
        return None
    # `shirt, long` in every cell is one label with a comma in it
    if separator == "," and counts.n_unique() < 2:
        return None
    most = counts.max()
    assert isinstance(most, int)
    return SeveralLabels(separator, labels, most)
