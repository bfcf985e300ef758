"""Cells as programs write them, brought to plain text: numbers, lists, names, choices.

What is done here holds for tables of any container, before the columns' roles are looked for.
"""

from __future__ import annotations

import ast
import json
from dataclasses import replace

import polars as pl

from beholder.data.formats import label_studio, words
from beholder.data.formats.column_profile import PICTURE_NAME, with_plain_numbers
from beholder.data.formats.delimited import ROW
from beholder.data.formats.raw_table import RawTable

_LONGEST_LIST = 20  # numbers; longer ones are features, not opinions
_LIST_TEXT = 100_000  # signs of a cell that is looked at as a list
_RATING_LISTS = words.word_set("ratings rating opinions raw raters subjects individual")


def prepare(raw: RawTable) -> RawTable:
    """The table with plain cells; what was done is among its notes."""
    frame, notes = raw.frame, list(raw.notes)
    format = raw.format
    uploads: list[str] = []
    frame, uploads = label_studio.without_prefixes(frame)
    if uploads or label_studio.is_table(raw.header):
        format = format or "label-studio"
    if uploads:
        notes.append(f"The folder and prefix of uploads are taken off {', '.join(uploads)}.")
    frame, several = label_studio.with_plain_choices(frame)
    for name, count in several.items():
        notes.append(f"{name!r}: {count} rows have several labels at once.")
    frame = _with_lists(frame)
    frame, commas = with_plain_numbers(frame)
    if commas:
        notes.append(f"Decimal commas are read as points in {', '.join(commas)}.")
    frame = _with_numbers_of_lists(frame, notes)
    frame, numbered = _without_sentence_numbers(frame)
    if numbered:
        notes.append(f"The number of the sentence (#0, #1, ...) is taken off {numbered!r}.")
    return replace(raw, frame=frame, format=format, notes=tuple(notes))


def _with_lists(frame: pl.DataFrame) -> pl.DataFrame:
    """Columns whose cells are lists written as text, `["a", "b"]`, as columns of lists."""
    for name, dtype in frame.schema.items():
        if dtype != pl.String:
            continue
        values = frame[name].drop_nulls().str.strip_chars()
        head = values.filter(values != "").head(100)
        if not len(head) or not head.str.contains(r"(?s)^\[.*\]$").all():
            continue
        lists = [_parsed_list(cell) for cell in frame[name]]
        items = [item for cell in lists if cell for item in cell]
        if not items:
            continue
        if all(isinstance(item, str) for item in items):
            frame = frame.with_columns(pl.Series(name, lists, dtype=pl.List(pl.String)))
        elif all(isinstance(item, (int, float)) for item in items):
            frame = frame.with_columns(
                pl.Series(name, lists, dtype=pl.List(pl.Float64), strict=False)
            )
    return frame


def _parsed_list(cell: str | None) -> list[object] | None:
    if cell is None or len(cell) > _LIST_TEXT:
        return None
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(cell.strip())  # a list as Python prints it; runs nothing
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    return value if isinstance(value, list) else None


def _with_numbers_of_lists(frame: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """Lists of numbers as columns: one per place (votes for rating bins), or the mean, spread and
    number of ratings."""
    for name, dtype in frame.schema.items():
        if dtype != pl.List(pl.Float64):
            continue
        lists = frame[name]
        lengths = lists.drop_nulls().list.len()
        ratings = words.has(name, _RATING_LISTS) or lengths.n_unique() > 1
        frame = frame.drop(name)
        longest = max(lengths.to_list(), default=0)
        if not 0 < longest <= _LONGEST_LIST:
            continue
        if ratings:
            derived = {"mean": lists.list.mean(), "std": lists.list.std(ddof=0)}
            columns = [
                value.cast(pl.String).alias(f"{name} {what}") for what, value in derived.items()
            ]
            number = lists.list.len().cast(pl.String).alias("raters")
            frame = frame.with_columns(columns)
            if "raters" not in frame.columns:
                frame = frame.with_columns(number)
            notes.append(f"{name!r} holds the ratings of each picture; their mean is a score.")
            continue
        frame = frame.with_columns(
            lists.list.get(index, null_on_oob=True).cast(pl.String).alias(f"{name}[{index + 1}]")
            for index in range(longest)
        )
    return frame


def _without_sentence_numbers(frame: pl.DataFrame) -> tuple[pl.DataFrame, str | None]:
    """Flickr's `1000268201.jpg#0` without what numbers the sentences of a picture."""
    for name, dtype in frame.schema.items():
        if dtype != pl.String or name == ROW:
            continue
        head = frame[name].drop_nulls().head(1000).str.strip_chars()
        if len(head) and (head.str.contains(PICTURE_NAME) & head.str.contains(r"#\d+$")).all():
            return frame.with_columns(pl.col(name).str.replace(r"\s*#\d+\s*$", "")), name
    return frame, None
