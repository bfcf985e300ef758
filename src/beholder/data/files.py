"""Writing files atomically, and hashing them.

Every artefact of the project is written through `atomic_path`: beside its target, flushed to the
disk, then renamed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beholder.errors import OutputError

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
# what libraries that write files themselves make of the operating system's error
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it is flushed and renamed to `target`.

    What is written at the yielded path may be a file or a folder. A folder replaces an existing
    folder of the same name. After an exception nothing is left behind and `target` is as it was.

    Raises:
        OutputError: the folder of `target` can't be made or written, or has no more room.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OutputError(
            f"Can't write {target.name}: {error.strerror or error}.",
            where=str(target.parent),
            fix="Choose a folder that you may write to and that has room.",
        ) from error
    temporary = holder / target.name
    try:
        yield temporary
        _flush_tree(temporary)
        if target.is_dir() and temporary.is_dir():
            target.rename(holder / "replaced")
        temporary.rename(target)
        _flush(target.parent)
    except Exception as error:
        number = _no_room(error)
        if number is None:
            raise
        raise OutputError(
            f"Can't write {target.name}: {os.strerror(number)}.",
            where=str(target.parent),
            fix="Make room, or choose a folder that has more. The same command then goes on: what "
            "was finished before is kept.",
        ) from error
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def _no_room(error: Exception) -> int | None:
    """The number of the operating system's error, if it is that a file can't grow."""
    if isinstance(error, OSError) and error.errno is not None:
        number = error.errno
    else:
        named = _OS_ERROR.search(str(error))
        number = int(named[1]) if named else 0
    return number if number in _NO_ROOM else None


def write_bytes(target: str | Path, content: bytes) -> None:
    """Write `content` to `target` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: str | Path, content: str) -> None:
    """Write `content` to `target` atomically, UTF-8 with `\\n` line ends."""
    write_bytes(target, content.encode("utf-8"))


def write_json(target: str | Path, content: object) -> None:
    """Write `content` to `target` atomically as indented JSON with a final line end."""
    write_text(target, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush_tree(path: Path) -> None:
    if path.is_dir():
        for child in path.rglob("*"):
            if child.is_file():
                _flush(child)
    _flush(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
