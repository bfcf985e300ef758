"""Verdicts of any number of pictures into a file that can be gone on with: every picture once, in
order, whatever happens in between.

`verdicts.jsonl` grows by whole lines and is flushed to the disk chunk by chunk; what a crash has
left of a line is cut off before going on. `verdicts.parquet` is a folder of parts, each written at
once. Beside it lies `<name>.state.json`: which judge and which pictures it belongs to, so that
nothing of another work is ever gone on with. The pictures that could not be judged are in their
places, and together in `<name>.quarantine.csv` at the end.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from beholder.data.files import atomic_path, sha256_file, write_json, write_text
from beholder.data.progress import ProgressBar
from beholder.errors import OutputError
from beholder.judge.verdict import Verdict
from beholder.predict.local import Outcome, Request, Watch, judge_pictures

if TYPE_CHECKING:
    from beholder.judge import Judge

CHUNK = 1024  # verdicts between two flushes, and of a part, at most
SECONDS = 20.0  # between two flushes, at most: a crash costs no more work than that
_FORMAT = 1


@dataclass(frozen=True)
class Summary:
    """What has been done.

    Args:
        pictures: all that were asked for; `before` of them by an earlier call.
        failed: those that could not be judged, of all.
        seconds: of this call.
        busy: share of this call's time in which the networks ran, 0 to 1.
    """

    pictures: int
    before: int
    failed: int
    seconds: float
    busy: float

    def __str__(self) -> str:
        now = self.pictures - self.before
        rate = now / self.seconds if self.seconds else 0.0
        earlier = f", {self.before:,} of them before" if self.before else ""
        return (
            f"{self.pictures:,} pictures{earlier}; {self.failed:,} could not be judged; "
            f"{rate:.1f} pictures/s, the networks busy {self.busy:.0%} of the time"
        )


def judge_to_file(
    judge: Judge,
    requests: Sequence[Request],
    path: str | Path,
    *,
    identity: str,
    batch_size: int = 16,
    workers: int | None = None,
) -> Summary:
    """Judge pictures into `path`, from where an earlier call has stopped.

    Args:
        path: ends with `.jsonl` or `.parquet`.
        identity: tells the judge from all others, as `identity_of` does.
        workers: decoding threads; None: one per core.

    Raises:
        OutputError: the place can't be written, has another ending, or belongs to other work.
    """
    path = Path(path)
    sink = _sink(path, judge)
    _claim(path, identity, requests)
    before = sink.open()
    watch = Watch()
    clock = time.perf_counter()
    left = islice(requests, before, None)
    outcomes = judge_pictures(judge, left, batch_size=batch_size, workers=workers, watch=watch)
    with ProgressBar("judging", total=len(requests) - before) as bar:
        for chunk in _chunks(outcomes, bar):
            sink.write(chunk)
    seconds = time.perf_counter() - clock
    failed = _write_quarantine(path, sink)
    busy = watch.busy / seconds if seconds else 0.0
    return Summary(len(requests), before, failed, seconds, busy)


def identity_of(model: str | Path) -> str:
    """What tells a judge from all others: the hash of its file, or of the card in its folder, which
    holds those of all its files."""
    model = Path(model)
    return sha256_file(model / "judge.json" if model.is_dir() else model)


class _Sink(Protocol):
    """A file of verdicts that grows."""

    def open(self) -> int:
        """Cut off what is not whole; how many verdicts there are."""
        ...

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Append them: all are on the disk, or, after a crash, none or the first few."""
        ...

    def failures(self) -> Iterator[tuple[str, str, str]]:
        """Image, code and message of all that could not be judged."""
        ...


class _Lines:
    """JSON lines, as `beholder judge --format jsonl` prints them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> int:
        with self.path.open("a+b") as stream:
            stream.seek(0)
            whole = count = 0
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                count += 1
            stream.truncate(whole)
        return count

    def write(self, outcomes: Sequence[Outcome]) -> None:
        lines = [json.dumps(outcome.to_dict(), ensure_ascii=False) + "\n" for outcome in outcomes]
        with self.path.open("ab") as stream:
            stream.write("".join(lines).encode())
            stream.flush()
            os.fsync(stream.fileno())

    def failures(self) -> Iterator[tuple[str, str, str]]:
        with self.path.open(encoding="utf-8") as stream:
            for line in stream:
                found = json.loads(line)
                if "error" in found:
                    yield found["image"], found["error"]["code"], found["error"]["message"]


class _Parts:
    """A folder of Parquet files, a row per picture: `image`, `score`, `low`, `high`, `comment`,
    `attribute.<name>`, `probability.<name>`, `error_code`, `error`."""

    def __init__(self, path: Path, attributes: Sequence[str]) -> None:
        self.path = path
        self.attributes = attributes
        self.schema: dict[str, Any] = {
            "image": pl.String(), "score": pl.Float64(), "low": pl.Float64(), "high": pl.Float64(),
            "comment": pl.String(),
            **{f"attribute.{name}": pl.String() for name in attributes},
            **{f"probability.{name}": pl.Float64() for name in attributes},
            "error_code": pl.String(), "error": pl.String(),
        }  # fmt: skip
        self._parts: list[Path] = []

    def open(self) -> int:
        self.path.mkdir(exist_ok=True)
        for half in self.path.glob(".part-*"):  # of a part that was being written
            shutil.rmtree(half)
        self._parts = sorted(self.path.glob("part-*.parquet"))
        counts = [pl.scan_parquet(part).select(pl.len()).collect().item() for part in self._parts]
        return sum(counts)

    def write(self, outcomes: Sequence[Outcome]) -> None:
        rows = [self._row(outcome) for outcome in outcomes]
        part = self.path / f"part-{len(self._parts):08}.parquet"
        with atomic_path(part) as temporary:
            pl.DataFrame(rows, self.schema, orient="row").write_parquet(temporary)
        self._parts.append(part)

    def failures(self) -> Iterator[tuple[str, str, str]]:
        for part in self._parts:
            frame = pl.read_parquet(part, columns=["image", "error_code", "error"])
            yield from frame.drop_nulls("error_code").iter_rows()

    def _row(self, outcome: Outcome) -> list[object]:
        if not isinstance(outcome, Verdict):
            blank = [None] * (len(self.schema) - 3)
            return [outcome.image, *blank, outcome.code, outcome.message]
        found = [outcome.attributes[name] for name in self.attributes]
        return [
            outcome.image,
            outcome.score,
            *(outcome.interval or (None, None)),
            outcome.comment,
            *[one.label for one in found],
            *[one.probability for one in found],
            None,
            None,
        ]


def _sink(path: Path, judge: Judge) -> _Sink:
    if path.suffix == ".jsonl":
        return _Lines(path)
    if path.suffix == ".parquet":
        return _Parts(path, list(judge.classes))
    raise OutputError(
        f"Verdicts are written as .jsonl or .parquet, not as {path.suffix or 'nothing'}.",
        where=str(path),
        fix="Give the output one of these endings.",
    )


def _claim(path: Path, identity: str, requests: Sequence[Request]) -> None:
    """Make sure that what is there already belongs to the same judge and pictures."""
    digest = hashlib.sha256()
    for request in requests:
        digest.update(json.dumps([request.name, request.box]).encode() + b"\n")
    mine = {"format": _FORMAT, "judge": identity, "pictures": digest.hexdigest()}
    state = _beside(path, "state.json")
    if not state.exists():
        if path.exists():
            raise OutputError(
                "There is something here already, and not a work that could be gone on with.",
                where=str(path),
                fix="Choose another output, or remove it.",
            )
        write_json(state, mine)
        return
    try:
        theirs = json.loads(state.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"What tells whose work this is can't be read: {error}.",
            where=str(state),
            fix="Choose another output, or remove this one with its state.",
        ) from error
    if theirs != mine:
        what = "judge" if theirs.get("judge") != identity else "list of pictures"
        raise OutputError(
            f"The verdicts here are of another {what}.",
            where=str(path),
            fix=f"Choose another output, or remove it together with {state.name}.",
        )


def _write_quarantine(path: Path, sink: _Sink) -> int:
    """Write what could not be judged; how many pictures that are."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "code", "reason"])
    count = 0
    for row in sink.failures():
        writer.writerow(row)
        count += 1
    write_text(_beside(path, "quarantine.csv"), table.getvalue())
    return count


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


def _chunks(outcomes: Iterable[Outcome], bar: ProgressBar) -> Iterator[list[Outcome]]:
    chunk: list[Outcome] = []
    begun = time.monotonic()
    for outcome in outcomes:
        chunk.append(outcome)
        bar.advance()
        if len(chunk) == CHUNK or time.monotonic() - begun >= SECONDS:
            yield chunk
            chunk, begun = [], time.monotonic()
    if chunk:
        yield chunk
