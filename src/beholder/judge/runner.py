"""How pictures become verdicts, for everybody: `Judge([...])`, the commands, the server,
evaluations, and workers on Ray.

Pictures are decoded by threads ahead of the judge (Pillow releases the interpreter lock while it
decodes), at most a few batches ahead, and judged in batches. Verdicts come in input order.

What can't be judged is a `Failure` in its place. A batch on which the networks fail is tried again
in halves, down to single pictures, so that one picture costs no other its verdict. A judge that
fails on all that it gets to see is broken: then its first error is raised.
"""

from __future__ import annotations

import logging
import math
import os
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from beholder.errors import (
    BeholderError,
    DataError,
    MachineError,
    OpinionError,
    OutOfMemory,
    PictureError,
    shortened,
)
from beholder.judge.verdict import Failure, Judged, Verdict

log = logging.getLogger("beholder")

Picture = str | Path | bytes | PIL.Image.Image
Box = tuple[float, ...]
Views = NDArray[np.float32]

INTERNAL = "internal"
BY_THE_JUDGE = (OpinionError.code, OutOfMemory.code, INTERNAL)
"""Codes of failures that are not the picture's own."""
PATIENCE = 32  # pictures on which a judge may fail before its first verdict


class JudgesPictures(Protocol):
    """What the runner needs of a judge."""

    def prepare(self, picture: Picture, box: Box | None = None) -> Views:
        """The network's input [V, 3, H, W]."""
        ...

    def verdicts(self, names: Sequence[str], views: Sequence[Views]) -> list[Verdict]:
        """Verdicts on prepared pictures, all or an error."""
        ...


@dataclass(frozen=True)
class Request:
    """One picture to judge: the name it is reported under, the picture, and an optional box
    `(xmin, ymin, xmax, ymax)` in pixels of the upright picture."""

    name: str
    picture: Picture
    box: Box | None = None

    @property
    def path(self) -> Path:
        """The picture's file."""
        assert isinstance(self.picture, (str, Path)), "the picture is not a file"
        return Path(self.picture)


def name_of(picture: Picture) -> str:
    """What a picture is reported under that nobody has named."""
    if isinstance(picture, PIL.Image.Image):
        return str(getattr(picture, "filename", "") or "picture")
    if isinstance(picture, bytes):
        return "picture"
    return str(picture)


def checked_box(box: Any) -> Box:
    """A box that a user gave, as four numbers.

    Raises:
        DataError: it is not [xmin, ymin, xmax, ymax] with xmin < xmax and ymin < ymax.
    """
    try:
        left, top, right, bottom = (float(edge) for edge in box)
    except (TypeError, ValueError):
        left = top = right = bottom = math.nan
    if not (left < right and top < bottom) or not all(
        map(math.isfinite, (right - left, bottom - top))
    ):
        raise DataError(
            f"The box {shortened(repr(box), 80)} is not usable.",
            fix="A box is xmin, ymin, xmax, ymax in pixels of the upright picture, with "
            "xmin < xmax and ymin < ymax.",
        )
    return left, top, right, bottom


def boxes_of(pictures: Sequence[object], boxes: Any) -> list[Box | None]:
    """A box, or None, for each of the pictures.

    Raises:
        DataError: they are not as many, or one is not four numbers.
    """
    if boxes is None:
        return [None] * len(pictures)
    if len(boxes) != len(pictures):
        raise DataError(
            f"There are {len(boxes)} boxes for {len(pictures)} pictures.",
            fix="Give one for each picture, None where all of it is meant.",
        )
    return [None if box is None else checked_box(box) for box in boxes]


@dataclass
class Watch:
    """Seconds in which the networks ran, and in which they waited for pictures to be decoded."""

    busy: float = 0.0
    waiting: float = 0.0

    def shares(self, seconds: float) -> tuple[float, float]:
        """Of a time, 0 to 1."""
        return (self.busy / seconds, self.waiting / seconds) if seconds else (0.0, 0.0)


def judge_pictures(
    judge: JudgesPictures,
    requests: Iterable[Request],
    *,
    batch_size: int = 32,
    workers: int | None = None,
    watch: Watch | None = None,
    trusted: bool = False,
) -> Iterator[Judged]:
    """A verdict or a failure per request, in the order of the requests.

    Args:
        batch_size: pictures judged at a time, at least 1.
        workers: decoding threads, at least 1; None: one per core.
        watch: is kept up to date.
        trusted: the judge has given verdicts before. One that has not, and fails on all of the
            first `PATIENCE` pictures (or on all that there are), is broken.

    Raises:
        Exception: the first error of a judge that is broken.
    """
    watch = watch or Watch()
    pending: deque[tuple[list[Request], list[Future[Views | Failure]]]] = deque()
    stream = iter(requests)
    doubt = None if trusted else _Doubt()
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        try:
            while True:
                while len(pending) < 3 and (batch := list(islice(stream, batch_size))):
                    decoding = [pool.submit(decode, judge, request) for request in batch]
                    pending.append((batch, decoding))
                if not pending:
                    break
                batch, futures = pending.popleft()
                clock = time.perf_counter()
                decoded = [future.result() for future in futures]
                decoded_at = time.perf_counter()
                judged = _judge_batch(judge, batch, decoded, doubt)
                watch.waiting += decoded_at - clock
                watch.busy += time.perf_counter() - decoded_at
                yield from judged if doubt is None else doubt.released(judged)
        finally:
            pool.shutdown(cancel_futures=True)
    if doubt is not None:
        yield from doubt.rest()


class _Doubt:
    """Holds back what a judge without a single verdict so far has failed on."""

    def __init__(self) -> None:
        self.first_error: Exception | None = None
        self._held: list[Judged] = []
        self._failed = 0
        self._over = False

    def released(self, judged: list[Judged]) -> list[Judged]:
        """What may be told now.

        Raises:
            Exception: the judge is broken.
        """
        if self._over:
            return judged
        self._held += judged
        self._over = any(isinstance(entry, Verdict) for entry in judged)
        self._failed += sum(_failed_by_the_judge(entry) for entry in judged)
        if self._failed >= PATIENCE and not self._over:
            return self.rest()
        if self._failed and not self._over:
            return []
        released, self._held = self._held, []
        return released

    def rest(self) -> list[Judged]:
        """What is left at the end.

        Raises:
            Exception: the judge is broken.
        """
        if self._held and self.first_error is not None:
            raise self.first_error
        return self._held


def _failed_by_the_judge(judged: Judged) -> bool:
    return isinstance(judged, Failure) and judged.code in BY_THE_JUDGE


def decode(judge: JudgesPictures, request: Request) -> Views | Failure:
    """The network's input of a picture [V, 3, H, W], or why it can't be used.

    Raises:
        MachineError: the machine can't read files at the moment.
    """
    try:
        return judge.prepare(request.picture, request.box)
    except PictureError as error:
        return Failure(request.name, error.code, error.what)
    except MachineError:
        raise  # no picture is to blame, and none is to be left out for it
    except Exception as error:  # noqa: BLE001  # one picture costs no other its verdict
        return failure_of(request.name, error)


def _judge_batch(
    judge: JudgesPictures,
    batch: Sequence[Request],
    decoded: Sequence[Views | Failure],
    doubt: _Doubt | None,
) -> list[Judged]:
    names = [r.name for r, d in zip(batch, decoded, strict=True) if not isinstance(d, Failure)]
    views = [d for d in decoded if not isinstance(d, Failure)]
    judged: list[Judged | Exception] = judge_prepared(judge, names, views) if views else []
    errors = [entry for entry in judged if isinstance(entry, Exception)]
    if doubt is not None and doubt.first_error is None and errors:
        doubt.first_error = errors[0]
    rest = iter(
        failure_of(name, entry) if isinstance(entry, Exception) else entry
        for name, entry in zip(names, judged, strict=True)
    )
    return [entry if isinstance(entry, Failure) else next(rest) for entry in decoded]


def judge_prepared(
    judge: JudgesPictures, names: Sequence[str], views: Sequence[Views]
) -> list[Judged | Exception]:
    """Verdicts on prepared pictures, in their order; of a picture on which the judge fails also
    when it is judged alone, its error.

    Args:
        views: of each picture, as `Judge.prepare` gives them [V, 3, H, W]; at least one picture.

    Raises:
        BeholderError: one that no picture is to blame for, e.g. a judge on a device that is lost.
    """
    try:
        return list(judge.verdicts(names, views))
    except BeholderError as error:
        if not isinstance(error, (OpinionError, OutOfMemory)):
            raise
        failed: Exception = error
    except Exception as error:  # noqa: BLE001  # of whatever runs the networks
        failed = error
    _let_go(failed)
    if len(names) == 1:
        return [failed]
    half = len(names) // 2
    first = judge_prepared(judge, names[:half], views[:half])
    return first + judge_prepared(judge, names[half:], views[half:])


def _let_go(error: BaseException | None) -> None:
    """Free what the frames of a failed batch hold: its tensors may be what there is no room for."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def failure_of(name: str, error: Exception) -> Failure:
    """What a user is told of an error; one that is not foreseen goes to the log in full."""
    if isinstance(error, BeholderError):
        return Failure(name, error.code, error.what)
    log.error("The judge failed on %s: %s", name, error, exc_info=error)
    message = f"The judge failed on this picture ({type(error).__name__}); the log says more."
    return Failure(name, INTERNAL, message)
