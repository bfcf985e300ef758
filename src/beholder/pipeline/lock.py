"""One process per run folder.

A POSIX record lock: the kernel drops it when its process ends, however it ends, and forked
loader workers do not inherit it. A lock file left by a dead process therefore blocks nobody.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beholder.errors import OutputError, RunError


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder.

    Raises:
        RunError: a living process holds it.
        OutputError: the folder can't be made or written.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(
            f"The run folder can't be written: {error.strerror or error}.",
            where=str(folder),
            fix="Choose a folder that you may write to, with --into FOLDER.",
        ) from error
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            raise RunError(
                f"Another process ({holder or 'unknown'}) is working in this run folder.",
                where=str(folder),
                fix="Wait for it, stop it, or choose another folder with --into FOLDER.",
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
