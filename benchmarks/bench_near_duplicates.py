"""Finding look-alikes among many looks, spread evenly and as those of things on white.

A tenth of the looks are copies that differ a little; of those that are like their picture when the
two are compared alone, the share that is found is printed too.

    OMP_NUM_THREADS=1 python benchmarks/bench_near_duplicates.py [COUNT...]
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from numpy.typing import NDArray

from beholder.data.fingerprints import COLOUR_PARTS, SHAPE
from beholder.data.lookalikes import near_pairs, near_sets

COUNTS = (40_000, 200_000)
KINDS = ("random", "white")
SHARED = 0.8
"""Of a look on white: the cosine with the mean of all of them."""
TURNED = 0.93
"""The cosine of a copy with its picture."""


def made_up(kind: str, count: int) -> tuple[list[bytes], int]:
    """Looks [count]; the last tenth of them are copies of the first ones, in their order."""
    rng = np.random.default_rng(0)
    copies = count // 10
    shape = unit(rng.standard_normal((count - copies, SHAPE)))
    if kind == "white":
        shape = unit(SHARED * unit(rng.standard_normal(SHAPE)) + (1 - SHARED**2) ** 0.5 * shape)
    noise = unit(rng.standard_normal((copies, SHAPE)))
    turned = unit(TURNED * shape[:copies] + (1 - TURNED**2) ** 0.5 * noise)
    colours = rng.normal(0, 25, (count - copies, 2 * COLOUR_PARTS**2))
    whole = np.concatenate([shape, turned]) * 127
    plain = np.zeros((count, 1))
    values = np.hstack([whole, np.concatenate([colours, colours[:copies]]), plain])
    return [row.tobytes() for row in np.rint(values).clip(-128, 127).astype(np.int8)], copies


def unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=COUNTS)
    for count in parser.parse_args().counts:
        for kind in KINDS:
            looks, copies = made_up(kind, count)
            start = time.perf_counter()
            pairs = near_pairs(looks)
            middle = time.perf_counter()
            sets = near_sets(looks, pairs)
            end = time.perf_counter()
            of_copies = [(row, count - copies + row) for row in range(copies)]
            wanted = {(a, b) for a, b in of_copies if near_pairs([looks[a], looks[b]])}
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            print(
                f"{count:>9,} {kind:<6}: pairs {middle - start:6.2f} s, sets {end - middle:5.2f} s;"
                f" {len(pairs):,} pairs, {len(wanted & set(pairs)) / len(wanted):.2%} of copies, "
                f"{len(sets):,} links; {memory:,.0f} MB so far",
                flush=True,
            )


if __name__ == "__main__":
    main()
