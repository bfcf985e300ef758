"""Verdicts of any number of pictures into a file that can be resumed: every picture once, in
order, whatever happens in between. The file itself: see `batch.output`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from beholder.batch.layouts import layout_of
from beholder.batch.output import (
    Lines,
    Parts,
    Sink,
    check_output,
    claim,
    write_quarantine,
    writing,
)
from beholder.data.progress import ProgressBar
from beholder.judge.runner import Request, Watch, judge_pictures
from beholder.judge.verdict import Judged

if TYPE_CHECKING:
    from beholder.judge import Judge

CHUNK = 1024  # verdicts between two flushes, and of a part, at most
SECONDS = 20.0  # between two flushes, at most: a crash costs no more work than that


@dataclass(frozen=True)
class Summary:
    """What has been done.

    Args:
        pictures: all that were asked for; `before` of them by an earlier call.
        failed: those that could not be judged, of all.
        seconds: of this call.
        busy: share of this call's time in which the networks ran, 0 to 1.
        waiting: share in which they waited for a picture to be decoded, 0 to 1.
    """

    pictures: int
    before: int
    failed: int
    seconds: float
    busy: float
    waiting: float

    def __str__(self) -> str:
        now = self.pictures - self.before
        rate = now / self.seconds if self.seconds else 0.0
        earlier = f", {self.before:,} of them before" if self.before else ""
        return (
            f"{self.pictures:,} pictures{earlier}; {self.failed:,} could not be judged; "
            f"{rate:.1f} pictures/s, the networks busy {self.busy:.0%} of the time, "
            f"waiting for pictures {self.waiting:.0%}"
        )


def judge_to_file(
    judge: Judge,
    requests: Sequence[Request],
    path: str | Path,
    *,
    identity: str,
    batch_size: int = 16,
    workers: int | None = None,
    images: Path | None = None,
) -> Summary:
    """Judge pictures into `path`, from where an earlier call has stopped.

    Args:
        path: ends with `.jsonl` or `.parquet`.
        identity: tells the judge from all others, as `identity_of` does.
        workers: decoding threads; None: one per core.
        images: folder that the names of a list start from, which is a part of what the work is.

    Raises:
        OutputError: the place can't be written, has another ending, or belongs to other work.
    """
    path = Path(path)
    check_output(path, "local")
    with writing(path):
        layout = layout_of(claim(path, identity, requests, images=images).format)
        sink: Sink = Lines(path, layout)
        if path.suffix == ".parquet":
            sink = Parts(path, judge.classes, layout)
        before = sink.open([request.name for request in requests])
    watch = Watch()
    clock = time.perf_counter()
    left = islice(requests, before, None)
    verdicts = judge_pictures(
        judge, left, batch_size=batch_size, workers=workers, watch=watch, trusted=before > 0
    )
    with ProgressBar("judging", total=len(requests) - before) as bar:
        for chunk in _chunks(verdicts, bar):
            with writing(path):
                sink.write(chunk)
    seconds = time.perf_counter() - clock
    with writing(path):
        failed = write_quarantine(path, sink)
    return Summary(len(requests), before, failed, seconds, *watch.shares(seconds))


def _chunks(verdicts: Iterable[Judged], bar: ProgressBar) -> Iterator[list[Judged]]:
    chunk: list[Judged] = []
    begun = time.monotonic()
    for judged in verdicts:
        chunk.append(judged)
        bar.advance()
        if len(chunk) == CHUNK or time.monotonic() - begun >= SECONDS:
            yield chunk
            chunk, begun = [], time.monotonic()
    if chunk:
        yield chunk
