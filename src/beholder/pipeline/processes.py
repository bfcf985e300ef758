"""A run under torchrun: extraction, training and evaluation are shared out; all else is done by the
first process, while the others wait.

Alone, nothing of torch is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from beholder.training.distributed import Processes as Group

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those of the run; `group` is None when it is alone."""

    group: Group | None

    @property
    def first(self) -> bool:
        return self.group is None or self.group.first

    @property
    def rank(self) -> int:
        return 0 if self.group is None else self.group.rank

    @property
    def size(self) -> int:
        return 1 if self.group is None else self.group.size

    def from_all(self, value: Any) -> list[Any]:
        """Every process's value, by rank, in every process."""
        return [value] if self.group is None else self.group.from_all(value)

    def from_first(self, value: T) -> T:
        """The first process's value in every process; the others wait for it."""
        return value if self.group is None else self.group.from_first(value)

    def first_then_others(self, work: Callable[[], T]) -> T:
        """Do the same work everywhere, but let the first process finish before the others start:
        what it leaves on the disk is then there for them."""
        if self.first:
            result = work()
            self.from_first(None)
            return result
        self.from_first(None)
        return work()


def current_processes() -> Processes:
    """Join the other processes when torchrun has started this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(None)
    from beholder.training.distributed import start

    return Processes(start())
