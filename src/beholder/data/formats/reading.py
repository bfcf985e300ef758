"""Reading any table of opinions: what it is, which column is what, and all that is wrong with it.

| step | file |
| --- | --- |
| which container: text, JSON, Parquet, Excel, folder, frame | `opening` |
| cells as programs write them, as plain text | `prepare` |
| a published table, known by its header | `layouts` |
| any other: which column is what, by what is in it | `roles`, `opinions`, `wide` |
| which file a name means | `pictures` |
| what columns say together: missing scores, scales, votes | `settle` |
| rows to an `AnnotationTable`, and what is wrong with them | `assemble` |
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from beholder.data.annotations import ATTRIBUTE_PREFIX, AnnotationTable
from beholder.data.formats import settle, telling
from beholder.data.formats.assemble import Rows, assemble
from beholder.data.formats.codebook import read_codebook
from beholder.data.formats.delimited import ROW
from beholder.data.formats.found_roles import Roles
from beholder.data.formats.known import FORMATS
from beholder.data.formats.layouts import (
    GENERIC,
    Layout,
    known_layout,
    mapping_problems,
    spelt_mapping,
    unused_columns,
)
from beholder.data.formats.opening import open_table
from beholder.data.formats.options import ReadOptions
from beholder.data.formats.pictures import PictureFolder, with_file_names
from beholder.data.formats.prepare import prepare
from beholder.data.formats.raw import RawTable
from beholder.data.formats.reading_record import Reading
from beholder.data.formats.roles import find_roles
from beholder.data.formats.usual import role_of_name
from beholder.data.formats.values import PICTURE_NAME, profile, without_missing
from beholder.data.formats.words import words_of
from beholder.errors import DataError, Problem

log = logging.getLogger(__name__)

_STRICT = ("captioner", "karpathy", "folder")
"""Formats with one entry per picture, whose text means what it says."""

_OPINIONS = ("score", "comments", ATTRIBUTE_PREFIX, "rating.", "votes.")


@dataclass(frozen=True)
class Scan:
    """What a file holds, however damaged.

    Args:
        table: the usable rows; None where none is left. With errors among the problems it serves
            further checks only: rows may be missing, contradictions are settled by the first row.
        problems: all of them, in the order of the file.
        format: the recognised format, None where none fits.
        rows: image key -> line or index of its first row.
        read: what was understood.
    """

    table: AnnotationTable | None
    problems: list[Problem]
    format: str | None = None
    rows: dict[str, int] = field(default_factory=dict)
    read: Reading = field(default_factory=Reading)


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
    scan = scan_annotations(source, format, **options)
    return usable_table(scan, telling.name_of(source))


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
    counts = Counter(problem.code for problem in scan.problems)
    for code, count in counts.items():
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
    named: dict[str, dict[str, str]] = {}
    wrong: tuple[Problem, ...] = ()
    if options.codebook is not None:
        try:
            named = read_codebook(options.codebook)
        except DataError as error:
            wrong = error.problems  # told together with what is wrong with the table
    scan = _scan(source, options, named)
    scan = replace(scan, problems=[*wrong, *scan.problems])
    if scan.table is None and not any(problem.severity == "error" for problem in scan.problems):
        message = "The table is empty: there is no row in it."
        where = telling.name_of(source)
        scan.problems.append(Problem("error", "empty_table", message, file=where))
    return scan


def _scan(source: Any, options: ReadOptions, codebook: Mapping[str, Mapping[str, str]]) -> Scan:
    opened = open_table(source, options)
    file = telling.name_of(source)
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
    scan = _Interpreter(prepare(raw), file, options, codebook).scan()
    found = [*opened.problems, *scan.problems]
    found.sort(key=lambda problem: -1 if problem.row is None else problem.row)
    return replace(scan, problems=found)


def _own_table(table: AnnotationTable, options: ReadOptions) -> Scan:
    rows = {key: row for row, key in enumerate(table.keys)}
    columns = {name: name for name in table.frame.columns}
    kept = table if len(table) else None
    read = Reading("parquet", "Parquet of Beholder", None, len(table), columns, table=kept)
    if kept is not None and options.lower_is_better:
        kept, problems = _turned(kept, options.score_range, "")
        return Scan(kept, problems, "parquet", rows, replace(read, table=kept))
    return Scan(kept, [], "parquet", rows, read)


class _Interpreter:
    """One raw table on its way to annotations."""

    def __init__(
        self,
        raw: RawTable,
        file: str,
        options: ReadOptions,
        codebook: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.raw, self.file, self.options, self.codebook = raw, file, options, codebook
        self.notes = list(raw.notes)
        self.problems: list[Problem] = []
        images = options.images
        there = images is not None and Path(images).is_dir()
        self.folder = PictureFolder(Path(str(images)), options.prefix) if there else None

    def scan(self) -> Scan:
        layout = self._layout()
        roles = self._roles(layout)
        if roles is None:
            return Scan(None, self.problems, None, read=self._reading(None, Roles(), None))
        format = self.raw.format or (layout.name if layout else GENERIC.name)
        unread = self._ignored(roles)
        if format == GENERIC.name:
            opinions = any(role.startswith(_OPINIONS) for role in roles.columns)
            self.problems += unused_columns(self.raw.header, unread, opinions, self.file)
        if layout:
            self.problems += telling.name_problems(self.raw, layout, roles, self.file)
        frame = self._by_role(roles)
        frame = self._with_pictures(frame)
        range_ = self.options.score_range or (layout.score_range if layout else None)
        frame, told = settle.settle(frame, range_)
        self.notes += told
        rows = Rows(
            frame,
            self.file,
            repeats=layout.repeats if layout else format not in _STRICT,
            score_range=range_,
            classes=layout.classes if layout else {},
            codebook=self.codebook,
            names=roles.columns,
            root=self.options.prefix,
        )
        assembled = assemble(rows)
        self.problems += assembled.problems
        table = self._directed(assembled.table, roles, layout, range_)
        read = self._reading(format, roles, table)
        return Scan(table, self.problems, format, assembled.rows, read)

    def _layout(self) -> Layout | None:
        """The published table that this is; None where columns are said, or roles found."""
        if self.options.columns or self.raw.format or self.options.format == GENERIC.name:
            return None
        if not self.raw.has_header or self.options.format not in ("auto", *FORMATS):
            return None
        return known_layout(self.raw.header, self.options.format)

    def _roles(self, layout: Layout | None) -> Roles | None:
        """Role -> column; None where the problems say why not."""
        header, options = self.raw.header, self.options
        given = spelt_mapping(header, options.columns)
        wrong = mapping_problems(header, given, self.file)
        named_layout = options.format not in ("auto", GENERIC.name) and self.raw.format is None
        if wrong or (named_layout and layout is None):
            self.problems += wrong or [telling.no_layout(header, self.file, options.format)]
            return None
        if layout:
            columns = layout.resolve(header)
            return Roles(columns, dict.fromkeys(columns, f"{layout.name} has it"))
        if self.raw.format in _STRICT or self.raw.format in ("coco", "ava"):
            columns = {r: c for r, c in self.raw.columns.items() if c in header}
            return Roles(columns, dict.fromkeys(columns, f"{self.raw.format} has it"))
        texts = without_missing(self.raw.frame)
        profiles = {name: profile(texts[name]) for name in header}
        known = {r: c for r, c in self.raw.columns.items() if c not in given.values()}
        exists = self._exists if self.folder else None
        roles = find_roles(
            texts,
            profiles,
            {**known, **given},
            exists=exists,
            has_header=self.raw.has_header,
            attribute=options.attribute,
        )
        return roles if self._decided(roles, given) else None

    def _exists(self, column: str) -> float:
        assert self.folder is not None
        return self.folder.share(self.raw.frame[column])

    def _decided(self, roles: Roles, given: Mapping[str, str]) -> bool:
        """Whether the roles make a table; the problems say what is missing or undecided."""
        header = self.raw.header
        taken = {c for r, c in roles.columns.items() if r not in given}
        repeated = sorted(self.raw.repeated & taken)
        if repeated:
            message = f"The header names {', '.join(map(repr, repeated))} more than once."
            self.problems.append(Problem("error", "header", message, file=self.file, row=1))
            return False
        opinions = any(role.startswith(_OPINIONS) for role in roles.columns)
        undecided = [
            doubt for doubt in roles.doubts if not opinions or "image" in doubt.readings[0]
        ]
        for doubt in roles.doubts:
            if doubt not in undecided:
                roles.notes.append(telling.doubt_note(doubt))
        self.notes += roles.notes
        if "image" not in roles.columns and not undecided:
            texts = self.raw.frame
            self.problems.append(telling.no_pictures(texts, roles, self.file, self.options))
            return False
        if undecided:
            given_too = {**self.options.columns}
            self.problems += [telling.ambiguous(d, given_too, self.file) for d in undecided]
            return False
        if not opinions and role_of_name(roles.columns["image"]) != "image" and len(header) > 1:
            self.problems.append(telling.no_layout(header, self.file, self.options.format))
            return False
        return True

    def _by_role(self, roles: Roles) -> pl.DataFrame:
        """The columns by their roles, missing values as null, sentences of several columns as one
        list."""
        frame = self.raw.frame.select(ROW, **{r: pl.col(c) for r, c in roles.columns.items()})
        if self.raw.format not in (*_STRICT, "coco", "captions"):
            frame = without_missing(frame, except_for=("image",))
        more = [name for name in frame.columns if name.startswith("comments.")]
        if more:
            lists = [
                pl.col(name) if frame.schema[name] != pl.String else pl.concat_list(name)
                for name in ("comments", *more)
            ]
            whole = pl.concat_list(lists).list.drop_nulls().alias("comments")
            frame = frame.with_columns(whole).drop(more)
        return frame

    def _with_pictures(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The names as the files that they mean are called."""
        if frame.schema["image"] != pl.String:
            frame = frame.with_columns(pl.col("image").cast(pl.String))
        frame, addresses = with_file_names(frame, "image")
        if addresses:
            self.notes.append(
                f"{addresses} names are addresses: their file names count, nothing is fetched."
            )
        if self.folder is None:
            bare = ~frame["image"].drop_nulls().head(1000).str.contains(PICTURE_NAME)
            if self.raw.format not in _STRICT and bare.any():
                self.notes.append(
                    "Some names of pictures have no ending. With --images, the file that each of "
                    "them means is looked for."
                )
            return frame
        resolved = self.folder.resolve(frame["image"])
        self.notes += resolved.notes
        self.problems += telling.unclear_pictures(frame, resolved.unclear, self.file)
        return frame.with_columns(pl.col("image").replace(resolved.names))

    def _directed(
        self,
        table: AnnotationTable | None,
        roles: Roles,
        layout: Layout | None,
        range_: tuple[float, float] | None,
    ) -> AnnotationTable | None:
        """Scores of which more is better, or a warning that nobody knows."""
        column = roles.columns.get("score", "")
        if table is None or not self.options.lower_is_better:
            if "dmos" in words_of(column) and layout is None and table is not None:
                self.problems.append(telling.no_direction(column, self.file))
                self.notes.append(telling.no_direction(column, self.file).message)
            return table
        turned, problems = _turned(table, range_, self.file)
        self.problems += [p for p in problems if p.severity == "error"]
        self.notes += [p.message for p in problems if p.severity != "error"]
        return turned

    def _ignored(self, roles: Roles) -> tuple[str, ...]:
        used = roles.taken
        return tuple(name for name in self.raw.header if name not in used)

    def _reading(self, format: str | None, roles: Roles, table: AnnotationTable | None) -> Reading:
        return Reading(
            format,
            self.raw.container,
            self.raw.encoding,
            self.raw.frame.height,
            dict(roles.columns),
            dict(roles.why),
            self._ignored(roles),
            tuple(self.notes),
            table,
        )


def _turned(
    table: AnnotationTable, range_: tuple[float, float] | None, file: str
) -> tuple[AnnotationTable, list[Problem]]:
    """The table with its scores turned over, and on which scale that was done."""
    scores = table.frame["score"].drop_nulls()
    if scores.is_empty():
        return table, []
    low, high = scores.min(), scores.max()
    assert isinstance(low, float) and isinstance(high, float)
    scale = range_ or settle.usual_scale(low, high)
    if scale is None:
        message = (
            f"Scores from {low:.6g} to {high:.6g} are on no usual scale, so that they can't be "
            "turned over within it. Say the lowest and the highest: --scale LOW HIGH."
        )
        return table, [Problem("error", "scale", message, file=file)]
    message = (
        f"Lower is better: scores are turned over on the scale {scale[0]:g} to {scale[1]:g}, "
        f"so that {scale[0]:g} is now {scale[1]:g}."
    )
    return settle.turned_over(table, *scale), [Problem("warning", "turned", message, file=file)]
