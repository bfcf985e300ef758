"""Reports of unexpected errors: a file for the bug report, and one sentence.

Little more than the standard library: it must work when nothing else does.
"""

from __future__ import annotations

import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from beholder.errors import shortened
from beholder.version import __version__


def describe(error: BaseException) -> str:
    """Type and first line of an error, without terminal control characters."""
    try:
        plain = shortened(error)
    except Exception as worse:  # noqa: BLE001  # an error that can't even say what it is
        plain = f"(its message fails: {type(worse).__name__})"
    return f"{type(error).__name__}: {plain}" if plain else type(error).__name__


def write_error_report(error: BaseException, arguments: Sequence[str]) -> Path | None:
    """Write traceback, versions and command to `beholder-error-<time>-*.txt` in the temporary
    folder, else in the working one, to be read by the user alone.

    Args:
        arguments: of the command, without its name.

    Returns:
        The file; None if neither folder can be written to.
    """
    lines = [
        f"beholder {__version__}",
        f"Python {sys.version}",
        platform.platform(),
        f"command: beholder {' '.join(map(ascii, arguments))}",
        "",
        *traceback.format_exception(error),
    ]
    content = "\n".join(line.rstrip("\n") for line in lines) + "\n"
    prefix = time.strftime("beholder-error-%Y%m%d-%H%M%S-")
    for folder in (None, "."):
        try:
            with tempfile.NamedTemporaryFile(
                "w", prefix=prefix, suffix=".txt", dir=folder, encoding="utf-8",
                errors="backslashreplace", delete=False,
            ) as stream:  # fmt: skip
                stream.write(content)
            return Path(stream.name).absolute()
        except OSError:
            continue
    return None
