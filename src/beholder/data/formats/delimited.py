"""CSV and TSV to a frame of text, every row with the line it starts on.

The standard library's reader is used because it knows line numbers: a quoted comment may hold line
ends, so that row 7 is not on line 8.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from beholder.errors import Problem

ROW = "\x00row"
"""The frame's column of line numbers; the name can't be one of a header."""

_DELIMITERS = ",\t;"


@dataclass(frozen=True)
class Delimited:
    """A parsed table: `frame` has one String column per header name, and `ROW` (Int64)."""

    header: tuple[str, ...]
    frame: pl.DataFrame
    problems: tuple[Problem, ...]


def parse_delimited(text: str, file: str) -> Delimited:
    """Parse a CSV or TSV whose first line is the header. Blank lines are skipped.

    The delimiter is the one of comma, tab and semicolon that the header holds most often. A row
    with too many or too few fields, or with a broken quote, is a problem and left out.
    """
    problems: list[Problem] = []
    lines = _rows(text, file, problems)
    _, header_fields = next(lines, (0, []))
    header = tuple(name.strip() for name in header_fields)
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        message = f"The header names {', '.join(map(repr, repeated))} more than once."
        problems.append(Problem("error", "header", message, file=file, row=1))
        return Delimited(header, pl.DataFrame(), tuple(problems))
    numbers: list[int] = []
    rows: list[list[str]] = []
    for line, fields in lines:
        if len(fields) == len(header):
            numbers.append(line)
            rows.append(fields)
        else:
            message = f"The row has {len(fields)} fields; the header has {len(header)}."
            problems.append(Problem("error", "fields", message, file=file, row=line))
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    data = dict(zip(header, columns, strict=True))
    frame = pl.DataFrame(data, schema=dict.fromkeys(header, pl.String)).with_columns(
        pl.Series(ROW, numbers, dtype=pl.Int64)
    )
    return Delimited(header, frame, tuple(problems))


def _rows(text: str, file: str, problems: list[Problem]) -> Iterator[tuple[int, list[str]]]:
    """(line the row starts on, fields) of every row that is not blank."""
    first_line = text.lstrip("\n").split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=first_line.count)
    reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            message = f"The row can't be read: {error}. Quotes inside a field are doubled."
            problems.append(Problem("error", "quotes", message, file=file, row=start))
            continue
        if fields:
            yield start, fields
