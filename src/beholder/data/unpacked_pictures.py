"""Pictures inside a table, unpacked into a folder: from there on they are files like any others.

A table is read batch by batch, so that only a few hundred of its pictures are in memory, or one row
group of a Parquet file, or one shard of a Hugging Face data set.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beholder.data.formats import ReadOptions, pictures_inside
from beholder.data.formats.containers import pictures_of
from beholder.data.keys import key_problem
from beholder.data.progress import progress
from beholder.errors import DataError, OutputError

_UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class Unpacked:
    """What `unpack_pictures` did.

    Args:
        written: pictures written now.
        kept: pictures that were there already, with the same content.
    """

    written: int
    kept: int


def unpack_pictures(
    source: Any, folder: str | Path, options: ReadOptions | None = None
) -> Unpacked | None:
    """Write the pictures inside a table into a folder, each under its image key in the table.
    Existing files with the same content are kept, so that an interrupted call can be repeated.

    Args:
        source: whatever `read_annotations` reads except an iterator, since it is read several
            times.
        folder: the image root afterwards; created if it does not exist.
        options: how the table is read.

    Returns:
        None, and nothing is written, if the table has no pictures inside.

    Raises:
        DataError: the table can't be read a second time.
        OutputError: the folder can't be written.
    """
    options = options or ReadOptions()
    if isinstance(source, Iterator):
        raise DataError(
            "An iterator can be read only once, and pictures inside a table are read again.",
            fix="Give a list of its rows.",
        )
    inside = pictures_inside(source, options)
    if inside is None:
        return None
    column, keys = inside
    root = Path(folder)
    seen: set[str] = set()
    written = 0
    pictures = pictures_of(source, column)
    for key, content in zip(progress(keys, "unpacking pictures"), pictures, strict=True):
        if content is None or key in seen or key_problem(key):
            continue
        seen.add(key)
        written += _write(root, key, content)
    shutil.rmtree(root / _UNFINISHED, ignore_errors=True)
    return Unpacked(written, len(seen) - written)


@contextmanager
def pictures_at_hand(
    source: Any, images: str | Path | None, options: ReadOptions | None = None
) -> Iterator[Path | None]:
    """The image root: `images` if it is not None, else a folder with the pictures inside the table
    for as long as the `with` lasts, or None if there are none.

    Raises:
        OutputError: the temporary folder has no room.
    """
    if images is not None or isinstance(source, Iterator):
        yield None if images is None else Path(images)
        return
    with tempfile.TemporaryDirectory(prefix="beholder-pictures-") as folder:
        unpacked = unpack_pictures(source, folder, options)
        yield Path(folder) if unpacked else None


def _write(root: Path, key: str, content: bytes) -> bool:
    """Write a picture unless it is there already.

    A rename makes it appear as a whole; it is not flushed to the disk, which would take ten times
    as
    long: a file damaged by a power cut differs from the table and is written again.
    """
    path = root / key
    try:
        if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
            return False
        temporary = root / _UNFINISHED / "picture"
        for target in (path, temporary):
            target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"Can't unpack the picture {key!r}: {error.strerror or error}.",
            where=str(root),
            fix="Choose a folder that you may write to and that has room.",
        ) from error
    return True
