"""The bootstrap of correlation metrics, vectorised over resamples.

A resample of n pairs is a vector of n counts: how often each pair was drawn. Every metric is
written as a function of the counts, so that sorting is done once, on the full data, and each
resample costs cumulative sums and small matrix products:

- PLCC and RMSE: weighted moments, one product of counts with a matrix of powers.
- SRCC: the mean rank of a tied group follows from cumulative counts in sorted order.
- KRCC: pairs are divided by blocks of neighbours in either order. Pairs in different blocks of
  both orders are counted from a two-way histogram of blocks; the others from the sign matrices
  of single blocks. With blocks of about sqrt(n) this is O(n^1.5) instead of O(n^2).

Legend: R resamples in a chunk, N pairs, K blocks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_CHUNK = 4_000_000  # counts held at once


def resampled_metrics(
    given: Vector, predictions: tuple[Vector, ...], metrics: tuple[str, ...], n: int, seed: int
) -> list[dict[str, Vector]]:
    """For each prediction, each metric on the same `n` resamples: arrays of length n.

    NaN where a resample leaves a metric undefined. Inputs are finite and not empty.
    """
    x_order = _SortedSide(given)
    sides = [(_SortedSide(predicted), predicted) for predicted in predictions]
    plans = [
        _KendallPlan(x_order.group, side.group) if "krcc" in metrics else None for side, _ in sides
    ]
    chunks: list[dict[str, list[Vector]]] = [{name: [] for name in metrics} for _ in sides]
    for counts_RN in draw_counts(given.size, n, seed):
        x_ranks = x_order.ranks(counts_RN) if "srcc" in metrics else None
        for (side, predicted), plan, found in zip(sides, plans, chunks, strict=True):
            if "plcc" in metrics:
                found["plcc"].append(_plcc(counts_RN, given, predicted))
            if "rmse" in metrics:
                found["rmse"].append(_rmse(counts_RN, given, predicted))
            if x_ranks is not None:
                found["srcc"].append(_weighted_plcc(counts_RN, x_ranks, side.ranks(counts_RN)))
            if plan is not None:
                found["krcc"].append(plan.tau_b(counts_RN, x_order, side))
    return [{name: np.concatenate(found[name]) for name in metrics} for found in chunks]


def draw_counts(size: int, n: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """`n` resamples of `size` pairs in chunks [R, N]: how often each pair is drawn."""
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK // size)
    for start in range(0, n, step):
        rows = min(step, n - start)
        drawn = generator.integers(0, size, size=(rows, size))
        drawn += np.arange(rows)[:, None] * size
        counts = np.bincount(drawn.ravel(), minlength=rows * size)
        yield counts.reshape(rows, size).astype(np.float32)


class _SortedSide:
    """One side of the pairs, sorted once: its order and its groups of ties."""

    def __init__(self, values: Vector) -> None:
        self.order = np.argsort(values, kind="stable")
        ordered = values[self.order]
        new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        self.starts = np.flatnonzero(new)
        group_of_sorted = np.cumsum(new) - 1
        self.group = np.empty(values.size, dtype=np.int64)  # dense rank of each pair, ties equal
        self.group[self.order] = group_of_sorted

    def group_counts(self, counts_RN: NDArray[np.float32]) -> NDArray[np.float32]:
        """How often each group of ties was drawn [R, G]."""
        if self.starts.size == self.order.size:
            return counts_RN[:, self.order]
        return np.add.reduceat(counts_RN[:, self.order], self.starts, axis=1)

    def ranks(self, counts_RN: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean rank of each pair within each resample [R, N], minus the mean of all ranks."""
        counts_RG = self.group_counts(counts_RN)
        # ranks are halves of integers: exact in float32 up to 8 million pairs
        ranks_RG = np.cumsum(counts_RG, axis=1, dtype=np.float32)
        ranks_RG -= (counts_RG + np.float32(counts_RN.shape[1])) / 2
        return ranks_RG[:, self.group]

    def tied_pairs(self, counts_RN: NDArray[np.float32]) -> Vector:
        """Number of drawn pairs that are tied on this side [R]."""
        counts_RG = self.group_counts(counts_RN)
        squares = np.einsum("rg,rg->r", counts_RG, counts_RG, dtype=np.float64)
        return (squares - counts_RN.shape[1]) / 2


def _plcc(counts_RN: NDArray[np.float32], x: Vector, y: Vector) -> Vector:
    # centred on the full data: the moments of a resample then lose no digits
    x = _standard(x)
    y = _standard(y)
    powers_N5 = np.stack([x, y, x * x, y * y, x * y], axis=1)
    sums = (counts_RN.astype(np.float64) @ powers_N5) / counts_RN.shape[1]
    mean_x, mean_y, xx, yy, xy = sums.T
    return _ratio(xy - mean_x * mean_y, xx - mean_x**2, yy - mean_y**2)


def _standard(values: Vector) -> Vector:
    centred = values - values.mean()
    largest = np.max(np.abs(centred))
    return centred / largest if largest > 0 else centred


def _rmse(counts_RN: NDArray[np.float32], x: Vector, y: Vector) -> Vector:
    return np.sqrt(counts_RN.astype(np.float64) @ np.square(x - y) / counts_RN.shape[1])


def _weighted_plcc(
    counts_RN: NDArray[np.float32], x_RN: NDArray[np.float32], y_RN: NDArray[np.float32]
) -> Vector:
    """Pearson of rows whose weighted means are zero."""
    weighted = counts_RN * x_RN
    return _ratio(
        np.einsum("rn,rn->r", weighted, y_RN, dtype=np.float64),
        np.einsum("rn,rn->r", weighted, x_RN, dtype=np.float64),
        np.einsum("rn,rn,rn->r", counts_RN, y_RN, y_RN, dtype=np.float64),
    )


def _ratio(product: Vector, square_x: Vector, square_y: Vector) -> Vector:
    """product / sqrt(square_x square_y), NaN where a side is constant up to rounding."""
    tiny = 1e-14
    defined = (square_x > tiny) & (square_y > tiny)
    scale = np.sqrt(np.where(defined, square_x * square_y, 1.0))
    return np.where(defined, np.clip(product / scale, -1.0, 1.0), np.nan)


class _KendallPlan:
    """Concordant minus discordant pairs of a resample, from blocks of neighbours."""

    def __init__(self, x: NDArray[np.int64], y: NDArray[np.int64]) -> None:
        target = max(8, round(np.sqrt(x.size)))
        x_block = _blocks(x, target)
        y_block = _blocks(y, target)
        self.y_blocks = int(y_block.max()) + 1
        self.members = [np.flatnonzero(x_block == k) for k in range(int(x_block.max()) + 1)]
        self.one_hot = [
            np.eye(self.y_blocks, dtype=np.float32)[y_block[rows]] for rows in self.members
        ]
        # same block of x, other block of y: signs inside one x block
        self.inside: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        for rows in self.members:
            signs = _signs(x[rows], y[rows])
            signs *= y_block[rows][:, None] != y_block[rows][None, :]
            self._keep(rows, signs)
        # same block of y, any block of x
        for k in range(self.y_blocks):
            rows = np.flatnonzero(y_block == k)
            self._keep(rows, _signs(x[rows], y[rows]))

    def _keep(self, rows: NDArray[np.int64], signs: NDArray[np.float32]) -> None:
        if signs.any():
            self.inside.append((rows, signs))

    def tau_b(
        self, counts_RN: NDArray[np.float32], x_side: _SortedSide, y_side: _SortedSide
    ) -> Vector:
        """Kendall's tau-b of each resample [R]."""
        n = counts_RN.shape[1]
        pairs = n * (n - 1) / 2
        balance = self._across(counts_RN)
        for rows, signs in self.inside:
            part = counts_RN[:, rows]
            balance += np.einsum("rn,rn->r", part @ signs, part, dtype=np.float64) / 2
        free_x = pairs - x_side.tied_pairs(counts_RN)
        free_y = pairs - y_side.tied_pairs(counts_RN)
        return _ratio(balance, free_x, free_y)

    def _across(self, counts_RN: NDArray[np.float32]) -> Vector:
        """Pairs in different blocks of both sides, from the two-way histogram of blocks."""
        balance = np.zeros(len(counts_RN))
        before_RK = np.zeros((len(counts_RN), self.y_blocks), dtype=np.float32)
        for rows, one_hot in zip(self.members, self.one_hot, strict=True):
            here_RK = counts_RN[:, rows] @ one_hot
            up_to_RK = np.cumsum(before_RK, axis=1)
            # earlier in x: lower y is concordant, higher y is discordant
            signed_RK = 2 * up_to_RK - before_RK - up_to_RK[:, -1:]
            balance += np.einsum("rk,rk->r", here_RK, signed_RK, dtype=np.float64)
            before_RK += here_RK
        return balance


def _signs(x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.float32]:
    """[n, n]: 1 for concordant pairs, -1 for discordant, 0 for tied."""
    product = np.sign(x[:, None] - x[None, :]) * np.sign(y[:, None] - y[None, :])
    return product.astype(np.float32)


def _blocks(group: NDArray[np.int64], target: int) -> NDArray[np.int64]:
    """Block of each pair: neighbours in order, ties together, about `target` pairs each.

    A group of ties of at least `target` pairs is a block of its own, so that no block with
    anything to compare is larger than twice the target.
    """
    sizes = np.bincount(group)
    block_of_group = np.empty(sizes.size, dtype=np.int64)
    block, filled = 0, 0
    for index, size in enumerate(sizes.tolist()):
        if filled and (filled >= target or size >= target):
            block, filled = block + 1, 0
        block_of_group[index] = block
        filled += size
    return block_of_group[group]
