"""Several processes as one: set-up under torchrun, and the few exchanges that training needs.

Values that decide something (stop? save? how many units?) travel between hosts' memories by gloo,
so that no accelerator is waited for; gradients travel by the device's own way.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from beholder.features import device as devices

# rank 0 evaluates while the others wait; a process that dies is noticed at once all the same
TIMEOUT = timedelta(hours=12)


@dataclass(frozen=True)
class Processes:
    """This process among those of the training."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and shows."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.size > 1

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums of each value over all processes, exact for counts."""
        if not self.several:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return [float(value) for value in total]

    def any(self, *flags: bool) -> list[bool]:
        """For each flag whether it is set in any process."""
        return [value > 0 for value in self.sum([float(flag) for flag in flags])]

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Sum each tensor over all processes, in place, without waiting on an accelerator."""
        if self.several:
            pending = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
            for work in pending:
                work.wait()

    def copy_first_(self, tensors: Sequence[Tensor]) -> None:
        """Give every process the first one's values, in place."""
        if self.several:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def from_first(self, value: Any) -> Any:
        """The first process's value, in every process."""
        if not self.several:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def from_all(self, value: Any) -> list[Any]:
        """Every process's value, by rank, in every process."""
        if not self.several:
            return [value]
        boxes: list[Any] = [None] * self.size
        dist.all_gather_object(boxes, value)
        return boxes

    def rows_of_all(self, rows: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """Every process's rows, by rank. `counts`: how many each has, known without asking."""
        if not self.several:
            return [rows]
        sent = rows.to(torch.uint8) if rows.dtype == torch.bool else rows
        padded = sent.new_zeros(max(counts), *sent.shape[1:])
        padded[: len(sent)] = sent
        received = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(received, padded)
        return [piece[:count].to(rows.dtype) for piece, count in zip(received, counts, strict=True)]


def start(device: str | torch.device | None = None) -> Processes:
    """Find out where this process is, join the others when started by torchrun.

    The group stays up for later trainings in the same processes, until they exit.

    Args:
        device: see `features.device.choose_device`.

    Raises:
        DeviceError: the device asked for is not there.
    """
    chosen = devices.choose_device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
        atexit.register(_leave)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if dist.is_initialized():
        return Processes(dist.get_rank(), dist.get_world_size(), chosen)
    return Processes(0, 1, chosen)


def share(rows: list[int], rank: int, size: int) -> list[int]:
    """A process's contiguous part of `rows`; parts differ by at most one row."""
    return rows[rank * len(rows) // size : (rank + 1) * len(rows) // size]


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
