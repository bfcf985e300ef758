"""Loading batches while the device computes: how many processes, how they start and end.

Every start method works; the one in use is Python's default (`multiprocessing`): fork on Linux
before Python 3.14, forkserver there from 3.14 on, spawn on macOS. A forkserver loads torch once, so
that its workers start as fast as forked ones.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable
from functools import cache, partial
from multiprocessing.connection import wait
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset

Workers = int | Literal["auto"]

MOST_WORKERS = 8  # by `auto`, per process
PREFETCHED = 2  # batches that each worker keeps ready
PARENT_SECONDS = 0.5  # between a worker's checks that the main process is alive


def worker_count(workers: Workers, device: torch.device, *, decodes: bool) -> int:
    """The number of this process's loading processes; `auto` depends on cores and device.

    On the CPU, one worker decodes pictures while the network computes, if there is a core for it;
    features are read faster than a worker could hand them over. With an accelerator the cores are
    free: all but one decode, or one reads features.

    Args:
        decodes: whether batches are made of pictures, not of stored features.
    """
    if workers != "auto":
        return workers
    spare = available_cores() - 1
    if not decodes:
        return 0 if device.type == "cpu" else min(1, spare)
    return min(1 if device.type == "cpu" else MOST_WORKERS, spare)


def available_cores() -> int:
    """The number of cores that this process may use, under torchrun its share; at least 1."""
    on_linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if on_linux else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def load_batches(
    dataset: Dataset[Any], requests: Iterable[Any], workers: int, device: torch.device
) -> DataLoader[Any]:
    """What `dataset[request]` gives for each request, in order: whole batches, loaded in workers,
    and pinned for an accelerator that copies from pinned memory without waiting.

    Args:
        workers: number of processes; 0 loads in this one.
    """
    method = multiprocessing.get_start_method()
    if workers and method == "forkserver":
        multiprocessing.set_forkserver_preload(["__main__", __name__])
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=requests,
        collate_fn=_same,
        num_workers=workers,
        # forkserver: the parent of all workers is the server
        worker_init_fn=partial(_begin, None if method == "forkserver" else os.getpid()),
        generator=torch.Generator(),  # a separate one: the caller's random state must not change
        pin_memory=pins_memory(device),
        prefetch_factor=PREFETCHED if workers else None,
        multiprocessing_context=multiprocessing.get_context(method) if workers else None,
    )


@cache
def pins_memory(device: torch.device) -> bool:
    """Whether a device copies from pinned host memory, determined by pinning some."""
    current = torch.accelerator.current_accelerator()
    if current is None or device.type != current.type or device.type == "mps":
        return False
    try:
        return torch.empty(1).pin_memory().is_pinned()
    except (RuntimeError, NotImplementedError):  # a backend without an allocator for it
        return False


def _same(batch: Any) -> Any:
    return batch


def _begin(parent: int | None, worker: int) -> None:
    """In a new loading process, before its first batch.

    A SIGTERM to the whole group is handled by the main process, which still needs its batches. When
    the main process is killed the worker exits too; torch's own watchdog misses a kill during the
    start, and waits forever to hand over a batch that nobody will take.

    Args:
        parent: the main process's id if it started the worker itself.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: int | None) -> None:
    main = multiprocessing.parent_process()
    assert main is not None, "a worker has a main process"
    # The end of a pipe that the main process holds: it closes when that dies. Forked siblings hold
    # it too, so for them a changed parent id tells.
    while parent is None or os.getppid() == parent:
        if wait([main.sentinel], PARENT_SECONDS):
            break
    os._exit(1)
