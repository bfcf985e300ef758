"""Checking a table of 100,000 rows without opening pictures: `python benchmarks/bench_check.py`"""

from __future__ import annotations

import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from beholder.data.check import check_annotations

ROWS, ROUNDS = 100_000, 3


def write_table(path: Path, damaged: bool) -> None:
    """A challenge table, a comment per row and three rows per picture; damaged: in every row."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["img_name", "img_path", "mos", "comments"])
        for row in range(ROWS):
            name = f"{row // 3:06d}.jpg"
            score = "nan" if damaged else f"{(row // 3) % 90 / 10:.1f}"
            comment = f"a rather {rng.integers(99)} picture,\nwith colours"
            writer.writerow([name, f"./train/{name}", score, comment])


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clean, damaged = Path(folder) / "clean.csv", Path(folder) / "damaged.csv"
        write_table(clean, damaged=False)
        write_table(damaged, damaged=True)
        times: dict[str, list[float]] = {"clean": [], "damaged": []}
        for _ in range(ROUNDS):
            times["clean"].append(seconds(lambda: check_annotations(clean)))
            times["damaged"].append(seconds(lambda: check_annotations(damaged)))
    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"{ROWS} rows, pictures not opened; medians of {ROUNDS} rounds")
    print(f"check, nothing wrong:            {median['clean']:6.2f} s")
    print(f"check, a problem in every row:   {median['damaged']:6.2f} s")


if __name__ == "__main__":
    main()
