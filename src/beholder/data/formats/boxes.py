"""The boxes of a list of pictures: four columns of corners, or one column `box`."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from beholder.data.formats.column_profile import without_missing
from beholder.data.formats.delimited import ROW
from beholder.data.formats.layouts import BOX_FIELDS
from beholder.errors import Problem

BOX = "box"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FOUR = rf"^\s*[\[(]?\s*{_NUMBER}(?:\s*[,;\s]\s*{_NUMBER}){{3}}\s*[\])]?\s*$"


def boxes_of(
    frame: pl.DataFrame, columns: Mapping[str, str], file: str
) -> tuple[pl.Series | None, list[Problem]]:
    """The box of every row, [xmin, ymin, xmax, ymax] in pixels or null, and what is wrong with
    them; None where the list has no boxes.

    Args:
        frame: the list as it was read, with `ROW`.
        columns: role -> column. A column that is called `box` holds four numbers in text: see
            `as_text`.
    """
    frame = without_missing(frame)
    box_columns = _box_columns(frame)
    names = [columns.get(role, "") for role in BOX_FIELDS]
    if all(names):
        corners = pl.concat_list(_text(name) for name in names)
        blank = pl.all_horizontal(_text(name).fill_null("") == "" for name in names)
    elif box_columns:
        corners, blank = _numbers(box_columns[0]), _text(box_columns[0]).fill_null("") == ""
    else:
        return None, []
    numbers = corners.cast(pl.List(pl.Float64), strict=False)
    boxes = frame.select(box=numbers, blank=blank)
    corner = [pl.col("box").list.get(index, null_on_oob=True) for index in range(len(BOX_FIELDS))]
    whole = (pl.col("box").list.len() == len(BOX_FIELDS)) & pl.all_horizontal(
        edge.is_finite().fill_null(False) for edge in corner
    )
    usable = (whole & (corner[0] < corner[2]) & (corner[1] < corner[3])).fill_null(False)
    boxes = boxes.with_columns(usable=usable)
    message = "The box is not xmin, ymin, xmax, ymax with xmin < xmax and ymin < ymax."
    wrong = frame.filter(~(boxes["usable"] | boxes["blank"]))
    problems = [
        Problem("error", "box", message, file=file, row=row, field=BOX) for row in wrong[ROW]
    ]
    return boxes.select(pl.when(pl.col("usable")).then(pl.col("box")))["box"], problems


def as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """The list with boxes that are lists of numbers as text, before others take them for votes."""
    lists = [name for name in _box_columns(frame) if isinstance(frame.schema[name], pl.List)]
    return frame.with_columns(pl.col(lists).cast(pl.List(pl.String)).list.join(","))


def _box_columns(frame: pl.DataFrame) -> list[str]:
    return [name for name in frame.columns if name.strip().lower() == BOX]


def _text(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.String).str.strip_chars()


def _numbers(name: str) -> pl.Expr:
    """The four numbers of a text."""
    text = _text(name)
    return pl.when(text.str.contains(_FOUR)).then(text.str.extract_all(_NUMBER))
