"""The picture files below a folder: linked folders too, hidden files never."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from beholder.data.images import EXTENSIONS

_Identity = tuple[int, int]


def shown(name: str) -> bool:
    """Whether a file or folder is not hidden; macOS keeps `._photo.jpg` beside photo.jpg."""
    return not name.startswith(".")


def files_below(root: str | Path) -> Iterator[str]:
    """Paths of all files, relative to `root`, POSIX; of a folder its files first, each sorted.

    Links to folders are followed, unless they lead back to a folder that they are in. Hidden files
    and folders are left out.
    """
    root = os.fspath(root)
    try:
        yield from _files(root, "", frozenset([_identity(root)]))
    except OSError:
        return


def pictures_below(root: str | Path) -> list[str]:
    """The pictures below a folder, by their endings, sorted."""
    return sorted(path for path in files_below(root) if path.lower().endswith(EXTENSIONS))


def _files(folder: str, prefix: str, above: frozenset[_Identity]) -> Iterator[str]:
    with os.scandir(folder) as listing:
        entries = sorted((entry for entry in listing if shown(entry.name)), key=lambda e: e.name)
    folders = []
    for entry in entries:
        if entry.is_dir():
            folders.append(entry)
        elif entry.is_file():
            yield prefix + entry.name
    for entry in folders:
        identity = _identity(entry.path)
        if identity not in above:
            yield from _files(entry.path, f"{prefix}{entry.name}/", above | {identity})


def _identity(folder: str) -> _Identity:
    status = Path(folder).stat()
    return status.st_dev, status.st_ino
