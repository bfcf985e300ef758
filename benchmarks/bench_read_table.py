"""Reading a table of a million rows: seconds and the most memory.

    python benchmarks/bench_read_table.py [ROWS]

Names, scores, deviations, splits and comments are made up. Goal: below 20 s of CPU and 1.5 GB for a
million rows of CSV.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from beholder.data.formats import scan_annotations

GOAL_SECONDS, GOAL_GIGABYTES = 20.0, 1.5


def write_table(path: Path, rows: int, comments: bool) -> None:
    """A CSV with an index, as pandas writes it; with comments in quotes or without any."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write(",filename,mos,std,set" + (",comment\n" if comments else "\n"))
        for row in range(rows):
            split = ("train", "train", "train", "val", "test")[row % 5]
            score = 1 + row * 7919 % 4001 / 1000
            comment = f',"a photograph of a street, the {row % 5000}th"' if comments else ""
            name = f"photos/{row % 997:03d}/{row:08d}.jpg"
            stream.write(f"{row},{name},{score:.3f},0.{row % 9 + 1},{split}{comment}\n")


def measure(rows: int, comments: bool) -> bool:
    """Print what reading takes; whether that is within the goal."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_table(path, rows, comments)
        start, busy = time.perf_counter(), time.process_time()
        scan = scan_annotations(path)
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
        size = path.stat().st_size / 1e6
    assert scan.table is not None and len(scan.table) == rows
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kilobytes on Linux
    what = "with comments" if comments else "scores alone"
    spent = f"{seconds:.1f} s ({busy:.1f} s of CPU)"
    print(f"{what}: {rows:,} rows, {size:.0f} MB: {spent}, {most:.2f} GB", flush=True)
    return busy <= GOAL_SECONDS and most <= GOAL_GIGABYTES


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    done = [measure(rows, comments) for comments in (False, True)]
    if rows == 1_000_000 and not all(done):
        raise SystemExit(f"goal: {GOAL_SECONDS:g} s and {GOAL_GIGABYTES:g} GB")


if __name__ == "__main__":
    main()
