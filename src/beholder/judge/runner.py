"""Verdicts of many pictures on this machine: in input order, errors in place, constant memory.

Pictures are decoded by threads ahead of the judge (Pillow releases the interpreter lock while it
decodes), at most a few batches ahead.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import polars as pl

from beholder.data.formats import ReadOptions, picture_names
from beholder.data.formats.text import read_text
from beholder.data.images import EXTENSIONS
from beholder.data.keys import make_key
from beholder.data.walk import pictures_below, shown
from beholder.errors import DataError, PictureError
from beholder.judge.verdict import Verdict

if TYPE_CHECKING:
    from beholder.judge import Judge


@dataclass(frozen=True)
class Failure:
    """A picture that could not be judged, and why."""

    image: str
    code: str
    message: str

    def to_dict(self) -> dict[str, object]:
        """One line of `beholder judge --format jsonl`."""
        return {"image": self.image, "error": {"code": self.code, "message": self.message}}


Outcome = Verdict | Failure


@dataclass(frozen=True)
class Request:
    """One picture to judge: the name it is reported under, its file, and an optional box
    `(xmin, ymin, xmax, ymax)` in pixels."""

    name: str
    path: Path
    box: tuple[float, float, float, float] | None = None


def find_pictures(arguments: Sequence[str]) -> list[Request]:
    """Pictures named on the command line: files as given, folders searched (sorted), globs.

    Raises:
        DataError: nothing was named, or a folder or glob holds no picture.
    """
    requests: list[Request] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found = [path / name for name in pictures_below(path)]
        elif not path.exists() and any(sign in argument for sign in "*?["):
            anchor = Path(path.anchor) if path.is_absolute() else Path()
            pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else argument
            found = sorted(p for p in anchor.glob(pattern) if p.is_file() and shown(p.name))
        else:
            requests.append(Request(argument, path))
            continue
        if not found:
            raise DataError(
                "There is no picture here.",
                where=argument,
                fix=f"Name a folder, file or glob with pictures ({', '.join(sorted(EXTENSIONS))}).",
            )
        requests += [Request(str(p), p) for p in found]
    if not requests:
        raise DataError("No picture was named.", fix="Name pictures, folders or globs.")
    return requests


@dataclass
class Watch:
    """Seconds in which the networks ran, and in which they waited for pictures to be decoded."""

    busy: float = 0.0
    waiting: float = 0.0

    def shares(self, seconds: float) -> tuple[float, float]:
        """Of a time, 0 to 1."""
        return (self.busy / seconds, self.waiting / seconds) if seconds else (0.0, 0.0)


class Listed(Sequence[Request]):
    """Requests by names, made as they are asked for: a column of names takes a seventh of the room
    of a list of requests."""

    def __init__(self, names: pl.Series, root: Path) -> None:
        self.names = names
        self.root = root

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> Listed: ...
    def __getitem__(self, index: int | slice) -> Request | Listed:
        if isinstance(index, slice):
            return Listed(self.names[index], self.root)
        name = self.names[index]
        return Request(name, self.root / name)

    def __iter__(self) -> Iterator[Request]:
        return (Request(name, self.root / name) for name in self.names)


def listed_pictures(
    table: Path, root: Path | None = None, reading: ReadOptions | None = None
) -> Listed:
    """Pictures named in a table of any kind, or in a list with a path per line; relative to `root`,
    or else to the file's folder.

    Raises:
        DataError: the file can't be read, or names no picture.
    """
    root = table.parent if root is None else root
    names = _plain_lines(table, root)
    if names is None:
        names, _ = picture_names(table, replace(reading or ReadOptions(), images=root))
        keys = {name: make_key(name, str(root)) for name in names.drop_nulls().unique()}
        names = names.replace(keys)
    blank = (names.fill_null("") == "").arg_true()
    if names.is_empty() or len(blank):
        what = "names no picture" if names.is_empty() else f"has no name in row {blank[0] + 1}"
        raise DataError(f"The list {what}.", where=str(table))
    return Listed(names, root)


def _plain_lines(path: Path, root: Path) -> pl.Series | None:
    """The lines of a text file whose first ones are pictures as they stand, with whatever signs
    separate fields elsewhere; None: it is no such list."""
    if path.suffix.lower() != ".txt" or not path.is_file():
        return None
    try:
        lines = [line.strip() for line in read_text(path).content.split("\n") if line.strip()]
    except OSError:
        return None  # the reader of tables tells why
    if not lines or not all((root / line).is_file() for line in lines[:20]):
        return None
    return pl.Series(lines, dtype=pl.String)


def judge_pictures(
    judge: Judge,
    requests: Iterable[Request],
    *,
    batch_size: int = 32,
    workers: int | None = None,
    watch: Watch | None = None,
) -> Iterator[Outcome]:
    """One outcome per request, in the order of the requests.

    Args:
        batch_size: pictures judged at a time, at least 1.
        workers: decoding threads, at least 1; None: one per core.
        watch: is kept up to date.
    """
    watch = watch or Watch()
    pending: deque[tuple[list[Request], list[Future[np.ndarray | Failure]]]] = deque()
    stream = iter(requests)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        try:
            while True:
                while len(pending) < 3 and (batch := list(islice(stream, batch_size))):
                    decoded = [pool.submit(_decode, judge, request) for request in batch]
                    pending.append((batch, decoded))
                if not pending:
                    return
                batch, futures = pending.popleft()
                clock = time.perf_counter()
                found = [future.result() for future in futures]
                decoded_at = time.perf_counter()
                outcomes = _judge_batch(judge, batch, found)
                watch.waiting += decoded_at - clock
                watch.busy += time.perf_counter() - decoded_at
                yield from outcomes
        finally:
            pool.shutdown(cancel_futures=True)


def _decode(judge: Judge, request: Request) -> np.ndarray | Failure:
    try:
        return judge.prepare(request.path, box=request.box)
    except PictureError as error:
        return Failure(request.name, error.code, error.what)


def _judge_batch(
    judge: Judge, batch: Sequence[Request], decoded: Sequence[np.ndarray | Failure]
) -> list[Outcome]:
    names = [r.name for r, d in zip(batch, decoded, strict=True) if not isinstance(d, Failure)]
    views = [d for d in decoded if not isinstance(d, Failure)]
    verdicts = iter(judge.verdicts(names, views) if views else [])
    return [entry if isinstance(entry, Failure) else next(verdicts) for entry in decoded]
