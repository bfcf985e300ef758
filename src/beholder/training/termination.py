"""SIGTERM during a training: remembered, then acted on between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 143


class Termination:
    """Whether SIGTERM has been received."""

    requested = False


class Interrupted(Exception):
    """Raised where the loop may stop, to leave it and save."""


@contextmanager
def termination() -> Iterator[Termination]:
    """Inside the `with`, SIGTERM only sets a flag. Signals belong to the main thread: in any other
    thread nothing changes."""
    terminated = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield terminated
        return

    def request(signum: int, frame: FrameType | None) -> None:
        terminated.requested = True

    before = signal.signal(signal.SIGTERM, request)
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, before)
