"""Bootstrap intervals of all four correlation metrics against one resample at a time with scipy.

5,000 pairs, 2,000 resamples; the plain form runs on 20 of them and is scaled. Forms take turns in
one run; medians.
"""

from __future__ import annotations

import platform
import statistics
import time

import numpy as np
import scipy
from scipy import stats

from beholder.metrics.correlation import bootstrap

PAIRS, RESAMPLES, PLAIN = 5_000, 2_000, 20


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=PAIRS)
    given, predicted = np.round(x, 1), x + rng.normal(size=PAIRS)
    print(f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}")
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        bootstrap(given, predicted, n=RESAMPLES)
        middle = time.perf_counter()
        plain(given, predicted, rng)
        taken.append((middle - start, (time.perf_counter() - middle) * RESAMPLES / PLAIN))
    fast, slow = (statistics.median(side) for side in zip(*taken, strict=True))
    print(f"{PAIRS} pairs, {RESAMPLES} resamples, PLCC, SRCC, KRCC and RMSE together")
    print(f"  plain {slow:7.2f} s   ours {fast:6.2f} s   {slow / fast:5.1f} x")


def plain(given: np.ndarray, predicted: np.ndarray, rng: np.random.Generator) -> None:
    for _ in range(PLAIN):
        rows = rng.integers(0, PAIRS, PAIRS)
        a, b = given[rows], predicted[rows]
        stats.pearsonr(a, b)
        stats.spearmanr(a, b)
        stats.kendalltau(a, b)
        np.sqrt(np.mean((a - b) ** 2))


if __name__ == "__main__":
    main()
