"""Work that several processes share: each does a contiguous part, all learn of the whole.

No torch is imported by a process that is alone. Values that decide something (stop? save? how many
units?) travel between hosts' memories by gloo, so that no accelerator is waited for; gradients
travel by the device's own way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")


@dataclass(frozen=True)
class Processes:
    """This process among those of a run.

    Args:
        rank: 0 for the main process.
        world_size: how many there are; 1: this one is alone.
        device: the torch.device that it computes on; None: it was not asked for.
    """

    rank: int = 0
    world_size: int = 1
    device: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and shows."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.world_size > 1

    def broadcast(self, value: Item) -> Item:
        """The main process's value, in every process; the others wait for it."""
        if not self.several:
            return value
        import torch
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def all_gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank, in every process; waits for all of them."""
        if not self.several:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def main_first(self, work: Callable[[], Item]) -> Item:
        """Do the same work everywhere, but let the main process finish before the others start:
        what it leaves on the disk is then there for them."""
        if self.is_main:
            result = work()
            self.broadcast(None)
            return result
        self.broadcast(None)
        return work()

    def all_reduce(self, values: Sequence[float]) -> list[float]:
        """The sums of each value over all processes, exact for counts."""
        if not self.several:
            return list(values)
        import torch
        import torch.distributed as dist

        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return [float(value) for value in sums]

    def any(self, *flags: bool) -> list[bool]:
        """For each flag whether it is set in any process."""
        return [value > 0 for value in self.all_reduce([float(flag) for flag in flags])]

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        """Sum each tensor over all processes, in place, without waiting on an accelerator."""
        if not self.several:
            return
        import torch.distributed as dist

        pending = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
        for work in pending:
            work.wait()

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Give every process the main one's values, in place."""
        if not self.several:
            return
        import torch.distributed as dist

        for tensor in tensors:
            dist.broadcast(tensor, src=0)

    def all_gather_rows(self, rows: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """Every process's rows, by rank. `counts`: how many each has, known without asking."""
        if not self.several:
            return [rows]
        import torch
        import torch.distributed as dist

        sent = rows.to(torch.uint8) if rows.dtype == torch.bool else rows
        padded = sent.new_zeros(max(counts), *sent.shape[1:])
        padded[: len(sent)] = sent
        received = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(received, padded)
        return [
            padded_rows[:count].to(rows.dtype)
            for padded_rows, count in zip(received, counts, strict=True)
        ]


ALONE = Processes()


def part_of(items: Sequence[Item], processes: Processes) -> Sequence[Item]:
    """This process's contiguous part; lengths differ by at most one, and some may be empty."""
    rank, size = processes.rank, processes.world_size
    return items[rank * len(items) // size : (rank + 1) * len(items) // size]


def joined_parts(part: list[Item], processes: Processes) -> list[Item]:
    """What all processes have made of their parts, in the order of the whole."""
    return [item for items in processes.all_gather(part) for item in items]
