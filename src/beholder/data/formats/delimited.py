"""Text tables (CSV, TSV and their kin) to a frame of text, every row with the line it starts on.

The standard library's reader is used because it knows line numbers: a quoted comment may hold line
ends, so that row 7 is not on line 8. Which sign separates the fields, and whether the first line is
a header, is found by what makes the rows agree.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice

import polars as pl

from beholder.data.formats.layout_guess import Guess, find_header, find_separator, unique_names
from beholder.data.formats.regular_text import regular_frame
from beholder.errors import Problem

ROW = "\x00row"
"""The frame's column of line numbers; the name can't be one of a header."""

_BLOCK = 1_000_000  # signs that are lines at a time
_SIGNS = (",", ";", "\t", "|")
_CHUNK = 65_536  # rows that are Python objects at a time
_LOOKED_AT = 200  # rows that separator and header are found by
_Numbered = tuple[int, list[str]]


@dataclass(frozen=True)
class Delimited:
    """A parsed table.

    Args:
        header: the columns' names, all different: a column without a name is `column<number>`, and
            the second one of a name is `<name>#2`.
        frame: one String column per header name, and `ROW` (Int64).
        repeated: names that the header has more than once.
        has_header: the first line names the columns.
        separator: between the fields.
        literal_quotes: quotes are part of the text.
    """

    header: tuple[str, ...]
    frame: pl.DataFrame
    problems: tuple[Problem, ...]
    repeated: frozenset[str] = field(default_factory=frozenset)
    has_header: bool = True
    separator: str = ","
    literal_quotes: bool = False


def parse_delimited(
    text: str, file: str, *, separator: str | None = None, header: bool | None = None
) -> Delimited:
    """Parse a text table. Blank lines are skipped.

    A row with too many or too few fields, or with a broken quote, is a problem and left out.

    Args:
        separator: between the fields; None: found out, of comma, tab, semicolon, bar and blanks.
        header: whether the first line names the columns; None: found out.
    """
    skipped, text, hint = _separator_hint(text)
    guess = _guess(text, separator or hint)
    parsed = _parse(text, file, guess, header, skipped)
    if guess.separator in "\t|" and any(problem.code == "quotes" for problem in parsed.problems):
        # tables with tabs are often written without any quoting: a quote is a sign like others
        literal = _parse(text, file, replace(guess, literal_quotes=True), header, skipped)
        if len(literal.problems) < len(parsed.problems):
            return literal
    return parsed


def _separator_hint(text: str) -> tuple[int, str, str | None]:
    """A first line that is no row, taken off: Excel's `sep=;`, or the number of rows that CelebA
    and DeepFashion have there. (lines, the rest, the sign between fields)"""
    first, _, rest = text[:4096].partition("\n")
    if first.startswith("sep=") and first[4:] in _SIGNS and rest:
        return 1, text.partition("\n")[2], first[4]
    second, _, _ = rest.partition("\n")
    if first.strip().isdecimal() and len(re.split(r"[\s,;|]+", second.strip())) > 1:
        return 1, text.partition("\n")[2], None
    return 0, text, None


def _guess(text: str, separator: str | None) -> Guess:
    def sample(sign: str) -> list[list[str]]:
        return [fields for _, fields in islice(_rows(text, Guess(sign), []), _LOOKED_AT)]

    return Guess(separator) if separator else find_separator(sample)


def _parse(text: str, file: str, guess: Guess, header: bool | None, skipped: int) -> Delimited:
    problems: list[Problem] = []
    lines = _rows(text, guess, problems, file, skipped)
    start = list(islice(lines, _LOOKED_AT))
    fields = [row for _, row in start]
    if header is None:
        header = find_header(fields)
    names = [name.strip() for name in fields[0]] if header and fields else []
    width = _width(fields, len(names))
    if len(names) == width - 1 and header:
        names = ["", *names]  # R writes no name above the names of its rows
    body = start[1:] if header else start
    columns, repeated = unique_names(names, width)
    frame = _regular(text, guess, columns, body, skipped)
    if frame is None:
        whole = chain(body, lines)
        frame = _frame(whole, columns, file, problems, len(fields[0]) if fields else 0)
    blank = [
        name
        for index, name in enumerate(columns)
        if not (names[index] if index < len(names) else "")
        and frame.height
        and not (frame[name].str.strip_chars() != "").any()
    ]
    kept = tuple(name for name in columns if name not in blank)
    return Delimited(
        kept, frame.select(*kept, ROW), tuple(problems), repeated, header, guess.separator,
        guess.literal_quotes,
    )  # fmt: skip


def _width(rows: Sequence[Sequence[str]], header_width: int) -> int:
    """The number of columns: the header's, or without one that of most rows."""
    lengths = [len(row) for row in rows]
    if header_width == 0:
        return max(lengths, key=lengths.count) if lengths else 0
    body = lengths[1:]
    if (
        body
        and all(length == header_width + 1 for length in body)
        and all(row[-1].strip() for row in rows[1:])
    ):
        return header_width + 1
    return header_width


def _frame(
    lines: Iterable[_Numbered],
    columns: Sequence[str],
    file: str,
    problems: list[Problem],
    first: int,
) -> pl.DataFrame:
    """The rows as columns of text, a chunk at a time so that few are Python objects."""
    schema = {**dict.fromkeys(columns, pl.String()), ROW: pl.Int64()}
    chunks = [pl.DataFrame(schema=schema)]
    width = len(columns)
    stream = iter(lines)
    while batch := list(islice(stream, _CHUNK)):
        numbers: list[int] = []
        rows: list[list[str]] = []
        for line, fields in batch:
            if len(fields) > width and not any(extra.strip() for extra in fields[width:]):
                del fields[width:]
            if len(fields) == width:
                numbers.append(line)
                rows.append(fields)
            else:
                what = "header" if first == width else "table"
                message = f"The row has {len(fields)} fields; the {what} has {width}."
                problems.append(Problem("error", "fields", message, file=file, row=line))
        if rows:
            values = [*zip(*rows, strict=True), numbers]
            chunks.append(pl.DataFrame(dict(zip(schema, values, strict=True)), schema=schema))
    return pl.concat(chunks, rechunk=True)


def _regular(
    text: str, guess: Guess, columns: Sequence[str], body: list[_Numbered], skipped: int
) -> pl.DataFrame | None:
    """The same by the quick way, for the tables that it is for."""
    if not body:
        return None
    parsed = regular_frame(text, guess.separator, columns, body[0][0] - skipped)
    if parsed is None:
        return None
    frame, numbers = parsed
    frame = frame.with_columns(pl.Series(ROW, numbers + skipped, dtype=pl.Int64))
    return frame.filter(pl.any_horizontal(pl.col(columns).str.strip_chars() != ""))


def _rows(
    text: str, guess: Guess, problems: list[Problem], file: str = "", skipped: int = 0
) -> Iterator[_Numbered]:
    """(line the row starts on, fields) of every row in which something stands."""
    reader = csv.reader(
        _lines(text, stripped=guess.separator == " "),
        delimiter=guess.separator,
        skipinitialspace=True,
        quoting=csv.QUOTE_NONE if guess.literal_quotes else csv.QUOTE_MINIMAL,
        strict=True,
    )
    while True:
        start = reader.line_num + 1 + skipped
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            message = f"The row can't be read: {error}. Quotes inside a field are doubled."
            problems.append(Problem("error", "quotes", message, file=file, row=start))
            continue
        if "".join(fields).strip():
            yield start, fields


def _lines(text: str, *, stripped: bool) -> Iterator[str]:
    """The lines with their ends; a list of them would double the table in memory."""
    start_of_block = 0
    while start_of_block < len(text):
        end = text.find("\n", start_of_block + _BLOCK) + 1 or len(text)
        block = text[start_of_block:end].removesuffix("\n").split("\n")
        for line in block:
            yield (line.strip() if stripped else line) + "\n"
        start_of_block = end
