"""Checking a table of 100,000 rows without opening pictures, and comparing 100,000 hashes.

The plain form of the comparison looks at every pair; it is timed on 5,000 hashes and its time
scaled by the square. `python benchmarks/bench_check.py`
"""

from __future__ import annotations

import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from beholder.data.check import check_annotations
from beholder.data.fingerprints import NEAR_BITS, near_pairs

ROWS, SAMPLE, ROUNDS = 100_000, 5_000, 3


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


def every_pair(hashes: list[int]) -> int:
    values = np.array(hashes, dtype=np.uint64)
    close = np.bitwise_count(values[:, None] ^ values[None, :]) <= NEAR_BITS
    return int((close.sum() - len(values)) // 2)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    rng = np.random.default_rng(1)
    hashes = [int(value) for value in rng.integers(0, 2**64, ROWS, dtype=np.uint64)]
    with tempfile.TemporaryDirectory() as folder:
        clean, damaged = Path(folder) / "clean.csv", Path(folder) / "damaged.csv"
        write_table(clean, damaged=False)
        write_table(damaged, damaged=True)
        times: dict[str, list[float]] = {"clean": [], "damaged": [], "banded": [], "plain": []}
        for _ in range(ROUNDS):
            times["clean"].append(seconds(lambda: check_annotations(clean)))
            times["damaged"].append(seconds(lambda: check_annotations(damaged)))
            times["banded"].append(seconds(lambda: near_pairs(hashes)))
            plain = seconds(lambda: every_pair(hashes[:SAMPLE]))
            times["plain"].append(plain * (ROWS / SAMPLE) ** 2)
    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"{ROWS} rows, pictures not opened; medians of {ROUNDS} rounds")
    print(f"check, nothing wrong:            {median['clean']:6.2f} s")
    print(f"check, a problem in every row:   {median['damaged']:6.2f} s")
    print(f"near duplicates, in bands:       {median['banded']:6.2f} s")
    ratio = median["plain"] / median["banded"]
    print(f"near duplicates, every pair:     {median['plain']:6.2f} s (scaled), {ratio:.0f} times")


if __name__ == "__main__":
    main()
