"""SIGTERM during a training: remembered, then answered between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 143


class Termination:
    """Whether SIGTERM has come."""

    came = False


class Interrupted(Exception):
    """Raised where the loop may stop, to leave it for saving."""


@contextmanager
def termination() -> Iterator[Termination]:
    """SIGTERM only sets a flag inside the `with`. Signals belong to the main thread: in another
    one nothing changes."""
    noted = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(signum: int, frame: FrameType | None) -> None:
        noted.came = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGTERM, before)
