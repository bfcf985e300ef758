"""The files that verdicts of many pictures go to, and what lies beside them.

`verdicts.jsonl` grows by whole lines and is flushed to the disk chunk by chunk; what a crash has
left of a line is cut off before work is resumed. `verdicts.parquet` is a folder of parts, each
written at once. Beside it lies `<name>.state.json`: which judge and which pictures it belongs to,
so that no other work is ever resumed by mistake; and every row that is there must be of the picture
that was asked for in its place. The pictures that could not be judged are in their
places, and together in `<name>.quarantine.csv` at the end. What a row holds: `batch.layouts`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from beholder.batch.layouts import Classes, CurrentLayout, Format, Layout
from beholder.data.files import atomic_path, sha256_file, write_json, write_text
from beholder.errors import OutputError
from beholder.judge.runner import Request
from beholder.judge.runtime.backends import DEFAULT, Backend
from beholder.judge.verdict import Judged

Engine = Literal["local", "ray"]


class State(BaseModel):
    """Whose work an output is, as it lies beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format = Field(3, description="of state and rows: `batch.layouts`")
    judge: str = Field(description="what tells it from all others: `identity_of`")
    pictures: str = Field(description="hash of their names and boxes, in order")
    images: str | None = Field(
        None, description="folder that the names of a list start from; None: names are paths"
    )
    engine: Engine = "local"
    rows: int | None = Field(None, ge=1, description="of every part but the last; None: any number")

    def compared(self, other: State) -> dict[str, bool]:
        """What must be the same for both to be one work, and whether it is."""
        return {
            "judge or backend": self.judge == other.judge,
            "list of pictures": self.pictures == other.pictures,
            # format 1 did not know it
            "folder of pictures (--images)": other.format == 1 or self.images == other.images,
            "engine": self.engine == other.engine,
        }


def identity_of(model: str | Path, backend: Backend | None = None) -> str:
    """What tells a judge from all others: the hash of its file, or of the card in its folder, which
    holds those of all its files; and what runs it, as other backends differ in the last digits."""
    model = Path(model)
    file = sha256_file(model / "judge.json" if model.is_dir() else model)
    return f"{file} {backend}" if backend not in (None, DEFAULT) else file


class Sink(Protocol):
    """A file of verdicts that grows."""

    def open(self, names: Sequence[str]) -> int:
        """Cut off what is not whole; how many verdicts there are.

        Args:
            names: of all pictures of the work, in order.

        Raises:
            OutputError: what is there is not of these pictures, in this order.
        """
        ...

    def write(self, verdicts: Sequence[Judged]) -> None:
        """Append them: all are on the disk, or, after a crash, none or the first few."""
        ...

    def failures(self) -> Iterator[tuple[str, str, str]]:
        """Image, code and message of all that could not be judged."""
        ...


class Lines:
    """JSON lines, as `beholder judge --format jsonl` prints them."""

    def __init__(self, path: Path, layout: Layout | None = None) -> None:
        self.path = path
        self.layout = layout or CurrentLayout()

    def open(self, names: Sequence[str]) -> int:
        with self.path.open("a+b") as stream:
            stream.seek(0)
            whole = count = 0
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                count += 1
                if count > len(names) or _image_of(line) != names[count - 1]:
                    raise _misplaced(self.path, f"Line {count}", names[count - 1 :])
            stream.truncate(whole)
        return count

    def write(self, verdicts: Sequence[Judged]) -> None:
        rows = map(self.layout.line, verdicts)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        with self.path.open("ab") as stream:
            stream.write("".join(lines).encode())
            stream.flush()
            os.fsync(stream.fileno())

    def failures(self) -> Iterator[tuple[str, str, str]]:
        with self.path.open(encoding="utf-8") as stream:
            for line in stream:
                row = json.loads(line)
                if "error" in row:
                    yield row["image"], row["error"]["code"], row["error"]["message"]


class Parts:
    """A folder of Parquet files, a row per picture.

    Args:
        classes: attribute -> labels, of the judge.
    """

    def __init__(self, path: Path, classes: Classes, layout: Layout | None = None) -> None:
        self.path = path
        self.classes = classes
        self.layout = layout or CurrentLayout()
        self._count = 0

    def open(self, names: Sequence[str], rows: int | None = None) -> int:
        """As `Sink.open`.

        Args:
            rows: of every part but the last, so that any may still be missing; None: any number,
                and none is missing before the last.
        """
        self.path.mkdir(exist_ok=True)
        self.clear()
        verdicts = 0
        for count, part in enumerate(self._parts()):
            start = verdicts
            if rows is not None:
                start = rows * int(part.stem.removeprefix("part-"))
            elif part != self.part(count):
                raise _misplaced(self.path, f"{self.part(count).name} is gone; the next one", [])
            images = _images_of(part)
            if not images or images != list(names[start : start + (rows or len(images))]):
                raise _misplaced(self.path, part.name, names[start:])
            verdicts += len(images)
            self._count = count + 1
        return verdicts

    def clear(self) -> None:
        """Remove what a writer that was killed has left of a part."""
        for half in self.path.glob(".part-*"):
            shutil.rmtree(half, ignore_errors=True)
        for tried in self.path.glob(".tried-*"):
            tried.unlink(missing_ok=True)

    def write(self, verdicts: Sequence[Judged]) -> None:
        self.write_part(self._count, verdicts)
        self._count += 1

    def part(self, number: int) -> Path:
        return self.path / f"part-{number:08}.parquet"

    def tried(self, number: int) -> Path:
        """Where it is counted how often a part was begun, until it is there."""
        return self.path / f".tried-{number:08}"

    def write_part(self, number: int, verdicts: Iterable[Judged]) -> None:
        rows = [self.layout.row(judged, self.classes) for judged in verdicts]
        part = io.BytesIO()  # written by us, so that a full disk is told as what it is
        pl.DataFrame(rows, self.layout.schema(self.classes)).write_parquet(part)
        with atomic_path(self.part(number)) as temporary:
            temporary.write_bytes(part.getvalue())

    def failures(self) -> Iterator[tuple[str, str, str]]:
        for part in self._parts():
            frame = pl.read_parquet(part, columns=self.layout.failure_columns())
            yield from self.layout.failures(frame).iter_rows()

    def _parts(self) -> list[Path]:
        return sorted(self.path.glob("part-*.parquet"))


def check_output(path: Path, engine: Engine) -> None:
    """Make sure that verdicts can be written to a file of this name.

    Raises:
        OutputError: it has another ending than those that the engine writes.
    """
    endings = (".parquet",) if engine == "ray" else (".jsonl", ".parquet")
    if path.suffix not in endings:
        raise OutputError(
            f"Verdicts are written as {' or '.join(endings)}"
            f"{' on Ray' if engine == 'ray' else ''}, not as {path.suffix or 'nothing'}.",
            where=str(path),
            fix=f"Let the output end with {' or '.join(endings)}.",
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in words why an output can't be written.

    Raises:
        OutputError: whatever the operating system refused.
    """
    try:
        yield
    except (OSError, OutputError) as error:
        refusal = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(refusal, OSError):
            raise
        reason = refusal.strerror or str(refusal)
        raise OutputError(
            f"The verdicts can't be written: {reason}.",
            where=str(path),
            fix="Make room, or choose a place that you may write to. The same command then "
            "resumes: what was written before is kept.",
        ) from error


def claim(
    path: Path,
    identity: str,
    requests: Sequence[Request],
    *,
    engine: Engine = "local",
    rows: int | None = None,
    images: Path | None = None,
) -> State:
    """Make sure that what is there already belongs to the same judge, pictures and engine.

    Args:
        rows: of every part, for a work that has not begun yet.
        images: folder that the names of a list start from.

    Returns:
        The state that lies there now.

    Raises:
        OutputError: it belongs to other work.
    """
    digest = hashlib.sha256()
    for request in requests:
        digest.update(json.dumps([request.name, request.box]).encode() + b"\n")
    mine = State(
        judge=identity,
        pictures=digest.hexdigest(),
        images=None if images is None else images.absolute().as_posix(),
        engine=engine,
        rows=rows,
    )
    file = _beside(path, "state.json")
    if not file.exists():
        if path.exists():
            raise OutputError(
                "There is something here already, and not a work that can be resumed.",
                where=str(path),
                fix="Choose another output, or remove it.",
            )
        write_json(file, mine.model_dump())
        return mine
    try:
        theirs = State.model_validate_json(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"What tells whose work this is can't be read: {error}.",
            where=str(file),
            fix="Choose another output, or remove this one with its state.",
        ) from error
    differing = [what for what, same in mine.compared(theirs).items() if not same]
    if differing:
        raise OutputError(
            f"The verdicts here are of another {differing[0]}.",
            where=str(path),
            fix=f"Choose another output, or remove it together with {file.name}.",
        )
    return theirs


def write_quarantine(path: Path, sink: Sink) -> int:
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


def _image_of(line: bytes) -> object:
    """What a line says that it is of; None for what is no line of ours."""
    try:
        return json.loads(line)["image"]
    except (ValueError, TypeError, KeyError):
        return None


def _images_of(part: Path) -> list[str]:
    try:
        return pl.read_parquet(part, columns=["image"])["image"].to_list()
    except pl.exceptions.PolarsError as error:
        raise _misplaced(part.parent, part.name, []) from error


def _misplaced(path: Path, what: str, names: Sequence[str]) -> OutputError:
    of = f" that begin with {names[0]}" if names else ""
    return OutputError(
        f"{what} does not hold the verdicts{of} that belong there: the output was changed or "
        "damaged since it was written.",
        where=str(path),
        fix=f"Restore it, or remove it together with {_beside(path, 'state.json').name}: then "
        "all pictures are judged again.",
    )
