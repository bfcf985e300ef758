"""Several labels in one cell of a table: how they are joined, and taken apart again.

Imports nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable

SEPARATOR = ";"
NONE = "none"
"""The cell of a picture of which no label holds: an empty one says that nobody knows."""


def join_labels(labels: Iterable[str]) -> str:
    """The labels that hold as one text, `blur;noise`; empty where none does."""
    return SEPARATOR.join(labels)


def labels_cell(labels: Iterable[str]) -> str:
    """The same for a cell of a table: `none` where none holds."""
    return join_labels(labels) or NONE


def split_labels(cell: str) -> tuple[str, ...]:
    """The labels in a text of `join_labels` or `labels_cell`."""
    return tuple(label for label in cell.split(SEPARATOR) if label and label != NONE)


def joinable(label: str) -> bool:
    """Whether a label can be one of several that hold at once."""
    return SEPARATOR not in label and label.casefold() != NONE
