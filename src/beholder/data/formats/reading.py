"""Reading any table of opinions: what it is, which column is what, and all that is wrong with it.

| step | file |
| --- | --- |
| which container: text, JSON, Parquet, Excel, folder, frame | `opening` |
| pictures inside a table, and what they are called | `embedded_pictures` |
| cells as programs write them, as plain text | `plain_cells` |
| a published table, known by its header | `layouts` |
| any other: which column is what | `roles`, `opinion_columns`, `numbered_columns` |
| which file a name means | `pictures` |
| what columns say together: missing scores, scales, votes | `scales` |
| rows to an `AnnotationTable`, and what is wrong with them | `assemble` |
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from beholder.data.annotations import AnnotationTable
from beholder.data.formats import messages
from beholder.data.formats.boxes import as_text
from beholder.data.formats.catalogue import FORMATS
from beholder.data.formats.codebook import read_codebook
from beholder.data.formats.containers import may_have_pictures_inside
from beholder.data.formats.delimited import ROW
from beholder.data.formats.interpreting import Interpreter, Scan, turn_over
from beholder.data.formats.layouts import known_layout
from beholder.data.formats.opening import open_table
from beholder.data.formats.options import ReadOptions
from beholder.data.formats.plain_cells import prepare
from beholder.data.formats.reading_record import Reading
from beholder.data.keys import make_key
from beholder.errors import DataError, Problem, bounded, count_problems

log = logging.getLogger(__name__)


def read_annotations(source: Any, format: str = "auto", **options: Any) -> AnnotationTable:
    """Read a table of opinions.

    Args:
        source: a file (CSV and its kin, JSON, Parquet, Excel), a folder (one per class, or a
            Hugging Face data set), a frame of polars or pandas, a `datasets.Dataset`, or an
            iterable of mappings.
        format: one of `FORMATS`, or "auto": recognised from the content, never from the name.
        options: the other fields of `ReadOptions`, e.g. `columns={"image": "file"}`.

    Raises:
        DataError: with every problem of the file at once. Warnings only are logged.
    """
    return read_with(source, ReadOptions(format=format, **options))


def read_with(source: Any, options: ReadOptions) -> AnnotationTable:
    """The same, with the options as one."""
    return usable_table(scan_with(source, options), messages.name_of(source))


def usable_table(scan: Scan, where: str) -> AnnotationTable:
    """The table of a scan without errors.

    Raises:
        DataError: with every error. Warnings are counted in the log.
    """
    errors = [problem for problem in scan.problems if problem.severity == "error"]
    if errors or scan.table is None:
        raise DataError(
            "The annotations can't be used.",
            where=where,
            fix="Correct the places below; `beholder check` shows them again.",
            problems=errors,
        )
    for (_, code), count in count_problems(scan.problems).items():
        log.warning("%s: %d warnings of kind %s; `beholder check` lists them", where, count, code)
    return scan.table


def scan_annotations(source: Any, format: str = "auto", **options: Any) -> Scan:
    """Read as much of a table as there is, and list what is wrong with it. Arguments as for
    `read_annotations`.

    Raises:
        DataError: an argument is wrong: no such format or encoding.
    """
    return scan_with(source, ReadOptions(format=format, **options))


def scan_with(source: Any, options: ReadOptions) -> Scan:
    """The same, with the options as one."""
    if options.format != "auto" and options.format not in FORMATS:
        raise DataError(
            f"There is no format {options.format!r}.", fix=f"Use auto, {', '.join(FORMATS)}."
        )
    codebook: dict[str, dict[str, str]] = {}
    wrong: tuple[Problem, ...] = ()
    if options.codebook is not None:
        try:
            codebook = read_codebook(options.codebook)
        except DataError as error:
            wrong = error.problems  # told together with what is wrong with the table
    scan = _scan(source, options, codebook)
    scan = replace(scan, problems=bounded([*wrong, *scan.problems]))
    if scan.table is None and not any(problem.severity == "error" for problem in scan.problems):
        message = "The table is empty: there is no row in it."
        where = messages.name_of(source)
        scan.problems.append(Problem("error", "empty_table", message, file=where))
    return scan


def _scan(source: Any, options: ReadOptions, codebook: Mapping[str, Mapping[str, str]]) -> Scan:
    opened = open_table(source, options)
    file = messages.name_of(source)
    if opened.table is not None:
        return _own_table(opened.table, options)
    if opened.raw is None:
        return Scan(None, opened.problems)
    raw = opened.raw
    if options.format in FORMATS and raw.format not in (None, options.format):
        message = f"The format {options.format} wants {FORMATS[options.format]}."
        if options.format != "generic":
            return Scan(None, [Problem("error", "format", message, file=file)])
    if raw.frame.width < 2 or raw.frame.is_empty():
        empty = [p for p in opened.problems if p.severity == "error"]
        held = known_layout(raw.header, options.format) or raw.header
        return Scan(None, opened.problems if empty or held else [])
    scan = Interpreter(prepare(raw), file, options, codebook).scan()
    problems = [*opened.problems, *scan.problems]
    problems.sort(key=lambda problem: -1 if problem.row is None else problem.row)
    return replace(scan, problems=problems)


def _own_table(table: AnnotationTable, options: ReadOptions) -> Scan:
    rows = {key: row for row, key in enumerate(table.keys)}
    columns = {name: name for name in table.frame.columns}
    kept = table if len(table) else None
    read = Reading("parquet", "Parquet of Beholder", None, len(table), columns, table=kept)
    if kept is not None and options.lower_is_better:
        kept, problems = turn_over(kept, options.score_range, "")
        return Scan(kept, problems, "parquet", rows, replace(read, table=kept))
    return Scan(kept, [], "parquet", rows, read)


def pictures_inside(source: Any, options: ReadOptions) -> tuple[str, pl.Series] | None:
    """The column that holds a table's pictures themselves, and the image key of every row; None
    where the pictures are files, or the table can't be read."""
    if not may_have_pictures_inside(source) or options.format not in ("auto", *FORMATS):
        return None
    opened = open_table(source, options)
    if opened.raw is None or not opened.raw.inside:
        return None
    table = prepare(opened.raw)
    interpreter = Interpreter(table, messages.name_of(source), replace(options, images=None))
    column = interpreter.roles().get("image")
    if column not in table.inside:
        return None
    names = table.frame[column]
    keys = {name: make_key(name, options.prefix) for name in names.drop_nulls().unique()}
    return column, names.replace(keys)


def listed_rows(source: Any, options: ReadOptions) -> pl.DataFrame:
    """The pictures that a list or table names, in the order of its rows: `image`, and where it has
    boxes `box`, [xmin, ymin, xmax, ymax] or null.

    Raises:
        DataError: it can't be read, no column of it names pictures, or a box is none; names the
            rows.
    """
    opened = open_table(source, options)
    file = messages.name_of(source)
    if opened.table is not None:
        frame = opened.table.frame.select("image", "box")
        return frame.drop("box") if frame["box"].null_count() == len(frame) else frame
    problems = [problem for problem in opened.problems if problem.severity == "error"]
    rows = None
    if opened.raw is not None and opened.raw.header:
        raw = replace(opened.raw, frame=as_text(opened.raw.frame))
        interpreter = Interpreter(prepare(raw), file, options)
        rows = interpreter.pictures()
        problems += [p for p in interpreter.problems if p.severity == "error"]
    if rows is None or problems:
        fix = "Say which column names the pictures: --columns image=COLUMN."
        raise DataError(
            "The list of pictures can't be read.",
            where=file,
            fix=None if rows is not None else fix,
            problems=bounded(problems),
        )
    return rows.drop(ROW)
