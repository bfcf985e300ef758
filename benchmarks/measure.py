"""What the benchmarks share: turns, medians, the machine's peak, memory of a child process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch


def medians(
    forms: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each form, run in turns after one warm-up of the first."""
    next(iter(forms.values()))()
    taken: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(repeats):
        for name, form in forms.items():
            start = clock()
            form()
            taken[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def show(name: str, runs: Sequence[Mapping[str, float]]) -> None:
    """A line of means over several trainings, with deviations where there are several."""
    parts = []
    for metric in runs[0]:
        values = [run[metric] for run in runs]
        spread = f" ±{statistics.stdev(values):.3f}" if len(values) > 1 else ""
        parts.append(f"{metric} {statistics.mean(values):.3f}{spread}")
    print(f"  {name:<28} {'  '.join(parts)}", flush=True)


def peak_multiply_adds() -> float:
    """Multiply-adds per second of a large float32 matrix product: the machine's practical peak."""
    size = 2048
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = min(medians({"product": lambda: a @ b}, 1)["product"] for _ in range(5))
    return size**3 / best


def conditions() -> str:
    """One line on what was measured with."""
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads"


def memory_growth(work: Callable[[], object]) -> float:
    """MB by which `work` raises the memory of this process at its highest (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest value so far
    before = _highest_megabytes()
    work()
    return _highest_megabytes() - before


def memory_of_child(script: str, *arguments: str) -> float:
    """MB that a script prints as its only line when called with these arguments."""
    command = [sys.executable, script, *arguments]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(shown.stdout)


def _highest_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
