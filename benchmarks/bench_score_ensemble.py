"""Fitting the stack of regressors on 10,000 x 3,072 features: seconds and memory, by member.

    python benchmarks/bench_score_ensemble.py [--pictures 10000] [--features 3072] [--threads 2]

Bars: the whole stack in less than 3 minutes and 4 GB on two cores. Processor seconds, summed over
threads, are told as well: on a machine that is shared they say more than the clock. Ridge for 14
strengths with their out of fold predictions is also set beside the plain form, one fit of
scikit-learn's per strength and fold, of which one is timed and multiplied.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.linear_model import Ridge as PlainRidge
from threadpoolctl import threadpool_limits

from beholder.data.splits import assign_folds
from beholder.models.regressors.ensemble import ScoreEnsemble
from beholder.models.regressors.members import MEMBERS, STRENGTHS
from measure import conditions, memory_growth

FOLDS = 5


def simulated(pictures: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Features whose spectrum decays as those of networks do, and scores that hang on them."""
    generator = np.random.default_rng(0)
    hidden = generator.standard_normal((pictures, 256), dtype=np.float32)
    hidden *= np.arange(1, 257, dtype=np.float32) ** -0.5
    mixing = generator.standard_normal((256, features), dtype=np.float32)
    noise = generator.standard_normal((pictures, features), dtype=np.float32)
    scores = hidden[:, 0] + np.tanh(2 * hidden[:, 1]) + 0.3 * generator.standard_normal(pictures)
    return hidden @ mixing + noise, scores.astype(np.float64)


def compare_members(x: np.ndarray, y: np.ndarray, units: list[str]) -> None:
    folds = assign_folds(units, FOLDS)
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    y = (y - y.mean()) / y.std()
    taken = {}
    for name, member in MEMBERS.items():
        clock, processor = time.perf_counter(), time.process_time()
        member.fit(x, y, folds, 0)
        taken[name] = time.perf_counter() - clock
        print(
            f"  {name:<8} {taken[name]:6.1f} s, processor {time.process_time() - processor:.1f} s"
        )
    inside = folds != 0
    clock = time.perf_counter()
    PlainRidge(alpha=float(len(y)), solver="cholesky").fit(x[inside], y[inside])
    plain = (time.perf_counter() - clock) * FOLDS * len(STRENGTHS)
    print(f"  ridge, one fit per strength and fold: {plain:.0f} s, {plain / taken['ridge']:.1f} x")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=3072)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--members", action="store_true", help="each member apart")
    arguments = parser.parse_args()
    x, y = simulated(arguments.pictures, arguments.features)
    units = [str(row) for row in range(arguments.pictures)]
    print(f"{x.shape[0]} x {x.shape[1]} features, {FOLDS} folds, {conditions()}")
    with threadpool_limits(arguments.threads):
        if arguments.members:
            compare_members(x, y, units)
            return
        clock, processor = time.perf_counter(), time.process_time()
        megabytes = memory_growth(lambda: ScoreEnsemble.fit(x, y, units))
        print(
            f"  whole stack: {time.perf_counter() - clock:.1f} s, processor "
            f"{time.process_time() - processor:.1f} s, {megabytes:.0f} MB"
        )


if __name__ == "__main__":
    main()
