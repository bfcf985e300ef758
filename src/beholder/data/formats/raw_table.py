"""A table as it was found: columns of text, before anything is known of what they mean."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from beholder.data.formats.delimited import ROW
from beholder.errors import Problem


@dataclass(frozen=True)
class RawTable:
    """A table of any container.

    Args:
        frame: `ROW` (Int64: line or index), and columns of String, List(String) or List(Float64).
        container: what it was found in, for people: "CSV with commas".
        problems: what is damaged in it; the rows concerned are left out.
        repeated: names that the header has more than once.
        has_header: the columns have names of their own; else they are `column1`, `column2`...
        format: where the shape of the content says it.
        notes: what was understood on the way, for people.
        encoding: of a text file.
        columns: role -> column, where the shape of the content says it.
        inside: columns that hold pictures themselves; their cells are the pictures' names.
    """

    frame: pl.DataFrame
    container: str
    problems: tuple[Problem, ...] = ()
    repeated: frozenset[str] = field(default_factory=frozenset)
    has_header: bool = True
    format: str | None = None
    notes: tuple[str, ...] = ()
    encoding: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    inside: tuple[str, ...] = ()

    @property
    def header(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(name for name in self.frame.columns if name != ROW)


def frame_of_records(records: Iterable[tuple[int, Mapping[str, Any]]]) -> pl.DataFrame:
    """Records with their rows as a frame of text. Fields within fields become `outer.inner`;
    lists of text or numbers stay lists; what is absent is null."""
    columns: dict[str, dict[int, Any]] = {}
    rows: list[int] = []
    for index, (row, record) in enumerate(records):
        rows.append(row)
        for name, value in _flat(record):
            if value is not None:
                columns.setdefault(name, {})[index] = value
    series = [pl.Series(ROW, rows, dtype=pl.Int64)]
    series += [_column(name, values, len(rows)) for name, values in columns.items()]
    return pl.DataFrame(series)


def _flat(record: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterable[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, Mapping) and depth < 4:
            if set(value) >= {"bytes", "path"}:  # a picture within a field of a record
                yield f"{prefix}{name}", value["path"]
            else:
                yield from _flat(value, f"{prefix}{name}.", depth + 1)
        else:
            yield f"{prefix}{name}", value


def _column(name: str, values: Mapping[int, Any], length: int) -> pl.Series:
    kinds = {_kind(value) for value in values.values()}
    if kinds <= {"numbers"} and kinds:
        cells = [values.get(index) for index in range(length)]
        lists = [None if cell is None else [float(number) for number in cell] for cell in cells]
        return pl.Series(name, lists, dtype=pl.List(pl.Float64))
    if kinds <= {"texts", "none", "text"} and "texts" in kinds:
        cells = [values.get(index) for index in range(length)]
        text_lists = [[cell] if isinstance(cell, str) else cell for cell in cells]
        return pl.Series(name, text_lists, dtype=pl.List(pl.String))
    texts = [text_of(values[index]) if index in values else None for index in range(length)]
    return pl.Series(name, texts, dtype=pl.String)


def _kind(value: Any) -> str:
    if not isinstance(value, (list, tuple)):
        return "text" if isinstance(value, str) and value.strip() else "value"
    if not value:
        return "none"
    if all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in value):
        return "numbers"
    return "texts" if all(isinstance(item, str) for item in value) else "value"


def text_of(value: Any) -> str | None:
    """A value as it would stand in a text table."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
