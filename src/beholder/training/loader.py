"""Which pictures a step sees, and how they are loaded.

The order of an epoch is a function of (seed, epoch) and, if it is balanced, the pictures' shares; a
step's pictures are the next `batch_size * accumulate` of it, its micro-batches the next
`batch_size` of those, and each process takes its contiguous part of every micro-batch. Loading is
by index batches, so that one call of `BatchSource.load` may read many rows at once, with or without
worker processes, and starts at any step of any epoch without going through those before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from beholder.data.sharing import ALONE, Processes, part_of
from beholder.errors import BeholderError, DataError
from beholder.features.workers import load_batches, worker_count
from beholder.training.config import TrainConfig

Batch = dict[str, Any]


class BatchSource(Protocol):
    """Pictures with their opinions, by row.

    `load` is a function of its arguments and the source alone: what is random in it is drawn from
    (seed, epoch, key), so that order and worker count do not matter. With workers the source is
    used in other processes, which are forked or receive it pickled. `decodes_pictures`, if present
    and true, says that a load takes long enough for `workers: auto` to use some.
    """

    @property
    def keys(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def load(self, indices: Sequence[int], epoch: int) -> Batch: ...

    def balanced_shares(self) -> NDArray[np.float64]:
        """Each row's part of a balanced epoch; only called with `sampling: balanced`."""
        ...


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass of this process.

    `counts_R`: rows of each process R. Where this process has none, `batch` holds one row that
    only keeps it in step with the others.
    """

    batch: Batch
    counts_R: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The order of all steps of a training over `rows` pictures.

    `shares` of each row, if they are not all alike, are parts of an epoch.
    """

    rows: int
    batch_size: int
    accumulate: int
    seed: int
    shares: NDArray[np.float64] | None = field(default=None, compare=False)

    @property
    def rows_per_step(self) -> int:
        return self.batch_size * self.accumulate

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.rows // self.rows_per_step)

    def order(self, epoch: int) -> list[int]:
        """The rows in the order of `epoch`, from 0: each once, or by its share, rounded up or
        down by chance."""
        generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        order = generator.permutation(self.rows)
        if self.shares is not None:
            # each row has a stretch of a line as long as its share; evenly spaced points draw rows
            ends = np.cumsum(self.shares[order])
            points = (np.arange(self.rows) + generator.random()) * (ends[-1] / self.rows)
            drawn = np.searchsorted(ends, points, side="right").clip(max=self.rows - 1)
            order = generator.permutation(order[drawn])
        return [int(row) for row in order]

    def steps(self, first: int, last: int) -> Iterator[tuple[int, list[list[int]]]]:
        """Epoch and micro-batches of each step from `first` up to, without, `last`."""
        order: list[int] = []
        for step in range(first, last):
            epoch, within = divmod(step, self.steps_per_epoch)
            if within == 0 or not order:
                order = self.order(epoch)
            rows = order[within * self.rows_per_step : (within + 1) * self.rows_per_step]
            size = self.batch_size
            yield epoch, [rows[at : at + size] for at in range(0, len(rows), size)]


class Loader:
    """Batches of a source for this process, for training by plan and for going through in order.

    Raises:
        DataError: the source is empty, or `batch_size` is below the number of processes.
    """

    def __init__(self, source: BatchSource, config: TrainConfig, processes: Processes) -> None:
        if len(source) == 0:
            raise DataError("There is no picture in the data.", fix="Check the split of the table.")
        if config.batch_size < processes.world_size:
            raise DataError(
                f"A batch of {config.batch_size} can't be shared by {processes.world_size} "
                "processes.",
                where="training.batch_size",
                fix=f"Set it to {processes.world_size} or more.",
            )
        self._source = source
        self._config = config
        self._processes = processes

    @property
    def pictures(self) -> int:
        """The number of pictures in the source."""
        return len(self._source)

    @cached_property
    def plan(self) -> Plan:
        """The order of training.

        Raises:
            DataError: sampling is balanced, and nothing is labelled.
        """
        config, source = self._config, self._source
        shares = source.balanced_shares() if config.sampling == "balanced" else None
        return Plan(len(source), config.batch_size, config.accumulate, config.seed, shares)

    def steps(self, first: int, last: int) -> Iterator[list[MicroBatch]]:
        """The micro-batches of each step from `first` up to, without, `last`."""
        batches = self.load(self._requests(first, last))
        for _, parts_MR in self._parts(first, last):
            counts_MR = [tuple(len(part) for part in part_R) for part_R in parts_MR]
            yield [MicroBatch(next(batches), counts_R) for counts_R in counts_MR]

    def _parts(self, first: int, last: int) -> Iterator[tuple[int, list[list[list[int]]]]]:
        """Epoch and rows of each micro-batch M and process R, step by step."""
        ranks = range(self._processes.world_size)
        for epoch, micro_batches in self.plan.steps(first, last):
            yield (
                epoch,
                [
                    [list(part_of(rows, Processes(rank, len(ranks)))) for rank in ranks]
                    for rows in micro_batches
                ],
            )

    def _requests(self, first: int, last: int) -> Iterator[tuple[int, list[int]]]:
        """What this process loads, micro-batch by micro-batch; never empty, see `MicroBatch`."""
        for epoch, parts_MR in self._parts(first, last):
            for part_R in parts_MR:
                nonempty = next(part for part in part_R if part)
                yield epoch, part_R[self._processes.rank] or nonempty[:1]

    def in_order(self, processes: Processes = ALONE) -> Iterator[Batch]:
        """Batches over all rows in the source's order, as in epoch 0; where several
        processes share them, this one's part."""
        rows, size = range(len(self._source)), self._config.batch_size
        batches = [(0, list(rows[at : at + size])) for at in range(0, len(rows), size)]
        requests = part_of(batches, processes)
        return self.load(requests, at_most=len(requests))

    def load(
        self, requests: Iterable[tuple[int, list[int]]], at_most: int | None = None
    ) -> Iterator[Batch]:
        """A batch for each (epoch, rows), from worker processes, of which at most `at_most`."""
        device = self._processes.device
        decodes = getattr(self._source, "decodes_pictures", False)
        workers = worker_count(self._config.workers, device, decodes=decodes)
        workers = min(workers, at_most or workers)
        loader = load_batches(_Requests(self._source), requests, workers, device)
        for batch in loader:
            if isinstance(batch, _Failure):
                raise batch.rebuild()
            yield batch


def to_device(value: Any, device: torch.device) -> Any:
    """Move all tensors in nested dicts and lists, without waiting."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: to_device(entry, device) for name, entry in value.items()}
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], Tensor):
        return type(value)(to_device(entry, device) for entry in value)
    return value


@dataclass(frozen=True)
class _Failure:
    """A user's error on its way from a worker: exceptions with keyword arguments can't be
    pickled."""

    kind: type[BeholderError]
    facts: dict[str, Any]

    def rebuild(self) -> BeholderError:
        error = self.kind.__new__(self.kind, self.facts["what"])
        error.__dict__.update(self.facts)
        return error


class _Requests(Dataset[Any]):
    def __init__(self, source: BatchSource) -> None:
        self._source = source

    def __getitem__(self, request: Any) -> Batch | _Failure:
        epoch, rows = request
        try:
            return self._source.load(rows, epoch)
        except BeholderError as error:
            return _Failure(type(error), dict(error.__dict__))
