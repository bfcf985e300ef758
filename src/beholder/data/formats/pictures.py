"""The pictures that a table's names mean: addresses, names without ending, names of other folders.

Nothing is fetched: of an address only its file name counts. A name that has no ending means the one
file that has it as its stem; names of which none is there mean the files of the same name, wherever
they are below the folder of pictures.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

import polars as pl

from beholder.data.formats.column_profile import PICTURE_NAME
from beholder.data.images import EXTENSIONS
from beholder.data.keys import make_key
from beholder.data.picture_files import pictures_below

_URL = re.compile(r"(?i)^[a-z][a-z0-9+.-]*://")
_SAMPLE = 100
_URL_COLUMN = r"(?i)^\s*(?:https?|s3|gs|file)://"


def from_address(name: str) -> str:
    """The file name in an address, as it stands for anything else."""
    if not _URL.match(name.strip()):
        return name
    try:
        parts = urlsplit(name.strip())
    except ValueError:
        return name
    return unquote(posixpath.basename(parts.path.rstrip("/")) or parts.netloc)


@dataclass(frozen=True)
class Resolved:
    """Name as in the table -> name to use, for those that differ; names that several files fit;
    and what people should know."""

    names: dict[str, str]
    unclear: dict[str, list[str]]
    notes: list[str]


class PictureFolder:
    """The folder of pictures, looked through once, and only if names have to be looked for."""

    def __init__(self, root: str | Path, prefix: str | None) -> None:
        self.root = Path(root)
        self.prefix = prefix

    def share(self, column: pl.Series) -> float:
        """Share of a column's values that are pictures here, by a sample of them."""
        if column.dtype != pl.String:
            return 0.0
        sample = column.drop_nulls().unique(maintain_order=True).head(_SAMPLE).to_list()
        if not sample:
            return 0.0
        existing = sum(self._is_there(name) or len(self._fits(name)) == 1 for name in sample)
        return existing / len(sample)

    def resolve(self, column: pl.Series) -> Resolved:
        """What the names of a column mean here."""
        names = column.drop_nulls().unique(maintain_order=True)
        bare = names.filter(~names.str.strip_chars().str.contains(PICTURE_NAME))
        ended = names.filter(names.str.strip_chars().str.contains(PICTURE_NAME))
        resolved: dict[str, str] = {}
        unclear: dict[str, list[str]] = {}
        notes = []
        for name in bare.to_list():
            if not self._is_there(name):
                self._note_fit(name, resolved, unclear)
        if resolved:
            notes.append(
                f"{len(resolved)} names have no ending; the one file that each fits is taken."
            )
        sample = ended.head(_SAMPLE).to_list()
        if sample and not any(map(self._is_there, sample)):
            moved: dict[str, str] = {}
            for name in ended.to_list():
                self._note_fit(name, moved, unclear)
            if moved:
                notes.append(
                    f"None of the names is a path in {self.root}; for {len(moved)} of them the "
                    "file of the same name is taken."
                )
            resolved |= moved
        return Resolved(resolved, unclear, notes)

    def _note_fit(self, name: str, resolved: dict[str, str], unclear: dict[str, list[str]]) -> None:
        fits = self._fits(name)
        if len(fits) == 1:
            resolved[name] = fits[0]
        elif fits:
            unclear[name] = fits

    def _key(self, name: str) -> str:
        return make_key(from_address(name), self.prefix)

    def _is_there(self, name: str) -> bool:
        key = self._key(name)
        return bool(key) and "\0" not in key and os.path.lexists(self.root / key)

    def _fits(self, name: str) -> list[str]:
        key = self._key(name)
        base = key.rsplit("/", 1)[-1]
        return self._index.get(key) or self._index.get("\0" + base) or []

    @cached_property
    def _index(self) -> dict[str, list[str]]:
        """Path without ending -> keys; and after a NUL, which no path has, file name with and
        without ending -> keys."""
        index: dict[str, list[str]] = defaultdict(list)
        for path in pictures_below(self.root):
            key = make_key(path)
            stem = key[: -len(next(e for e in EXTENSIONS if key.lower().endswith(e)))]
            index[stem].append(key)
            index["\0" + key.rsplit("/", 1)[-1]].append(key)
            index["\0" + stem.rsplit("/", 1)[-1]].append(key)
        return dict(index)


def with_file_names(frame: pl.DataFrame, column: str) -> tuple[pl.DataFrame, int]:
    """The column with the file names of its addresses, and how many those are."""
    is_url = frame[column].str.contains(_URL_COLUMN).fill_null(False)
    count = int(is_url.sum())
    if count == 0:
        return frame, 0
    names = {name: from_address(name) for name in frame[column].filter(is_url).unique()}
    plain = frame[column].replace(names)
    return frame.with_columns(plain.alias(column)), count
