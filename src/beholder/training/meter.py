"""How fast a training is and what it costs: seconds per step, waiting for data, memory.

The host runs ahead of an accelerator, so a clock only means something after waiting for the device.
That happens where the loop reads from the device anyway (log line, evaluation, checkpoint, end),
and once after the first step, which also loads kernels and starts workers.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch

from beholder.data.sharing import Processes

Item = TypeVar("Item")
LAPS = 64  # steps that a median is taken of


@dataclass(frozen=True)
class Timings:
    """What one attempt of a training took; None where it did not happen or is not known.

    Attributes:
        step_seconds: seconds per step, waiting for data included; without the first step, unless
            it was the only one. On the CPU the median of the first ones, elsewhere the mean.
        first_step_seconds: duration of the first step, with everything that only it has to do.
        prepare_seconds: duration of the task's `prepare`.
        prepared_pictures: number of pictures that it looked at.
        evaluation_seconds: duration of the last evaluation.
        evaluated_pictures: number of pictures that it looked at.
        save_seconds: duration of writing the last checkpoint.
        checkpoint_bytes: size of the last checkpoint on the disk; main process only.
        peak_device_bytes: peak of the accelerator's allocated memory.
        peak_host_bytes: peak of this process's resident memory.
    """

    step_seconds: float | None = None
    first_step_seconds: float | None = None
    prepare_seconds: float | None = None
    prepared_pictures: int | None = None
    evaluation_seconds: float | None = None
    evaluated_pictures: int | None = None
    save_seconds: float | None = None
    checkpoint_bytes: int | None = None
    peak_device_bytes: int | None = None
    peak_host_bytes: int = 0


@dataclass(frozen=True)
class Throughput:
    """Of the steps since the last log line, over all processes.

    Attributes:
        seconds_per_step: evaluations and checkpoints left out.
        pictures_per_second: over all processes together.
        data_wait: share of its time that the process that waits longest waits for batches, 0 to 1.
        peak_device_bytes, peak_host_bytes: the largest of all processes, since the start.
    """

    seconds_per_step: float
    pictures_per_second: float
    data_wait: float
    peak_device_bytes: int | None
    peak_host_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Its values by name, for metrics.jsonl."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        memory = f"{self.peak_host_bytes / 1e9:.2f} GB"
        if self.peak_device_bytes is not None:
            memory = f"{self.peak_device_bytes / 1e9:.2f} GB on the device, {memory} on the host"
        return (
            f"{self.pictures_per_second:.4g} pictures/s, data wait {self.data_wait:.0%}, "
            f"peak memory {memory}"
        )


class Meter:
    """The clock of a training's steps."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._device = processes.device
        self._since = time.perf_counter()  # start of the time that is not counted yet
        self._seconds = self._waited = 0.0  # since the last reading
        self._steps = self._pictures = 0
        self._first_step: float | None = None
        self._later_seconds = 0.0
        self._later_steps = 0
        # On the CPU a step has ended when it returns. Their median is what most steps take, however
        # slow the first few are and whatever else the machine has done meanwhile.
        self._laps: list[float] = []
        self._step_ended = self._since
        self._timings: dict[str, Any] = {}
        reset = getattr(_module(self._device), "reset_peak_memory_stats", None)
        if reset is not None:
            reset(self._device)

    def waiting(self, batches: Iterator[Item]) -> Iterator[Item]:
        """The same batches; the time until each arrives counts as waiting for data. The clock of
        the steps starts with the first."""
        self._since = time.perf_counter()
        self._seconds = self._waited = 0.0
        while True:
            began = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited += time.perf_counter() - began
            yield batch

    def step(self, pictures: int) -> None:
        """Count a step of `pictures` pictures over all processes."""
        self._steps += 1
        self._pictures += pictures
        if self._first_step is None:
            self._synchronise()
            self._first_step = self._seconds + self._lap()
            self._seconds = self._first_step
        else:
            self._later_steps += 1
            if self._device.type == "cpu" and len(self._laps) < LAPS:
                self._laps.append(time.perf_counter() - self._step_ended)
        self._step_ended = time.perf_counter()

    def read(self) -> Throughput:
        """Throughput since the last call, then start again. To be called in every process, where
        the device has just been read from, so that waiting for it costs nothing."""
        self._settle()
        seconds = max(self._seconds, 1e-9)
        device, host = peak_device_bytes(self._device), peak_host_bytes()
        gathered = self._processes.all_gather((self._waited / seconds, device, host))
        waits, devices, hosts = zip(*gathered, strict=True)
        throughput = Throughput(
            seconds_per_step=seconds / max(1, self._steps),
            pictures_per_second=self._pictures / seconds,
            data_wait=min(1.0, max(waits)),
            peak_device_bytes=None if device is None else max(devices),
            peak_host_bytes=max(hosts),
        )
        self._seconds = self._waited = 0.0
        self._steps = self._pictures = 0
        return throughput

    @contextmanager
    def preparing(self, pictures: int) -> Iterator[None]:
        """Times what is done before the first step."""
        with self._paused("prepare_seconds"):
            yield
        self._timings["prepared_pictures"] = pictures

    @contextmanager
    def evaluating(self, pictures: int) -> Iterator[None]:
        """Times an evaluation and keeps it out of the steps' time."""
        with self._paused("evaluation_seconds"):
            yield
        self._timings["evaluated_pictures"] = pictures

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Times a checkpoint and keeps it out of the steps' time."""
        with self._paused("save_seconds"):
            yield

    def saved(self, checkpoint: Path) -> None:
        """Measure the last checkpoint's size; to be called by the process that wrote it."""
        files = [file for file in checkpoint.iterdir() if file.is_file()]
        self._timings["checkpoint_bytes"] = sum(file.stat().st_size for file in files)

    def timings(self) -> Timings:
        """Everything measured up to the last log line, evaluation or checkpoint."""
        mean = self._later_seconds / self._later_steps if self._later_steps else self._first_step
        return Timings(
            step_seconds=median(self._laps) if self._laps else mean,
            first_step_seconds=self._first_step,
            peak_device_bytes=peak_device_bytes(self._device),
            peak_host_bytes=peak_host_bytes(),
            **self._timings,
        )

    @contextmanager
    def _paused(self, name: str) -> Iterator[None]:
        self._settle()
        began = time.perf_counter()
        yield
        self._synchronise()
        self._timings[name] = time.perf_counter() - began
        self._since = self._step_ended = time.perf_counter()

    def _settle(self) -> None:
        """Count the time up to now, including the work that the device still has to do."""
        self._synchronise()
        lap = self._lap()
        self._seconds += lap
        if self._first_step is not None:
            self._later_seconds += lap

    def _lap(self) -> float:
        now = time.perf_counter()
        lap, self._since = now - self._since, now
        return lap

    def _synchronise(self) -> None:
        synchronise = getattr(_module(self._device), "synchronize", None)
        if synchronise is not None:
            synchronise()


def peak_device_bytes(device: torch.device) -> int | None:
    """Peak of an accelerator's allocated memory; None where its module does not count it."""
    count = getattr(_module(device), "max_memory_allocated", None)
    return None if count is None else int(count(device))


def peak_host_bytes() -> int:
    """Peak of this process's resident memory."""
    # Linux counts in KiB, macOS in bytes
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _module(device: torch.device) -> Any:
    return torch.get_device_module(device)
