"""What a user can say about how a table is to be read. By default everything is found out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from beholder.errors import DataError

SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "blank": " "}
"""Separators by name, for command lines on which a tab is hard to type."""


@dataclass(frozen=True)
class ReadOptions:
    """How to read a table; every field has a default that finds it out.

    Args:
        format: one of `FORMATS`, or "auto": recognised from the content, never from the name.
        columns: role -> column, e.g. `{"image": "file", "score": "rating", "attribute.style":
            "style"}`; what is not named is found.
        header: False: the first line is a row already; None: found out.
        separator: between the fields of a text file, a sign or one of `SEPARATORS`.
        encoding: of a text file, a name Python knows.
        root: what absolute names of pictures start with; it is taken off. Default: `images`.
        images: the folder of the pictures; names without an ending are looked for in it.
        attribute: what the classes of a folder per class are classes of.
        score_range: lowest and highest score that raters could give; by default what the format
            knows.
        lower_is_better: scores say how bad pictures are (a DMOS): they are turned over within
            their scale, so that more is better.
        codebook: file with the names of the attributes' values, see `data.formats.codebook`.
    """

    format: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    header: bool | None = None
    separator: str | None = None
    encoding: str | None = None
    root: str | Path | None = None
    images: str | Path | None = None
    attribute: str = "class"
    score_range: tuple[float, float] | None = None
    lower_is_better: bool = False
    codebook: str | Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", dict(self.columns or {}))
        separator = self.separator
        if separator is not None:
            separator = SEPARATORS.get(separator.casefold(), separator)
            if len(separator) != 1 or separator in '"\r\n':
                raise DataError(
                    f"{self.separator!r} can't separate fields.",
                    where="separator",
                    fix=f"Give one sign, or {', '.join(SEPARATORS)}.",
                )
            object.__setattr__(self, "separator", separator)
        if self.score_range is not None:
            low, high = self.score_range
            if not low < high:
                raise DataError(
                    f"A scale from {low:g} to {high:g} has no room for scores.",
                    where="scale",
                    fix="Give the lowest score first, then the highest, e.g. 1 5.",
                )

    @property
    def prefix(self) -> str | None:
        """What absolute names start with."""
        base = self.root if self.root is not None else self.images
        return None if base is None else str(base)


def columns_from(pairs: Sequence[str]) -> dict[str, str]:
    """`role=column` of a command line, repeated.

    Raises:
        DataError: no `=`, or a role twice.
    """
    columns: dict[str, str] = {}
    for pair in pairs:
        role, equals, column = pair.partition("=")
        if not equals or not role.strip():
            raise DataError(
                f"{pair!r} names no column.",
                where="--columns",
                fix="Write role=column, e.g. --columns image=file --columns score=mos",
            )
        if role.strip() in columns:
            raise DataError(f"The role {role.strip()!r} is given twice.", where="--columns")
        columns[role.strip()] = column
    return columns
