"""What a stage costs: measured while it runs, or estimated for the whole of it."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True)
class Cost:
    """What a stage takes.

    Args:
        seconds: of wall-clock time.
        host_bytes: most memory of this process at a time; None: not known.
        device_bytes: most memory of the accelerator; None: there is none.
        disk_bytes: what it leaves on the disk.
    """

    seconds: float
    host_bytes: int | None = None
    device_bytes: int | None = None
    disk_bytes: int = 0


def larger(*counts: int | None) -> int | None:
    """The largest of those that are known; None: none is."""
    return max((count for count in counts if count is not None), default=None)


class Meter:
    """Filled in by `measured` when its block ends."""

    seconds = 0.0
    host_bytes: int | None = None
    device_bytes: int | None = None


@contextmanager
def measured() -> Iterator[Meter]:
    """Seconds and peak memory of a block, with all that the accelerator was given to do in it."""
    meter = Meter()
    device = _device_module()
    if device is not None and hasattr(device, "reset_peak_memory_stats"):
        device.reset_peak_memory_stats()
    _restart_host_peak()
    clock = time.perf_counter()
    yield meter
    if device is not None:
        device.synchronize()
    meter.seconds = time.perf_counter() - clock
    meter.host_bytes = _host_peak()
    if device is not None and hasattr(device, "max_memory_allocated"):
        meter.device_bytes = int(device.max_memory_allocated())


def overlapped(loading: float, computing: float, workers: int) -> float:
    """Seconds per batch where `workers` processes load the next ones while one is computed.

    Args:
        loading: seconds that one process takes to load a batch.
        computing: seconds that its computation takes.
        workers: 0: one is done after the other.
    """
    if workers == 0:
        return loading + computing
    cores = os.cpu_count() or 1
    # on the CPU the computation's threads and the loading share the cores
    threads = 0 if _device_module() else _threads()
    shared = (computing * threads + loading) / cores
    return max(computing, loading / min(workers, cores), shared)


def folder_bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 where there is nothing."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _device_module() -> ModuleType | None:
    """Torch's module of the accelerator that is worked on; None on the CPU, or without torch."""
    if "torch" not in sys.modules:
        return None
    import torch

    from beholder.features import device as devices

    chosen = devices.choose_device()
    if chosen.type == "cpu":
        return None
    module: ModuleType = torch.get_device_module(chosen)
    return module


def _restart_host_peak() -> None:
    """Let the kernel's high-water mark begin anew, which only Linux can; elsewhere it stays that
    of the whole life of the process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _host_peak() -> int:
    """The largest resident size of this process since the mark began."""
    status = Path("/proc/self/status")
    if status.exists():
        mark = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(mark.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def left_bytes(folder: Path, outputs: list[Path]) -> int:
    """Bytes of a stage's folder and of those of its outputs that lie elsewhere."""
    elsewhere = [path for path in outputs if folder not in path.parents]
    return folder_bytes(folder) + sum(folder_bytes(path) for path in elsewhere)
