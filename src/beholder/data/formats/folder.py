"""A folder per class: the name of a picture's folder is its class.

pictures/casual/0001.jpg        or, with a split:  pictures/train/casual/0001.jpg
pictures/formal/0002.jpg                           pictures/test/formal/0002.jpg
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from beholder.data.annotations import ATTRIBUTE_PREFIX
from beholder.data.formats.column_names import SPLIT_NAMES
from beholder.data.formats.delimited import ROW
from beholder.data.images import EXTENSIONS
from beholder.data.picture_files import files_below, shown
from beholder.errors import Problem

WANTS = (
    "a folder with a folder of pictures per class (below train, val, test where there is a split)"
)


def folder_rows(root: Path, attribute: str) -> tuple[pl.DataFrame, list[Problem]]:
    """A row per picture below `root`, in the order of their names.

    Where all folders are named like splits (train, val, test ...), their folders are the classes.
    Pictures outside of a class folder are errors; files that are not pictures warnings, hidden ones
    are passed over.
    """
    column = ATTRIBUTE_PREFIX + attribute
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and shown(entry.name))
    by_split = bool(names) and all(name.lower() in SPLIT_NAMES for name in names)
    depth = 2 if by_split else 1
    rows: list[tuple[None, str, str | None, str]] = []
    problems: list[Problem] = []
    for key in files_below(root):
        *folders, name = key.split("/")
        if not name.lower().endswith(EXTENSIONS):
            message = "By its name the file is not a picture; it is left out."
            problems.append(Problem("warning", "not_a_picture", message, file=str(root), key=key))
        elif len(folders) < depth:
            message = "The picture lies in no folder of a class."
            problems.append(Problem("error", "no_class", message, file=str(root), key=key))
        else:
            rows.append((None, key, folders[0] if by_split else None, folders[depth - 1]))
    schema = {ROW: pl.Int64, "image": pl.String, "split": pl.String, column: pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row"), problems
