"""Verdicts of many pictures on this machine: in input order, errors in place, constant memory.

Pictures are decoded by threads ahead of the judge (Pillow releases the interpreter lock while it
decodes), at most a few batches ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from beholder.data.images import EXTENSIONS
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
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)
        elif not path.exists() and any(sign in argument for sign in "*?["):
            anchor = Path(path.anchor) if path.is_absolute() else Path()
            pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else argument
            found = sorted(p for p in anchor.glob(pattern) if p.is_file())
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


def judge_pictures(
    judge: Judge, requests: Iterable[Request], *, batch_size: int = 32, workers: int = 2
) -> Iterator[Outcome]:
    """One outcome per request, in the order of the requests.

    Args:
        batch_size: pictures judged at a time, at least 1.
        workers: decoding threads, at least 1.
    """
    pending: deque[tuple[list[Request], list[Future[np.ndarray | Failure]]]] = deque()
    stream = iter(requests)
    with ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                while len(pending) < 3 and (batch := list(islice(stream, batch_size))):
                    decoded = [pool.submit(_decode, judge, request) for request in batch]
                    pending.append((batch, decoded))
                if not pending:
                    return
                batch, futures = pending.popleft()
                yield from _judge_batch(judge, batch, [future.result() for future in futures])
        finally:
            pool.shutdown(cancel_futures=True)


def _decode(judge: Judge, request: Request) -> np.ndarray | Failure:
    try:
        return judge.prepare(request.path, box=request.box)
    except PictureError as error:
        return Failure(request.name, error.code, error.what)


def _judge_batch(
    judge: Judge, batch: Sequence[Request], decoded: Sequence[np.ndarray | Failure]
) -> Iterator[Outcome]:
    names = [r.name for r, d in zip(batch, decoded, strict=True) if not isinstance(d, Failure)]
    views = [d for d in decoded if not isinstance(d, Failure)]
    verdicts = iter(judge.verdicts(names, views) if views else [])
    for entry in decoded:
        yield entry if isinstance(entry, Failure) else next(verdicts)
