"""What a training logs: log.txt, metrics.jsonl, TensorBoard events.

    log.txt         what happened, as text; only ever appended to
    metrics.jsonl   {"time", "stage", "step", "epoch", "split": "train" | "val", name: value, ...},
                    and {..., "split": "alarm", "alarm": what is going wrong, as a sentence};
                    a training line also has "throughput": {name: value}, see `meter.Throughput`
    tensorboard/<stage>/

metrics.jsonl is the exact record: a checkpoint knows how many lines of its stage there were, and
resuming from it drops later ones, so that no line is lost or repeated. Lines of other stages stay.
"time" and "throughput" come from the clock; everything else is the same in every run.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from beholder.data.files import write_text
from beholder.errors import OutputError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS = "metrics.jsonl"
LOG = "log.txt"


class MetricLog:
    """metrics.jsonl and TensorBoard events of one stage.

    Args:
        folder: the run's folder.
        stage: name of the stage, in every line.
        lines: how many lines of this stage to keep; later ones are dropped.
        step: steps made; TensorBoard hides later events of an earlier attempt.
    """

    def __init__(self, folder: Path, stage: str, lines: int, step: int) -> None:
        self._stage = stage
        self.lines = _drop_lines(folder / METRICS, stage, lines)
        self._stream: IO[str] = (folder / METRICS).open("a", encoding="utf-8")
        self._board = _board(folder / "tensorboard" / stage, step)

    def write(
        self,
        split: str,
        step: int,
        epoch: int,
        values: Mapping[str, float],
        throughput: Mapping[str, float] | None = None,
    ) -> None:
        """Append a line. A value that is not finite is written as null: JSON has no NaN."""
        entries: dict[str, object] = {
            name: value if math.isfinite(value) else None for name, value in values.items()
        }
        if throughput is not None:
            entries["throughput"] = dict(throughput)
            for name, value in throughput.items():
                self._board.add_scalar(f"throughput/{name}", value, step)
        self._append(split, step, epoch, entries)
        for name, value in values.items():
            self._board.add_scalar(f"{split}/{name}", value, step)

    def alarm(self, step: int, epoch: int, message: str) -> None:
        """Append an alarm of a task."""
        self._append("alarm", step, epoch, {"alarm": message})

    def _append(self, split: str, step: int, epoch: int, values: Mapping[str, object]) -> None:
        line = {"time": time.time(), "stage": self._stage, "step": step, "epoch": epoch}
        self._stream.write(
            json.dumps({**line, "split": split, **values}, ensure_ascii=False) + "\n"
        )
        self._stream.flush()
        self.lines += 1

    def sync(self) -> None:
        """Flush all lines to the disk."""
        os.fsync(self._stream.fileno())
        self._board.flush()

    def close(self) -> None:
        self._stream.close()
        self._board.close()


def epoch_means(folder: Path, stage: str, epoch: int) -> dict[str, float] | None:
    """Means of the training values of one epoch's lines in metrics.jsonl; None if it has none.

    A line's values are means since the line before it, which may have been of the epoch before.
    """
    values: dict[str, list[float]] = {}
    for text in (folder / METRICS).read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if (line["stage"], line["split"], line["epoch"]) == (stage, "train", epoch):
            for name, value in line.items():
                if isinstance(value, float) and name != "time":
                    values.setdefault(name, []).append(value)
    return {name: sum(series) / len(series) for name, series in values.items()} or None


@contextmanager
def log_file(folder: Path) -> Iterator[None]:
    """Inside the `with`, `beholder`'s loggers also write to the folder's log.txt, with the time.

    Raises:
        OutputError: the folder can't be written.
    """
    logger = logging.getLogger("beholder")
    target = folder / LOG
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(target, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"Can't write {LOG}: {error.strerror}.", where=str(folder)) from error
    if any(_writes_to(other, target) for other in logger.handlers):
        handler.close()
        yield
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(logger.level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


def _writes_to(handler: logging.Handler, target: Path) -> bool:
    return (
        isinstance(handler, logging.FileHandler) and Path(handler.baseFilename) == target.absolute()
    )


def _drop_lines(path: Path, stage: str, lines: int) -> int:
    """Keep the first `lines` lines of `stage` and all of other stages; how many of `stage` are
    left.

    A last line that a kill cut short is dropped too.
    """
    if not path.exists():
        return 0
    text = path.read_text(encoding="utf-8")
    kept, kept_of_stage = [], 0
    for line in text.split("\n")[:-1]:  # what follows the last line end was cut short
        try:
            of_stage = json.loads(line)["stage"] == stage
        except ValueError:
            continue
        if of_stage and kept_of_stage >= lines:
            continue
        kept_of_stage += of_stage
        kept.append(line + "\n")
    if "".join(kept) != text:
        write_text(path, "".join(kept))
    return kept_of_stage


def _board(folder: Path, step: int) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
