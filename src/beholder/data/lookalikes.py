"""Which pictures look alike, and what belongs together because of it.

Two looks (see `fingerprints`) are alike where shape and colours agree:

- the cosine of the shapes is at least `ALIKE`, for a simple shape up to `ALIKE_SIMPLE`: of an
  object on white only a few of the 63 frequencies are strong, and two such shapes agree by chance.
  On a plain background it is at least `ALIKE_PLAIN`;
- the colours differ by no more than a change of the white balance or saturation does. A picture
  without colour may be the copy of one in colours; then the shapes must be rich and agree better.

Likeness is not transitive: a hundred pictures, each like the next, may lead from a cat to a car. So
sets are cut: every member of a set looks like the set's representative.

In a table of up to `_FEW` looks all pairs are compared. In a larger one only those are that fall
into the same bucket of one of several tables of random hyperplanes (M. Charikar, "Similarity
estimation techniques from rounding algorithms", STOC 2002), with a bound on the comparisons per
picture: time is near linear in the number of pictures, also where they are much alike, and a pair
just above the limit may be missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beholder.data.fingerprints import LOOK_BYTES, SHAPE

ALIKE, ALIKE_SIMPLE, ALIKE_PLAIN, ALIKE_GREY = 0.80, 0.98, 0.93, 0.95
"""Least cosine of two shapes: of rich ones, of the simplest, of things on plain ground, and of one
in colours and one in grey."""

_RICH, _SIMPLE = 12.0, 6.0  # strong frequencies of a shape that is rich, and of the simplest
_COLOURLESS = 3.0  # root mean square of Cb and Cr
_COLOUR_SHIFT, _COLOUR_SHARE = 8.0, 0.5  # what colours may differ by: in all, and of the stronger

_FEW = 8_000
_TABLES = 48
_BUCKET = 8  # looks that share a bucket, where they are spread evenly
_COMPARED = 24  # the next looks in a bucket that one is compared with
_ENOUGH = 64  # pairs of a look, after which it is compared no more
_SIGNS_APART = 21  # of 63; looks further apart than this are not compared in full
_BLOCK = 1 << 18

Pair = tuple[int, int]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class _Looks:
    """Different looks, in the order of their bytes.

    shape [N, 63] int8, norm [N], needed [N]: least cosine, colour [N, 32] int8, strength [N]: root
    mean square of the colours; rich [N].
    """

    shape: NDArray[np.int8]
    norm: NDArray[np.float64]
    needed: NDArray[np.float64]
    rich: NDArray[np.bool_]
    colour: NDArray[np.int8]
    strength: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.shape)

    def alike(self, left: Rows, right: Rows) -> NDArray[np.bool_]:
        """Whether the looks at `left` and `right` are alike, pair by pair [P].

        In whole numbers up to the last division: the same on every machine.
        """
        parts = range(0, len(left), _BLOCK)
        return np.concatenate(
            [self._alike(left[at : at + _BLOCK], right[at : at + _BLOCK]) for at in parts]
            or [np.zeros(0, bool)]
        )

    def _alike(self, left: Rows, right: Rows) -> NDArray[np.bool_]:
        dot = np.einsum("pc,pc->p", self.shape[left], self.shape[right], dtype=np.int32)
        cosine = dot / (self.norm[left] * self.norm[right])
        alike = cosine >= np.maximum(self.needed[left], self.needed[right])
        left, right, cosine = left[alike], right[alike], cosine[alike]
        gap = self.colour[left].astype(np.int16) - self.colour[right]
        stronger = np.maximum(self.strength[left], self.strength[right])
        weaker = np.minimum(self.strength[left], self.strength[right])
        same = _root_mean_square(gap) <= _COLOUR_SHIFT + _COLOUR_SHARE * stronger
        rich = self.rich[left] & self.rich[right]
        alike[alike] = same | ((weaker < _COLOURLESS) & rich & (cosine >= ALIKE_GREY))
        return alike


def near_pairs(looks: Sequence[bytes | None]) -> list[Pair]:
    """Pairs of indices (i < j) of looks that are alike, sorted.

    Of several equal looks, every one is paired with the first, and the first alone with others.
    None is like nothing.
    """
    looks_N, first, equal = _different(looks)
    pairs = set(equal)
    left, right = _near(looks_N)
    a, b = first[left], first[right]
    pairs.update(zip(np.minimum(a, b).tolist(), np.maximum(a, b).tolist(), strict=True))
    return sorted(pairs)


def near_sets(
    looks: Sequence[bytes | None], pairs: Sequence[Pair], held_out: Sequence[int] | None = None
) -> list[Pair]:
    """Links (representative, member) of sets whose members all look like their representative.

    The representative is the remaining look with the most pairs. Looks of pictures with a split
    come first, held-out ones before those of training: whatever looks like a picture of the test
    split is linked with one, and pictures of different splits are linked only if their looks are
    equal.

    Args:
        pairs: of `near_pairs`.
        held_out: for each look 0 if it has no split yet, else the higher the more held out.
    """
    looks_N, first, equal = _different(looks)
    position = np.full(len(looks), -1, np.int64)
    position[first] = np.arange(len(first))
    rank = np.zeros(len(first), np.int64)
    if held_out is not None:
        ranks = np.asarray(held_out, np.int64)
        np.maximum.at(rank, position[first], ranks[first])
        for representative, member in equal:
            rank[position[representative]] = max(rank[position[representative]], ranks[member])
    ends = np.array([pair for pair in pairs if position[pair[1]] >= 0], np.int64).reshape(-1, 2)
    links = _Cutting(looks_N, position[ends], rank).links()
    return sorted(equal + [(int(first[a]), int(first[b])) for a, b in links])


def _different(looks: Sequence[bytes | None]) -> tuple[_Looks, Rows, list[Pair]]:
    """The different looks, the first index of each [N], and the others as (first, index)."""
    indices = [index for index, look in enumerate(looks) if look is not None]
    first: dict[bytes, int] = {}
    equal = []
    for index in indices:
        look = looks[index]
        assert look is not None
        if first.setdefault(look, index) != index:
            equal.append((first[look], index))
    ordered = sorted(first)
    values = np.frombuffer(b"".join(ordered), np.int8).reshape(-1, LOOK_BYTES)
    shape, colour, plain = values[:, :SHAPE], values[:, SHAPE:-1], values[:, -1] != 0
    power = np.square(shape, dtype=np.int32)
    total = power.sum(axis=1, dtype=np.float64)
    strong = total**2 / np.maximum(np.square(power, dtype=np.float64).sum(axis=1), 1)
    simple = np.clip((_RICH - strong) / (_RICH - _SIMPLE), 0, 1)
    kept = _Looks(
        shape=np.ascontiguousarray(shape),
        norm=np.maximum(np.sqrt(total), 1),
        needed=np.maximum(ALIKE + (ALIKE_SIMPLE - ALIKE) * simple, ALIKE_PLAIN * plain),
        rich=strong >= _RICH,
        colour=np.ascontiguousarray(colour),
        strength=_root_mean_square(colour.astype(np.int16)),
    )
    return kept, np.array([first[look] for look in ordered], np.int64), equal


def _root_mean_square(values: NDArray[np.int16]) -> NDArray[np.float64]:
    return np.sqrt(np.square(values, dtype=np.int32).mean(axis=1))


def _near(looks: _Looks) -> tuple[Rows, Rows]:
    """Positions (left, right) of the alike, each pair once."""
    candidates = _all_candidates(looks) if len(looks) <= _FEW else _bucket_candidates(looks)
    codes = np.zeros(0, np.int64)
    pairs = np.zeros(len(looks), np.int64)
    for left, right in candidates:
        low, high = np.minimum(left, right), np.maximum(left, right)
        open_ = (pairs[low] < _ENOUGH) | (pairs[high] < _ENOUGH)
        low, high = low[open_], high[open_]
        near = looks.alike(low, high)
        new = np.setdiff1d(low[near] * len(looks) + high[near], codes)
        codes = np.union1d(codes, new)
        pairs += np.bincount(new // len(looks), minlength=len(looks))
        pairs += np.bincount(new % len(looks), minlength=len(looks))
    return codes // len(looks), codes % len(looks)


def _all_candidates(looks: _Looks) -> Iterator[tuple[Rows, Rows]]:
    """All pairs whose cosine is near enough; the product only has to be a little too generous."""
    unit = (looks.shape / looks.norm[:, None]).astype(np.float32)
    rows = max(1, _BLOCK * 16 // max(len(looks), 1))
    for start in range(0, len(looks), rows):
        near = unit[start : start + rows] @ unit[start:].T >= ALIKE - 1e-3
        left, right = np.nonzero(near)
        later = right > left
        yield left[later] + start, right[later] + start


def _bucket_candidates(looks: _Looks) -> Iterator[tuple[Rows, Rows]]:
    """Pairs that share a bucket, table by table.

    The hyperplanes go through the middle of the looks: where all are much alike, e.g. things on
    white, they would otherwise hardly divide them. Their normals hold 1 and -1 only, so that the
    products are whole numbers, exact in any order of summation.
    """
    rng = np.random.default_rng(0)
    middle = np.rint(looks.shape.mean(axis=0, dtype=np.float64))
    centred = looks.shape.astype(np.float32) - middle.astype(np.float32)
    signs = np.zeros((len(looks), 64), bool)
    signs[:, :SHAPE] = centred > 0
    signature = np.packbits(signs, axis=1).view(np.uint64)[:, 0]
    shared = np.uint32(32 - max(1, int(np.log2(len(looks) / _BUCKET))))
    for _ in range(_TABLES):
        planes = rng.choice(np.array([-1, 1], np.float32), (SHAPE, 32))
        key = np.packbits(centred @ planes > 0, axis=1).view(">u4")[:, 0].astype(np.uint32)
        order = np.argsort(key, kind="stable")
        bucket, signed = key[order] >> shared, signature[order]
        parts = []
        for step in range(1, _COMPARED + 1):
            close = np.bitwise_count(signed[:-step] ^ signed[step:]) <= _SIGNS_APART
            left = np.flatnonzero(close & (bucket[:-step] == bucket[step:]))
            parts.append((order[left], order[left + step]))
        yield (
            np.concatenate([a for a, _ in parts]),
            np.concatenate([b for _, b in parts]),
        )


class _Cutting:
    """Sets of looks around representatives, from pairs [P, 2] and the ranks [N] of given ones."""

    def __init__(self, looks: _Looks, pairs: Rows, rank: Rows) -> None:
        from scipy.sparse import coo_array

        self.looks, self.rank = looks, rank
        ends = np.concatenate([pairs, pairs[:, ::-1]])
        ones = np.ones(len(ends), bool)
        graph = coo_array((ones, (ends[:, 0], ends[:, 1])), (len(looks), len(looks))).tocsr()
        self.start, self.neighbours = graph.indptr.astype(np.int64), graph.indices.astype(np.int64)
        self.linked = np.zeros(len(looks), bool)

    def links(self) -> list[Pair]:
        degree = np.diff(self.start)
        order = np.lexsort((np.arange(len(degree)), -degree, -self.rank))
        links: list[Pair] = []
        for node in order[degree[order] > 0].tolist():
            free = not self.rank[node]
            if free and self.linked[node]:
                continue
            # a given look that is in a set already still keeps the free ones like it together
            joins = np.zeros(1, np.int64) if self.linked[node] or free else self.rank[[node]]
            self.linked[node] = True
            links += [(node, member) for member in self._members(node, joins)]
        return links

    def _members(self, node: int, joins: Rows) -> list[int]:
        """What is not linked yet, reached over pairs, and like the representative itself."""
        members: list[int] = []
        seen = {node}
        edge = [node]
        while edge:
            near = {int(other) for member_row in edge for other in self._beside(member_row)} - seen
            seen |= near
            candidates = np.array(sorted(near), np.int64)
            ranks = self.rank[candidates]
            candidates = candidates[~self.linked[candidates] & ((ranks == 0) | (ranks == joins))]
            edge = candidates[self.looks.alike(np.full(len(candidates), node), candidates)].tolist()
            self.linked[edge] = True
            members += edge
        return members

    def _beside(self, node: int) -> Rows:
        return self.neighbours[self.start[node] : self.start[node + 1]]
