"""Work that several processes share: each does a contiguous part, all learn of the whole.

No torch: what the processes exchange by is behind `Group`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")


class Group(Protocol):
    """This process among others; `beholder.training.distributed.Processes` is one."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def from_all(self, value: Any) -> list[Any]:
        """Every process's value, by rank, in every process; waits for all of them."""
        ...


class Alone:
    """The only process."""

    rank, size = 0, 1

    def from_all(self, value: Any) -> list[Any]:
        return [value]


ALONE = Alone()


def part_of(items: Sequence[Item], group: Group) -> Sequence[Item]:
    """This process's contiguous part; lengths differ by at most one, and some may be empty."""
    rank, size = group.rank, group.size
    return items[rank * len(items) // size : (rank + 1) * len(items) // size]


def joined_parts(own: list[Item], group: Group) -> list[Item]:
    """What all processes have made of their parts, in the order of the whole."""
    return [item for part in group.from_all(own) for item in part]
