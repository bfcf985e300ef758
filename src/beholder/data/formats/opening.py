"""A path, or an object of Python, to a raw table: which container it is, what is broken in it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from beholder.data.annotations import AnnotationTable
from beholder.data.formats import captions, containers, folder, structured
from beholder.data.formats.ava import ava_table
from beholder.data.formats.delimited import ROW, parse_delimited
from beholder.data.formats.options import ReadOptions
from beholder.data.formats.raw_table import RawTable
from beholder.data.formats.sniff import not_a_table
from beholder.data.formats.text import decode
from beholder.errors import DataError, Problem

_JSON_FORMATS = ("captioner", "karpathy", "coco", "captions")
_SEPARATOR_NAMES = {
    ",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars", " ": "blanks",
}  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """A raw table, or a table that Beholder wrote; neither where the problems say why."""

    raw: RawTable | None = None
    table: AnnotationTable | None = None
    problems: list[Problem] = field(default_factory=list)


def open_table(source: Any, options: ReadOptions) -> Opened:
    """Open whatever `read_annotations` takes.

    Raises:
        DataError: there is no such encoding.
        MissingExtra: the container needs a library that is not installed.
    """
    if not isinstance(source, (str, Path)):
        raw = containers.table_of_object(source)
        return Opened(raw, None, list(raw.problems))
    path = Path(source)
    file = str(path)
    try:
        return _open_path(path, options)
    except LookupError as error:
        raise DataError(f"There is no encoding {options.encoding!r}.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return _failed(f"It can't be read: {reason}.", "unreadable_file", file)
    except DataError as error:
        return _failed(f"{error.what} {error.fix or ''}".strip(), "unreadable_file", file)


def _failed(message: str, code: str, file: str) -> Opened:
    return Opened(problems=[Problem("error", code, message, file=file)])


def _open_path(path: Path, options: ReadOptions) -> Opened:
    file, format = str(path), options.format
    if "\0" in file or not path.exists():
        return _failed("There is no such file or folder.", "missing_file", file)
    if path.is_dir():
        return _open_folder(path, options)
    if format == "folder":
        return _failed(f"The format {format} wants {folder.WANTS}.", "format", file)
    with path.open("rb") as stream:
        data = stream.read(4096)
    refused = not_a_table(data)
    if refused:
        return _failed(refused, "not_a_table", file)
    if format == "parquet" or (format == "auto" and data.startswith(b"PAR1")):
        return _open_parquet(path, options)
    data = path.read_bytes()
    if containers.workbook_kind(data[:4096], path):
        return Opened(containers.read_excel(path))
    if data.startswith(b"PK\x03\x04"):
        message = "The file is a ZIP archive. Unpack it, and name the table in it."
        return _failed(message, "not_a_table", file)
    text = decode(data, file, options.encoding)
    del data
    if not text.content.strip():
        return _failed("The file is empty.", "empty_table", file)
    opened = _open_text(text.content, file, options)
    raw = replace(opened.raw, encoding=text.encoding) if opened.raw else None
    return Opened(raw, None, [*text.problems, *opened.problems])


def _open_folder(path: Path, options: ReadOptions) -> Opened:
    if options.format not in ("auto", "folder", "dataset"):
        from beholder.data.formats.catalogue import FORMATS

        message = f"The format {options.format} wants {FORMATS[options.format]}."
        return _failed(message, "format", str(path))
    kind = None if options.format == "folder" else containers.data_set_kind(path)
    if kind in ("arrow", "parquet"):
        return Opened(replace(containers.read_shards(path), format="dataset"))
    if kind == "metadata":
        return _open_metadata(path, options)
    frame, problems = folder.folder_rows(path, options.attribute)
    columns = {name: name for name in frame.columns if name != ROW}
    columns = {role: "file" if role == "image" else name for role, name in columns.items()}
    raw = RawTable(frame.rename({"image": "file"}), "folder", format="folder", columns=columns)
    return Opened(raw, None, problems)


def _open_metadata(path: Path, options: ReadOptions) -> Opened:
    """An `imagefolder`: its metadata, with names that start from the folder."""
    frames: list[pl.DataFrame] = []
    problems: list[Problem] = []
    for file, inner, split in containers.metadata_files(path):
        opened = _open_path(file, replace(options, format="auto"))
        problems += opened.problems
        if opened.raw is None or "file_name" not in opened.raw.header:
            message = "The metadata of the folder has no column `file_name`."
            problems.append(Problem("error", "columns", message, file=str(file)))
            continue
        frame = opened.raw.frame.with_columns(
            (pl.lit(inner) + pl.col("file_name")).alias("file_name")
        )
        if split and "split" not in frame.columns:
            frame = frame.with_columns(pl.lit(split).alias("split"))
        frames.append(frame)
    if not frames:
        return Opened(problems=problems)
    whole = pl.concat(frames, how="diagonal_relaxed")
    columns = {"image": "file_name"}
    raw = RawTable(whole, "folder with metadata", format="dataset", columns=columns)
    return Opened(raw, None, problems)


def _open_parquet(path: Path, options: ReadOptions) -> Opened:
    """Beholder's own file, or somebody else's. Rows count from 0."""
    try:
        is_table = "beholder.annotations" in pl.read_parquet_metadata(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        return _failed(f"The Parquet file can't be read: {str(error)[:200]}", "parquet", str(path))
    if not is_table:
        return Opened(containers.read_parquet(path))
    if options.codebook:
        message = "A Parquet file brings the names of its classes along; leave the codebook out."
        return _failed(message, "codebook", str(path))
    try:
        return Opened(table=AnnotationTable.from_parquet(path))
    except DataError as error:
        listed = [replace(problem, file=str(path)) for problem in error.problems]
        return Opened(problems=listed or [Problem("error", "parquet", error.what, file=str(path))])


def _open_text(content: str, file: str, options: ReadOptions) -> Opened:
    format = options.format
    start = content.lstrip()[0]
    is_json = format in _JSON_FORMATS
    # a bar or comma table may start with a bracket: JSON is what parses as JSON
    if is_json or (format in ("auto", "generic", "label-studio") and start in "[{"):
        opened = _open_json(content, file, options)
        broken = opened.raw is None and any(problem.code == "json" for problem in opened.problems)
        if is_json or not (broken and start == "["):
            return opened
        if len(content.lstrip().partition("\n")[0]) < 3 or content.lstrip()[1] in '{"[':
            return opened
    parsed = parse_delimited(content, file, separator=options.separator, header=options.header)
    ava = ava_table(parsed)
    if ava is not None:
        return Opened(ava, None, list(parsed.problems))
    held = _SEPARATOR_NAMES.get(parsed.separator, f"{parsed.separator!r} between fields")
    container = "list" if len(parsed.header) == 1 else f"text table with {held}"
    notes = ["Quotes are part of the text."] if parsed.literal_quotes else []
    if not parsed.has_header:
        notes.append("The first line is a row, no header: the columns are named by their place.")
    raw = RawTable(
        parsed.frame, container, (), parsed.repeated, parsed.has_header, notes=tuple(notes)
    )
    return Opened(raw, None, list(parsed.problems))


def _open_json(content: str, file: str, options: ReadOptions) -> Opened:
    value, by_line, problems = structured.parse_json(content, file)
    if by_line:
        raw = structured.table_of_lines(value, file)
        return Opened(raw, None, [*problems, *raw.problems])
    if problems:
        return Opened(problems=problems)
    known = captions.recognise_json(value)
    if known and options.format in ("auto", known):
        frame, row_problems = captions.json_rows(value, known, file)
        names = captions.NAMES[known]
        columns = {role: names[role] for role in ("image", "split", "comments")}
        raw = RawTable(frame.rename(names), "JSON", format=known, columns=columns)
        return Opened(raw, None, row_problems)
    table = structured.table_of_json(value, file)
    if isinstance(table, Problem):
        return Opened(problems=[table])
    return Opened(table, None, list(table.problems))
