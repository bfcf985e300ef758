"""Reading any table of opinions: which format it is, and all that is wrong with it in one go.

| format | what it is |
| --- | --- |
| challenge, fascode, koniq, koniq-sets, kadid, generic | CSV or TSV, see `layouts` |
| captioner, karpathy | JSON, see `captions` |
| folder | a folder per class, see `folder` |
| parquet | what `AnnotationTable.to_parquet` writes |
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from beholder.data.annotations import AnnotationTable
from beholder.data.formats import captions, folder
from beholder.data.formats.assemble import Rows, assemble
from beholder.data.formats.codebook import read_codebook
from beholder.data.formats.delimited import ROW, Delimited, parse_delimited
from beholder.data.formats.layouts import (
    GENERIC,
    LAYOUTS,
    Layout,
    generic_layout,
    mapping_problems,
    unused_columns,
)
from beholder.data.formats.text import read_text
from beholder.errors import DataError, Problem

log = logging.getLogger(__name__)

FORMATS: dict[str, str] = {
    **{layout.name: layout.wants for layout in (*LAYOUTS, GENERIC)},
    "captioner": captions.CAPTIONER_WANTS,
    "karpathy": captions.KARPATHY_WANTS,
    "folder": folder.WANTS,
    "parquet": "a Parquet file that Beholder wrote",
}
"""Format -> what it wants of a file."""


@dataclass(frozen=True)
class Scan:
    """What a file holds, however damaged.

    Args:
        table: the usable rows; None where none is left. With errors among the problems it serves
            further checks only: rows may be missing, contradictions are settled by the first row.
        problems: all of them, in the order of the file.
        format: the recognised format, None where none fits.
        rows: image key -> line or index of its first row.
    """

    table: AnnotationTable | None
    problems: list[Problem]
    format: str | None = None
    rows: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Options:
    format: str
    columns: Mapping[str, str] | None
    root: str | None
    encoding: str | None
    attribute: str
    score_range: tuple[float, float] | None
    codebook: Mapping[str, Mapping[str, str]]


def read_annotations(
    path: str | Path,
    format: str = "auto",
    *,
    columns: Mapping[str, str] | None = None,
    root: str | Path | None = None,
    encoding: str | None = None,
    attribute: str = "class",
    score_range: tuple[float, float] | None = None,
    codebook: str | Path | None = None,
) -> AnnotationTable:
    """Read a table of opinions.

    Args:
        path: a CSV, TSV, JSON or Parquet file, or a folder per class.
        format: one of `FORMATS`, or "auto": recognised from the content, never from the name.
        columns: for a CSV or TSV with columns of one's own: field -> column, e.g. `{"image":
            "file", "score": "rating", "attribute.style": "style"}`. Makes the format generic.
        root: what absolute names of pictures in the file start with; it is taken off.
        encoding: of a text file; by default recognised (UTF-8, UTF-16, CP949).
        attribute: what the classes of a folder per class are classes of.
        score_range: lowest and highest score; by default what the format knows.
        codebook: file with the names of the attributes' values, see `data.formats.codebook`.

    Raises:
        DataError: with every problem of the file at once. Warnings only are logged.
    """
    scan = scan_annotations(
        path,
        format,
        columns=columns,
        root=root,
        encoding=encoding,
        attribute=attribute,
        score_range=score_range,
        codebook=codebook,
    )
    errors = [problem for problem in scan.problems if problem.severity == "error"]
    if errors or scan.table is None:
        raise DataError(
            "The annotations can't be used.",
            where=str(path),
            fix="Correct the places below; `beholder check` shows them again.",
            problems=errors,
        )
    counts = Counter(problem.code for problem in scan.problems)
    for code, count in counts.items():
        log.warning("%s: %d warnings of kind %s; `beholder check` lists them", path, count, code)
    return scan.table


def scan_annotations(
    path: str | Path,
    format: str = "auto",
    *,
    columns: Mapping[str, str] | None = None,
    root: str | Path | None = None,
    encoding: str | None = None,
    attribute: str = "class",
    score_range: tuple[float, float] | None = None,
    codebook: str | Path | None = None,
) -> Scan:
    """Read as much of a table as there is, and list what is wrong with it. Arguments as for
    `read_annotations`.

    Raises:
        DataError: an argument is wrong: no such format or encoding.
    """
    if format != "auto" and format not in FORMATS:
        raise DataError(f"There is no format {format!r}.", fix=f"Use auto, {', '.join(FORMATS)}.")
    named: dict[str, dict[str, str]] = {}
    wrong: tuple[Problem, ...] = ()
    if codebook is not None:
        try:
            named = read_codebook(codebook)
        except DataError as error:
            wrong = error.problems  # told together with what is wrong with the table
    base = None if root is None else str(root)
    options = _Options(format, columns, base, encoding, attribute, score_range, named)
    scan = _scan(Path(path), options)
    scan = replace(scan, problems=[*wrong, *scan.problems])
    if scan.table is None and not any(problem.severity == "error" for problem in scan.problems):
        message = "The table is empty: there is no row in it."
        scan.problems.append(Problem("error", "empty_table", message, file=str(path)))
    return scan


def _scan(path: Path, options: _Options) -> Scan:
    file, format = str(path), options.format
    if not path.exists():
        message = "There is no such file or folder."
        return Scan(None, [Problem("error", "missing_file", message, file=file)])
    if path.is_dir() != (format == "folder") and (path.is_dir() or format == "folder"):
        if format != "auto":
            message = f"The format {format} wants {FORMATS[format]}."
            return Scan(None, [Problem("error", "format", message, file=file)])
        format = "folder"
    try:
        if format == "folder":
            frame, problems = folder.folder_rows(path, options.attribute)
            rows = Rows(frame, file, names={"image": "file"}, codebook=options.codebook)
            return _finish(rows, problems, "folder")
        with path.open("rb") as stream:
            start = stream.read(512)
        if format == "parquet" or (format == "auto" and start.startswith(b"PAR1")):
            return _scan_parquet(path, options)
        text = read_text(path, options.encoding)
    except OSError as error:
        message = f"It can't be read: {error.strerror or error}."
        return Scan(None, [Problem("error", "unreadable_file", message, file=file)])
    except LookupError as error:
        raise DataError(f"There is no encoding {options.encoding!r}.") from error
    if not text.content.strip():
        return Scan(None, [Problem("error", "empty_table", "The file is empty.", file=file)])
    if format in ("captioner", "karpathy") or (
        format == "auto" and text.content.lstrip()[0] in "[{"
    ):
        scan = _scan_json(text.content, file, options)
    else:
        scan = _scan_delimited(text.content, file, options)
    return replace(scan, problems=[*text.problems, *scan.problems])


def _finish(rows: Rows, problems: list[Problem], format: str) -> Scan:
    assembled = assemble(rows)
    found = [*problems, *assembled.problems]
    found.sort(key=lambda problem: -1 if problem.row is None else problem.row)
    return Scan(assembled.table, found, format, assembled.rows)


def _scan_parquet(path: Path, options: _Options) -> Scan:
    """Rows count from 0."""
    if options.codebook:
        message = "A Parquet file brings the names of its classes along; leave the codebook out."
        return Scan(None, [Problem("error", "codebook", message, file=str(path))], "parquet")
    try:
        table = AnnotationTable.from_parquet(path)
    except DataError as error:
        found = [replace(problem, file=str(path)) for problem in error.problems]
        return Scan(
            None, found or [Problem("error", "parquet", error.what, file=str(path))], "parquet"
        )
    rows = {key: row for row, key in enumerate(table.keys)}
    return Scan(table if len(table) else None, [], "parquet", rows)


def _scan_json(text: str, file: str, options: _Options) -> Scan:
    content, problems = captions.parse_json(text, file)
    if problems:
        return Scan(None, problems)
    format = captions.recognise_json(content)
    if format is None or options.format not in ("auto", format):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        wanted = [options.format] if options.format != "auto" else ["captioner", "karpathy"]
        message = f"The JSON holds {found}; " + "; ".join(
            f"{name} wants {FORMATS[name]}" for name in wanted
        )
        return Scan(None, [Problem("error", "format", message + ".", file=file)])
    frame, problems = captions.json_rows(content, format, file)
    names = {"image": "path" if format == "captioner" else "filename"}
    names["comments"] = "captions" if format == "captioner" else "sentences[].raw"
    rows = Rows(frame, file, names=names, root=options.root, codebook=options.codebook)
    return _finish(rows, problems, format)


def _scan_delimited(text: str, file: str, options: _Options) -> Scan:
    parsed = parse_delimited(text, file)
    problems = list(parsed.problems)
    if any(problem.code == "header" for problem in problems):
        return Scan(None, problems)
    if options.columns:
        found = mapping_problems(parsed.header, options.columns, file)
        if found:
            return Scan(None, [*problems, *found])
    layout = _layout(parsed.header, options)
    if layout is None:
        return Scan(None, [*problems, _no_layout(parsed.header, file, options)])
    if layout.name == "generic":
        problems += unused_columns(parsed.header, layout, file)
    columns = layout.resolve(parsed.header)
    problems += _name_problems(parsed, layout, columns["image"], file)
    frame = parsed.frame.select(ROW, **columns)
    rows = Rows(
        frame,
        file,
        repeats=layout.repeats,
        score_range=options.score_range or layout.score_range,
        classes=layout.classes,
        codebook=options.codebook,
        names=columns,
        root=options.root,
    )
    return _finish(rows, problems, layout.name)


def _layout(header: tuple[str, ...], options: _Options) -> Layout | None:
    generic = generic_layout(header, options.columns)
    if options.columns or options.format == "generic":
        return generic
    known = [layout for layout in LAYOUTS if options.format in ("auto", layout.name)]
    fitting = next((layout for layout in known if layout.fits(header)), None)
    return fitting or (generic if options.format == "auto" else None)


def _no_layout(header: tuple[str, ...], file: str, options: _Options) -> Problem:
    wanted = [layout.name for layout in (*LAYOUTS, GENERIC)]
    if options.format != "auto":
        wanted = [options.format]
    needs = "\n".join(f"    {name}: {FORMATS[name]}" for name in wanted)
    message = f"The columns are {', '.join(header)}, which fit no format. Wanted:\n{needs}"
    return Problem("error", "columns", message, file=file, row=1)


def _name_problems(parsed: Delimited, layout: Layout, image: str, file: str) -> list[Problem]:
    """Rows whose second name of the picture, with or without its extension, is another one."""
    column = layout.second_name(parsed.header)
    if column is None:
        return []
    problems = []
    for row, name, path in parsed.frame.select(ROW, column, image).iter_rows():
        last = path.strip().replace("\\", "/").rsplit("/", 1)[-1]
        if name.strip() not in (last, last.rsplit(".", 1)[0]):
            message = f"{column} is {name!r}, which is not the picture of {image} {path!r}."
            problems.append(Problem("error", "name_mismatch", message, file, row, column, path))
    return problems
