"""One raw table on its way to annotations: roles, pictures, scales, direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from beholder.data.annotations import ATTRIBUTE_PREFIX, AnnotationTable
from beholder.data.formats import messages, scales
from beholder.data.formats.assemble import Rows, assemble
from beholder.data.formats.boxes import BOX, boxes_of
from beholder.data.formats.catalogue import FORMATS
from beholder.data.formats.column_names import role_of_name
from beholder.data.formats.column_profile import PICTURE_NAME, profile, without_missing
from beholder.data.formats.column_roles import Roles
from beholder.data.formats.delimited import ROW
from beholder.data.formats.layouts import (
    GENERIC,
    Layout,
    known_layout,
    mapping_problems,
    spelt_mapping,
    unused_columns,
)
from beholder.data.formats.options import ReadOptions
from beholder.data.formats.pictures import PictureFolder, with_file_names
from beholder.data.formats.raw_table import RawTable
from beholder.data.formats.reading_record import Reading
from beholder.data.formats.roles import find_roles
from beholder.data.formats.several_labels import label_lists, several_labels
from beholder.data.formats.words import words_of
from beholder.data.labels import NONE
from beholder.errors import Problem

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


class Interpreter:
    """One raw table on its way to annotations."""

    def __init__(
        self,
        raw: RawTable,
        file: str,
        options: ReadOptions,
        codebook: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.raw, self.file, self.options = raw, file, options
        self.codebook = codebook or {}
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
            self.problems += messages.name_problems(self.raw, layout, roles, self.file)
        frame = self._by_role(roles)
        frame = self._with_pictures(frame)
        range_ = self.options.score_range or (layout.score_range if layout else None)
        frame, settle_notes = scales.settle(frame, range_)
        self.notes += settle_notes
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

    def pictures(self) -> pl.DataFrame | None:
        """`ROW`, `image` (the names as the files are called) and, where there are boxes, `box`;
        None: see the problems."""
        roles = self._roles(self._layout(), opinions=False)
        if roles is None:
            return None
        boxes, problems = boxes_of(self.raw.frame, roles.columns, self.file)
        self.problems += problems
        frame = self.raw.frame.select(ROW, image=pl.col(roles.columns["image"]))
        if boxes is not None:
            frame = frame.with_columns(boxes.alias(BOX))
        return self._with_pictures(frame)

    def roles(self) -> dict[str, str]:
        """Role -> column, whether or not they make a table; none where nothing is certain."""
        roles = self._roles(self._layout(), opinions=False)
        return dict(roles.columns) if roles else {}

    def _layout(self) -> Layout | None:
        """The published table that this is; None where columns are said, or roles found."""
        if self.options.columns or self.raw.format or self.options.format == GENERIC.name:
            return None
        if not self.raw.has_header or self.options.format not in ("auto", *FORMATS):
            return None
        return known_layout(self.raw.header, self.options.format)

    def _roles(self, layout: Layout | None, *, opinions: bool = True) -> Roles | None:
        """Role -> column; None where the problems say why not.

        Args:
            opinions: they are wanted, not only the pictures.
        """
        header, options = self.raw.header, self.options
        chosen = spelt_mapping(header, options.columns)
        wrong = mapping_problems(header, chosen, self.file)
        named_layout = options.format not in ("auto", GENERIC.name) and self.raw.format is None
        if wrong or (named_layout and layout is None):
            self.problems += wrong or [messages.no_layout(header, self.file, options.format)]
            return None
        if layout:
            columns = layout.resolve(header)
            return Roles(columns, dict.fromkeys(columns, f"{layout.name} has it"))
        if self.raw.format in _STRICT or self.raw.format in ("coco", "ava"):
            columns = {r: c for r, c in self.raw.columns.items() if c in header}
            return Roles(columns, dict.fromkeys(columns, f"{self.raw.format} has it"))
        texts = without_missing(self.raw.frame)
        profiles = {name: profile(texts[name]) for name in header}
        known = {r: c for r, c in self.raw.columns.items() if c not in chosen.values()}
        exists = self._exists if self.folder else None
        roles = find_roles(
            texts,
            profiles,
            {**known, **chosen},
            exists=exists,
            has_header=self.raw.has_header,
            attribute=options.attribute,
        )
        roles.why |= dict.fromkeys(known.keys() - chosen.keys(), "its place in the file")
        return roles if self._decided(roles, chosen, wanted=opinions) else None

    def _exists(self, column: str) -> float:
        assert self.folder is not None
        return self.folder.share(self.raw.frame[column])

    def _decided(self, roles: Roles, chosen: Mapping[str, str], *, wanted: bool) -> bool:
        """Whether the roles make a table; the problems say what is missing or undecided."""
        header = self.raw.header
        taken = {
            c for r, c in roles.columns.items() if r not in chosen and (wanted or r == "image")
        }
        repeated = sorted(self.raw.repeated & taken)
        if repeated:
            message = f"The header names {', '.join(map(repr, repeated))} more than once."
            self.problems.append(Problem("error", "header", message, file=self.file, row=1))
            return False
        opinions = not wanted or any(role.startswith(_OPINIONS) for role in roles.columns)
        undecided = [
            doubt for doubt in roles.doubts if not opinions or "image" in doubt.readings[0]
        ]
        for doubt in roles.doubts:
            if doubt not in undecided:
                roles.notes.append(messages.doubt_note(doubt))
        self.notes += roles.notes
        if "image" not in roles.columns and not undecided:
            texts = self.raw.frame
            self.problems.append(messages.no_pictures(texts, roles, self.file, self.options))
            return False
        if undecided:
            given_too = {**self.options.columns}
            self.problems += [messages.ambiguous(d, given_too, self.file) for d in undecided]
            return False
        if not opinions and role_of_name(roles.columns["image"]) != "image" and len(header) > 1:
            self.problems.append(messages.no_layout(header, self.file, self.options.format))
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
        return self._with_label_lists(frame, roles)

    def _with_label_lists(self, frame: pl.DataFrame, roles: Roles) -> pl.DataFrame:
        """Attributes of which several labels hold at once as lists; where every list has one
        label, as that label."""
        for role in frame.columns:
            column = frame[role]
            if not role.startswith(ATTRIBUTE_PREFIX) or self.raw.format in _STRICT:
                continue
            listed = isinstance(column.dtype, pl.List)
            attribute = role.removeprefix(ATTRIBUTE_PREFIX).casefold()
            codes = role in self.options.columns or attribute in self.codebook
            several = None if listed else several_labels(column, codes=codes)
            if not listed and several is None:
                continue
            lists = label_lists(column, several.separator if several else None)
            if (lists.drop_nulls().list.len() == 1).all():
                frame = frame.with_columns(lists.list.first())
                continue
            frame = frame.with_columns(lists)
            if several is not None:
                self.notes.append(
                    f"{roles.columns[role]!r} holds several labels at once, with "
                    f"{several.separator!r} between them: an empty cell says that nothing is "
                    f"known, {NONE!r} that none holds."
                )
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
        self.problems += messages.unclear_pictures(frame, resolved.unclear, self.file)
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
                self.problems.append(messages.no_direction(column, self.file))
                self.notes.append(messages.no_direction(column, self.file).message)
            return table
        turned, problems = turn_over(table, range_, self.file)
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


def turn_over(
    table: AnnotationTable, range_: tuple[float, float] | None, file: str
) -> tuple[AnnotationTable, list[Problem]]:
    """The table with its scores turned over, and on which scale that was done."""
    scores = table.frame["score"].drop_nulls()
    if scores.is_empty():
        return table, []
    low, high = scores.min(), scores.max()
    assert isinstance(low, float) and isinstance(high, float)
    scale = range_ or scales.usual_scale(low, high)
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
    return scales.turned_over(table, *scale), [Problem("warning", "turned", message, file=file)]
