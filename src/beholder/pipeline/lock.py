"""One process per run folder.

The kernel drops the lock when its process ends, however it ends, and forked loader workers give it
up. A lock file left by a dead process therefore blocks nobody.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from beholder.errors import OutputError, RunError


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder.

    Raises:
        RunError: a living process holds it.
        OutputError: the folder can't be made or written.
    """
    path = folder / ".lock"
    lock = FileLock(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        holder = path.read_text("utf-8", errors="replace").strip()
        raise RunError(
            f"Another process ({holder or 'unknown'}) is working in this run folder.",
            where=str(folder),
            fix="Wait for it, stop it, or choose another folder with --into FOLDER.",
        ) from error
    except OSError as error:
        raise OutputError(
            f"The run folder can't be written: {error.strerror or error}.",
            where=str(folder),
            fix="Choose a folder that you may write to, with --into FOLDER.",
        ) from error
    try:
        path.write_text(f"{os.getpid()}\n", "utf-8")
        yield
    finally:
        lock.release()
