"""Out of memory as a sentence: what was too large, and what makes it smaller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from beholder.errors import OutOfMemory

# Accelerators without an error class of their own, the allocator of the CPU, Linux, Windows.
_SIGNS = ("out of memory", "DefaultCPUAllocator", "can't allocate memory", "not enough memory")


@contextmanager
def memory_guard(work: str, device: torch.device, *, where: str, fix: str) -> Iterator[None]:
    """Turn an allocation that fails inside the `with` into a user's error.

    Args:
        work: what was being done, e.g. "Training".
        where: the setting that decides how much memory it takes.
        fix: what to lower, or to switch on.

    Raises:
        OutOfMemory: the device, or the host, has no room left.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        asked = next(iter(str(error).splitlines()), "").strip()
        detail = f" ({asked[:200]})" if asked else ""
        raise OutOfMemory(
            f"{work} has run out of memory on {device}{detail}.", where=where, fix=fix
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, of a device or of the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
