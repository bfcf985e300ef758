"""Out-of-memory errors as user errors: what needed the memory, and what reduces it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from beholder.errors import OutOfMemory

# Accelerators without an error class of their own, the allocator of the CPU, Linux, Windows.
_SIGNS = ("out of memory", "DefaultCPUAllocator", "can't allocate memory", "not enough memory")


@contextmanager
def memory_guard(work: str, device: torch.device, *, where: str, fix: str) -> Iterator[None]:
    """Turn a failed allocation inside the `with` into a user error.

    Args:
        work: what was being done, e.g. "Training".
        where: the option that determines how much memory it needs.
        fix: what to lower or to switch on.

    Raises:
        OutOfMemory: the device, or the host, has no room left.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        first_line = next(iter(str(error).splitlines()), "").strip()
        detail = f" ({first_line[:200]})" if first_line else ""
        raise OutOfMemory(
            f"{work} has run out of memory on {device}{detail}.", where=where, fix=fix
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory of a device or the host could not be allocated."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
