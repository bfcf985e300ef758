"""How far long work has come: a bar on a terminal, a line per interval in a log.

    for key in progress(keys, "decoding"): ...

    with ProgressBar("training", total=steps, unit="steps") as bar:
        bar.advance(note="loss 0.31")

Both go to stderr, so that what a command prints on stdout can be piped. Showing costs a clock
reading per item, and drawing happens at most ten times a second (a log line: every `interval`
seconds), so hot loops may report every item. No thread is started: loader workers that are forked
while a bar is shown inherit no held lock.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

T = TypeVar("T")

DRAW_SECONDS = 0.1
LOG_SECONDS = 10.0

_hidden = False  # bars that begin now show nothing


def progress(
    iterable: Iterable[T],
    description: str,
    total: int | None = None,
    unit: str = "pictures",
    *,
    interval: float = LOG_SECONDS,
) -> Iterator[T]:
    """Yield the items of `iterable` while showing how many are done, how fast and what is left.

    Args:
        description: what is being done, a few words.
        total: number of items; by default `len(iterable)` where it has one. Without a total, no
            time left is shown.
        unit: what the items are, plural.
        interval: seconds between lines where there is no terminal.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with ProgressBar(description, total=total, unit=unit, interval=interval) as bar:
        for item in iterable:
            yield item
            bar.advance()


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is shown of bars that begin inside the block, nor of log records below errors."""
    global _hidden
    before, _hidden = _hidden, True
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        _hidden = before


@contextmanager
def warnings_only(logger: str) -> Iterator[None]:
    """What a logger is told inside the block and is no warning is left out."""
    chatty = logging.getLogger(logger)
    level = chatty.level
    chatty.setLevel(logging.WARNING)
    try:
        yield
    finally:
        chatty.setLevel(level)


class ProgressBar:
    """Progress that the caller counts; use as a context manager.

    Bars may nest: on a terminal the inner one is drawn below the outer one.

    Args:
        description, total, unit, interval: as for `progress`.
    """

    def __init__(
        self,
        description: str,
        total: int | None = None,
        unit: str = "pictures",
        *,
        interval: float = LOG_SECONDS,
    ) -> None:
        self.description = description
        self.total = total
        self.unit = unit
        self.done = 0
        self.note = ""
        self._interval = interval
        self._screen: Progress | None = None
        self._task: TaskID | None = None
        self._hidden = False
        self._started = self._next = time.monotonic()

    def __enter__(self) -> ProgressBar:
        self._started = time.monotonic()
        self._hidden = _hidden
        if sys.stderr.isatty() and not self._hidden:
            from rich.progress import BarColumn, Progress, TextColumn

            self._interval = DRAW_SECONDS
            self._screen = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[status]}"),
                console=_console(),
                auto_refresh=False,
                # a stdout that is piped must not be diverted to the terminal
                redirect_stdout=sys.stdout.isatty(),
            )
            self._task = self._screen.add_task(
                self.description, total=self.total, status=self._status(self._started)
            )
            self._screen.start()
        self._next = self._started + self._interval
        return self

    def __exit__(self, *error: object) -> None:
        self._show(time.monotonic())
        if self._screen is not None:
            self._screen.stop()

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Say that `count` more items are done; `note` is shown behind the numbers."""
        self.done += count
        if note is not None:
            self.note = note
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._interval
            self._show(now)

    def _show(self, now: float) -> None:
        if self._hidden:
            return
        if self._screen is not None and self._task is not None:
            self._screen.update(self._task, completed=self.done, status=self._status(now))
            self._screen.refresh()
        else:
            print(f"{self.description}: {self._status(now)}", file=sys.stderr, flush=True)

    def _status(self, now: float) -> str:
        """E.g. `1200/5000 pictures (24 %), 85.1 pictures/s, 0:44 left, loss 0.31`."""
        elapsed = now - self._started
        rate = self.done / elapsed if elapsed > 0 else 0.0
        parts = [f"{self.done} {self.unit}"]
        if self.total is not None:
            share = f" ({self.done / self.total:.0%})" if self.total else ""
            parts = [f"{self.done}/{self.total} {self.unit}{share}"]
        if self.done:
            parts.append(_rate(rate, self.unit))
        if self.total is None:
            parts.append(_clock(elapsed))
        elif self.done >= self.total:
            parts.append(f"{_clock(elapsed)} in all")
        elif rate:
            parts.append(f"{_clock((self.total - self.done) / rate)} left")
        return ", ".join([*parts, self.note] if self.note else parts)


@cache
def _console() -> Console:
    """The one console of the process: bars nest that are shown on the same."""
    from rich.console import Console

    return Console(stderr=True)


def _rate(rate: float, unit: str) -> str:
    if rate < 0.1:
        return f"{1 / rate:.1f} s per {unit.removesuffix('s')}" if rate else f"0 {unit}/s"
    return f"{rate:.0f} {unit}/s" if rate >= 100 else f"{rate:.1f} {unit}/s"


def _clock(seconds: float) -> str:
    """`m:ss` or `h:mm:ss`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
