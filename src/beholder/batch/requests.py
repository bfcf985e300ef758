"""Which pictures are asked for: named on the command line, or listed in a table of any kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import polars as pl

from beholder.data.formats import ReadOptions, listed_rows
from beholder.data.formats.text import read_text
from beholder.data.images import EXTENSIONS
from beholder.data.keys import make_key
from beholder.data.picture_files import pictures_below, shown
from beholder.errors import DataError
from beholder.judge.runner import Request


def find_pictures(arguments: Sequence[str]) -> list[Request]:
    """Pictures named on the command line: files as given, folders searched (sorted), globs.

    Raises:
        DataError: nothing was named, or a folder or glob holds no picture.
    """
    requests: list[Request] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            files = [path / name for name in pictures_below(path)]
        elif not path.exists() and any(sign in argument for sign in "*?["):
            anchor = Path(path.anchor) if path.is_absolute() else Path()
            pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else argument
            files = sorted(p for p in anchor.glob(pattern) if p.is_file() and shown(p.name))
        else:
            requests.append(Request(argument, path))
            continue
        if not files:
            raise DataError(
                "There is no picture here.",
                where=argument,
                fix=f"Name a folder, file or glob with pictures ({', '.join(sorted(EXTENSIONS))}).",
            )
        requests += [Request(str(file), file) for file in files]
    if not requests:
        raise DataError("No picture was named.", fix="Name pictures, folders or globs.")
    return requests


class Listed(Sequence[Request]):
    """Requests by names and boxes, made as they are asked for: columns take a seventh of the room
    of a list of requests.

    Args:
        names: of the pictures, relative to `root`.
        boxes: of each picture [xmin, ymin, xmax, ymax] or null; None: no picture has one.
    """

    def __init__(self, names: pl.Series, root: Path, boxes: pl.Series | None = None) -> None:
        self.names = names
        self.root = root
        self.boxes = boxes

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> Listed: ...
    def __getitem__(self, index: int | slice) -> Request | Listed:
        if isinstance(index, slice):
            boxes = None if self.boxes is None else self.boxes[index]
            return Listed(self.names[index], self.root, boxes)
        return self._request(self.names[index], None if self.boxes is None else self.boxes[index])

    def __iter__(self) -> Iterator[Request]:
        if self.boxes is None:
            return (self._request(name, None) for name in self.names)
        pairs = zip(self.names, self.boxes, strict=True)
        return (self._request(name, box) for name, box in pairs)

    def _request(self, name: str, box: Sequence[float] | None) -> Request:
        return Request(name, self.root / name, None if box is None else tuple(box))


def listed_pictures(
    table: Path, root: Path | None = None, reading: ReadOptions | None = None
) -> Listed:
    """Pictures named in a table of any kind, with their boxes where it has some, or in a list with
    a path per line; relative to `root`, or else to the file's folder.

    Raises:
        DataError: the file can't be read, names no picture, or has a box that is none.
    """
    root = table.parent if root is None else root
    names, boxes = _plain_lines(table, root), None
    if names is None:
        options = replace(reading or ReadOptions(), images=root)
        rows = listed_rows(table, options)
        names, boxes = rows["image"], rows["box"] if "box" in rows.columns else None
        keys = {name: make_key(name, str(root)) for name in names.drop_nulls().unique()}
        names = names.replace(keys)
    blank = (names.fill_null("") == "").arg_true()
    if names.is_empty() or len(blank):
        what = "names no picture" if names.is_empty() else f"has no name in row {blank[0] + 1}"
        raise DataError(f"The list {what}.", where=str(table))
    return Listed(names, root, boxes)


def _plain_lines(path: Path, root: Path) -> pl.Series | None:
    """The lines of a text file whose first ones are pictures as they stand, with whatever signs
    separate fields elsewhere; None: it is no such list."""
    if path.suffix.lower() != ".txt" or not path.is_file():
        return None
    try:
        lines = [line.strip() for line in read_text(path).content.split("\n") if line.strip()]
    except OSError:
        return None  # the reader of tables tells why
    if not lines or not all((root / line).is_file() for line in lines[:20]):
        return None
    return pl.Series(lines, dtype=pl.String)
