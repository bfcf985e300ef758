"""The words for a table that can't be read, or only with a doubt; with commands to copy."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from beholder.data.formats.catalogue import FORMATS
from beholder.data.formats.column_profile import profile
from beholder.data.formats.column_roles import Doubt, Roles
from beholder.data.formats.delimited import ROW
from beholder.data.formats.layouts import GENERIC, LAYOUTS, Layout
from beholder.data.formats.options import ReadOptions
from beholder.data.formats.raw_table import RawTable
from beholder.errors import Problem

_MOST_COMMANDS = 3
_MOST_COLUMNS = 40
_MOST_UNCLEAR = 1000


def name_of(source: Any) -> str:
    """What a source is called in messages."""
    return str(source) if isinstance(source, (str, Path)) else f"a {type(source).__name__}"


def command(columns: Mapping[str, str], file: str) -> str:
    """A ready-made command that says the columns."""
    pairs = [f"--columns {shlex.quote(f'{role}={name}')}" for role, name in columns.items()]
    return f"beholder check {shlex.quote(file)} {' '.join(pairs)}"


def ambiguous(doubt: Doubt, user_roles: Mapping[str, str], file: str) -> Problem:
    """Readings that are equally good, as commands; nothing is guessed."""
    shown = [
        command({**user_roles, **reading}, file) for reading in doubt.readings[:_MOST_COMMANDS]
    ]
    message = f"{doubt.message} Say which, by one of:" + "".join(f"\n    {line}" for line in shown)
    return Problem("error", "ambiguous", message, file=file, row=1)


def doubt_note(doubt: Doubt) -> str:
    """A doubt that does not matter, since the table has other opinions."""
    role, name = next(iter(doubt.readings[0].items()))
    return f"{doubt.message} None is taken. To take one: --columns {shlex.quote(f'{role}={name}')}"


def no_layout(header: Sequence[str], file: str, format: str) -> Problem:
    """The columns fit nothing."""
    wanted = [layout.name for layout in (*LAYOUTS, GENERIC)]
    if format != "auto":
        wanted = [format]
    needs = "\n".join(f"    {name}: {FORMATS[name]}" for name in wanted)
    message = f"The columns are {_shown(header)}, which fit no format. Wanted:\n{needs}"
    return Problem("error", "columns", message, file=file, row=1)


def no_pictures(frame: pl.DataFrame, roles: Roles, file: str, options: ReadOptions) -> Problem:
    """No column names pictures for certain: those that might, as commands."""
    header = [name for name in frame.columns if name != ROW]
    likely, texts = [], []
    for name in header:
        column = profile(frame[name].head(1000))
        if column.kind == "text" and column.filled and column.words >= 3:
            texts.append(name)
        unique = column.filled and column.distinct > 0.9 * column.filled
        if column.kind == "text" and unique and (column.numeric < 0.5) and column.words < 3:
            likely.append(name)
    settled = {r: c for r, c in roles.columns.items() if r == "score" or r in options.columns}
    base = no_layout(header, file, options.format)
    message = "No column names pictures for certain."
    if texts and not likely:
        message += f" It looks like a task about texts ({_shown(texts)}), not pictures."
    if likely:
        lines = [command({"image": name, **settled}, file) for name in likely[:_MOST_COMMANDS]]
        message += " Say which one does, e.g. by:" + "".join(f"\n    {line}" for line in lines)
    return Problem("error", "columns", f"{message}\n{base.message}", file=file, row=1)


def no_direction(column: str, file: str) -> Problem:
    """A DMOS may say how good or how bad a picture is."""
    message = (
        f"It is not known which way {column!r} counts: in some tables the best picture has the "
        "highest value, in some the worst. Higher is taken as better. If it says how bad a picture "
        "is, add --lower-is-better."
    )
    return Problem("warning", "direction", message, file=file, row=1, field=column)


def unclear_pictures(
    frame: pl.DataFrame, unclear: Mapping[str, Sequence[str]], file: str
) -> list[Problem]:
    """Names without ending that several files fit."""
    if not unclear:
        return []
    rows = frame.filter(pl.col("image").is_in(list(unclear))).select(ROW, "image")
    return [
        Problem(
            "error",
            "unclear_picture",
            f"Several pictures fit the name {name!r}: {', '.join(unclear[name][:5])}.",
            file=file,
            row=row,
            key=name,
        )
        for row, name in rows.head(_MOST_UNCLEAR).iter_rows()
    ]


def name_problems(raw: RawTable, layout: Layout, roles: Roles, file: str) -> list[Problem]:
    """Rows whose second name of the picture, with or without its extension, is another one."""
    column = layout.second_name(raw.header)
    if column is None:
        return []
    image = roles.columns["image"]
    problems = []
    names = raw.frame.select(ROW, pl.col(column).fill_null(""), pl.col(image).fill_null(""))
    for row, name, path in names.iter_rows():
        last = path.strip().replace("\\", "/").rsplit("/", 1)[-1]
        if name.strip() not in (last, last.rsplit(".", 1)[0]):
            message = f"{column} is {name!r}, which is not the picture of {image} {path!r}."
            problems.append(Problem("error", "name_mismatch", message, file, row, column, path))
    return problems


def _shown(names: Sequence[str]) -> str:
    more = len(names) - _MOST_COLUMNS
    return ", ".join(names[:_MOST_COLUMNS]) + (f" and {more} more" if more > 0 else "")
