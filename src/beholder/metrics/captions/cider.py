"""CIDEr-D (Vedantam, Zitnick and Parikh, CVPR 2015), for evaluation and as a reward.

The variant of the MS-COCO caption evaluation: n-grams of 1 to 4, weights tf * (log P - log df) with
df counted over the P pictures of a corpus, clipped cosine, a Gaussian penalty of sigma 6 on the
difference of lengths, the mean over orders and references, times 10.

References are prepared once as arrays; scoring a batch of hypotheses is then, for each order, a few
look-ups and segment sums for all of them together. N-grams are numbered exactly, never hashed: a
token by its id, a bigram by its two tokens, a trigram by a bigram and a token, a 4-gram by two
bigrams.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beholder.errors import DataError
from beholder.metrics.captions.tokens import Caption, Ints, TokenIds, Tokens, as_tokens, ranges

ORDERS = 4
SIGMA = 6.0
_BITS = 31  # room for each half of an n-gram's key
_PACKED_BITS = 63  # room for a key and its position together
Group = Sequence[Caption]
Floats = NDArray[np.float64]


class CiderD:
    """CIDEr-D with the document frequencies of `corpus`.

    Args:
        corpus: the references of each picture, as token lists (or strings of tokens joined by
            spaces). The same tokens must be used in `score`; words and integers both do.
        sigma: of the length penalty.

    Raises:
        DataError: the corpus has no picture, or a picture has no reference.
    """

    def __init__(self, corpus: Sequence[Group], sigma: float = SIGMA) -> None:
        if not len(corpus) or not all(len(group) for group in corpus):
            raise DataError("CIDEr-D needs a corpus of pictures with a reference each.")
        self.sigma = sigma
        self.pictures = len(corpus)
        self._corpus = corpus
        self._index = _NgramIndex()
        sizes = np.fromiter(map(len, corpus), dtype=np.int64, count=len(corpus))
        grams, lengths = self._index.build([text for group in corpus for text in group])
        counted = _count_groups(grams, lengths, sizes, self._index.sizes)
        self._log_pictures = float(np.log(float(self.pictures)))
        self._idf = [
            self._log_pictures - np.log(np.maximum(1, np.bincount(cells.gram, minlength=size)))
            for cells, size in zip(counted, self._index.sizes, strict=True)
        ]
        self._prepared = self._prepare(counted, lengths, sizes)

    def score(self, hypotheses: Sequence[Caption], references: Sequence[Group | int]) -> Floats:
        """CIDEr-D of each hypothesis against its references [H], 0 to 10, higher is better.

        Args:
            hypotheses: token lists.
            references: for each hypothesis its references as token lists, or the index of its
                picture in the corpus. References of the corpus are recognised and not prepared
                again; others are scored with the corpus's document frequencies.

        Raises:
            DataError: the two lists differ in length, or a hypothesis has no reference.
        """
        if len(hypotheses) != len(references):
            raise DataError(
                f"{len(hypotheses)} hypotheses for {len(references)} groups of references."
            )
        rows, others = self._rows(list(references))
        captions = [as_tokens(text) for text in hypotheses]
        if not others:
            grams, lengths, widths = self._index.encode(captions)
            return self._compare(self._prepared, grams, lengths, widths, rows)
        scores = np.zeros(len(captions))
        known = rows < self.pictures
        inside, outside = np.flatnonzero(known), np.flatnonzero(~known)
        grams, lengths, widths = self._index.encode([captions[index] for index in inside])
        scores[inside] = self._compare(self._prepared, grams, lengths, widths, rows[inside])
        # encoded together, so that an n-gram the corpus lacks has one number in both
        extra = [as_tokens(text) for group in others for text in group]
        mixed = [*(captions[index] for index in outside), *extra]
        grams, lengths, widths = self._index.encode(mixed)
        own, theirs = _split(grams, lengths, len(outside))
        sizes = np.fromiter(map(len, others), dtype=np.int64, count=len(others))
        their_lengths = lengths[len(outside) :]
        counted = _count_groups(theirs, their_lengths, sizes, widths)
        prepared = self._prepare(counted, their_lengths, sizes)
        own_rows = rows[outside] - self.pictures
        scores[outside] = self._compare(prepared, own, lengths[: len(outside)], widths, own_rows)
        return scores

    @cached_property
    def _group_rows(self) -> dict[tuple[tuple[Hashable, ...], ...], int]:
        return {_group_key(group): row for row, group in enumerate(self._corpus)}

    def _rows(self, references: list[Group | int]) -> tuple[Ints, list[Group]]:
        """Picture of each group in the corpus; numbers above it count through the other groups."""
        others: list[Group] = []
        seen: dict[int, int] = {}  # the samples of a picture share one list: by identity
        rows = []
        for group in references:
            if isinstance(group, (int, np.integer)):
                rows.append(int(group))
                continue
            row = seen.get(id(group))
            if row is None:
                if not len(group):
                    raise DataError("A hypothesis has no reference.", where=f"row {len(rows)}")
                row = self._group_rows.get(_group_key(group), self.pictures + len(others))
                if row == self.pictures + len(others):
                    others.append(group)
                seen[id(group)] = row
            rows.append(row)
        return np.array(rows, dtype=np.int64), others

    def _weights(self, order: int, gram: Ints, times: Ints) -> Floats:
        """tf * idf; an n-gram that the corpus lacks counts as in one picture."""
        idf = self._idf[order]
        if not len(idf):
            return np.asarray(times * self._log_pictures, dtype=np.float64)
        known = gram < len(idf)
        chosen: Floats = np.where(known, idf[np.where(known, gram, 0)], self._log_pictures)
        return times * chosen

    def _prepare(self, counted: list[_Cells], lengths: Ints, sizes: Ints) -> _References:
        orders = []
        for order, cells in enumerate(counted):
            gram = np.repeat(cells.gram, np.diff(cells.first))
            weight = self._weights(order, gram, cells.times)
            norm = _norms(weight, cells.caption, len(lengths))
            orders.append((cells, weight, weight / norm[cells.caption]))
        return _References(orders, np.maximum(lengths - 1, 0), sizes)

    def _compare(
        self,
        references: _References,
        grams: list[Ints],
        lengths: Ints,
        widths: list[int],
        rows: Ints,
    ) -> Floats:
        """Scores [H] of hypotheses against the groups `rows` of prepared references."""
        bigrams = np.maximum(lengths - 1, 0)
        total = np.zeros(len(lengths))
        for order, (cells, their_weight, their_unit) in enumerate(references.orders):
            caption, gram, times = _count(grams[order], lengths, order, widths[order])
            weight = self._weights(order, gram, times)
            unit = weight / _norms(weight, caption, len(lengths))[caption]
            place, source = cells.find(rows[caption], gram)
            first = cells.first[place]
            count = cells.first[place + 1] - first
            entry = ranges(first, count)
            source = np.repeat(source, count)
            # min(mine, theirs) * theirs / (my norm * their norm)
            scale = unit[source] / np.where(weight[source] > 0, weight[source], 1.0)
            product = np.minimum(weight[source], their_weight[entry]) * their_unit[entry] * scale
            caption = caption[source]
            gap = (bigrams[caption] - references.bigrams[cells.caption[entry]]).astype(np.float64)
            product *= np.exp(gap * gap / (-2 * self.sigma**2))
            total += np.bincount(caption, weights=product, minlength=len(lengths))
        return total * (10.0 / ORDERS) / references.sizes[rows]


class _NgramIndex:
    """Numbers of the n-grams of a corpus, order by order; unknown ones get higher numbers."""

    def __init__(self) -> None:
        self.ids = TokenIds()
        self.keys: list[Ints] = []  # sorted keys of bigrams, trigrams and 4-grams
        self.sizes: list[int] = []  # distinct n-grams of each order

    def build(self, captions: Sequence[Caption]) -> tuple[list[Ints], Ints]:
        """Number every n-gram of the captions [per order: one per window], and their lengths."""
        flat, lengths = self.ids.encode(captions)
        self.ids.default_factory = None  # closed: what comes later is unknown
        grams = [flat]
        self.sizes = [len(self.ids)]
        for order in range(1, ORDERS):
            first, second, bounds = _halves(order, grams, lengths, self.sizes)
            keys, numbers = _distinct(first, second, bounds)
            self.keys.append(keys)
            self.sizes.append(len(keys))
            grams.append(numbers)
        return grams, lengths

    def encode(self, captions: list[Tokens]) -> tuple[list[Ints], Ints, list[int]]:
        """Numbers of the n-grams of new captions, their lengths, the bound of each order's numbers.

        N-grams that the corpus lacks are numbered from `sizes` on, for this call only.
        """
        lengths = np.fromiter(map(len, captions), dtype=np.int64, count=len(captions))
        flat: list[int | None] = list(map(self.ids.get, chain.from_iterable(captions)))
        fresh = TokenIds()
        if None in flat:
            known, words = self.sizes[0], chain.from_iterable(captions)
            flat = [
                known + fresh[word] if number is None else number
                for word, number in zip(words, flat, strict=True)
            ]
        grams = [np.array(flat, dtype=np.int64)]
        widths = [self.sizes[0] + len(fresh)]
        for order in range(1, ORDERS):
            first, second, bounds = _halves(order, grams, lengths, widths)
            keys, numbers = _distinct(first, second, bounds)
            known_keys = self.keys[order - 1]
            place = np.searchsorted(known_keys, keys)
            place[place == len(known_keys)] = 0
            unknown = known_keys[place] != keys if len(known_keys) else np.ones(len(keys), bool)
            rank = np.cumsum(unknown)
            place = np.where(unknown, self.sizes[order] + rank - 1, place)
            grams.append(place[numbers])
            widths.append(self.sizes[order] + int(unknown.sum()))
        return grams, lengths, widths


class _Cells(NamedTuple):
    """One order's n-grams of groups of references.

    A cell is an n-gram of a group: `key` = group * width + `gram`, sorted. Its entries are those
    from first[c] to first[c + 1]: `caption` that has it, and how many `times`.
    """

    width: int
    key: Ints
    gram: Ints
    first: Ints
    caption: Ints
    times: Ints

    def find(self, group: Ints, gram: Ints) -> tuple[Ints, Ints]:
        """Cells of those (group, n-gram) that there are, and their positions in the arguments."""
        if not len(self.key):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        source = np.flatnonzero(gram < self.width)
        wanted = group[source] * self.width + gram[source]
        place = np.searchsorted(self.key, wanted)
        place[place == len(self.key)] = 0
        found = self.key[place] == wanted
        return place[found], source[found]


class _References(NamedTuple):
    """Prepared groups of references: for each order the cells, and of each entry the weight and
    the weight over the norm of its caption; length in bigrams of each caption; captions per group.
    """

    orders: list[tuple[_Cells, Floats, Floats]]
    bigrams: Ints
    sizes: Ints


def _group_key(group: Group) -> tuple[tuple[Hashable, ...], ...]:
    return tuple([tuple(as_tokens(text)) for text in group])


def _norms(weight: Floats, caption: Ints, captions: int) -> Floats:
    norms = np.sqrt(np.bincount(caption, weights=weight * weight, minlength=captions))
    # where the norm is 0 all weights are: any divisor gives the 0 that is wanted
    return np.where(norms > 0, norms, 1.0)


def _windows(lengths: Ints, order: int) -> Ints:
    """Where the windows of `order` + 1 entries start, within rows of these lengths."""
    return ranges(np.cumsum(lengths) - lengths, np.maximum(lengths - order, 0))


def _halves(
    order: int, grams: list[Ints], lengths: Ints, widths: list[int]
) -> tuple[Ints, Ints, tuple[int, int]]:
    """The two known parts of every n-gram of `order` + 1 tokens, and their bounds."""
    if order == 1:
        start = _windows(lengths, 1)
        return grams[0][start], grams[0][start + 1], (widths[0], widths[0])
    start = _windows(np.maximum(lengths - 1, 0), order - 1)
    if order == 2:
        return grams[1][start], grams[0][_windows(lengths, 2) + 2], (widths[1], widths[0])
    return grams[1][start], grams[1][start + 2], (widths[1], widths[1])


def _distinct(first: Ints, second: Ints, bounds: tuple[int, int]) -> tuple[Ints, Ints]:
    """Sorted distinct keys of pairs of numbers, and the rank of each pair among them."""
    position_bits = len(first).bit_length()
    bits = [max(bound, 1).bit_length() for bound in bounds]
    if sum(bits) + position_bits > _PACKED_BITS:
        return np.unique((first << _BITS) | second, return_inverse=True)
    # the position rides in the low bits: a plain sort is many times faster than an argsort
    packed = ((first << bits[1]) | second) << position_bits
    packed |= np.arange(len(first))
    packed.sort()
    position = packed & ((1 << position_bits) - 1)
    packed >>= position_bits
    new = _changes(packed)
    rank = np.empty(len(packed), dtype=np.int64)
    rank[position] = np.cumsum(new) - 1
    keys = packed[new]
    return ((keys >> bits[1]) << _BITS) | (keys & ((1 << bits[1]) - 1)), rank


def _changes(ordered: Ints) -> NDArray[np.bool_]:
    """Where a new value starts."""
    new = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return new


def _count(gram: Ints, lengths: Ints, order: int, width: int) -> tuple[Ints, Ints, Ints]:
    """Distinct n-grams of each caption: caption, number, how many times."""
    caption = np.repeat(np.arange(len(lengths)), np.maximum(lengths - order, 0))
    ordered = np.sort(caption * width + gram)
    first = np.flatnonzero(_changes(ordered))
    caption, gram = np.divmod(ordered[first], max(width, 1))
    return caption, gram, np.diff(first, append=len(ordered))


def _count_groups(grams: list[Ints], lengths: Ints, sizes: Ints, widths: list[int]) -> list[_Cells]:
    """Cells and entries of groups of captions, `sizes` captions each, one after another."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    start = np.cumsum(sizes) - sizes
    member = np.arange(len(lengths)) - start[group]
    most = int(sizes.max())
    counted = []
    for order, (gram, width) in enumerate(zip(grams, widths, strict=True)):
        windows = np.maximum(lengths - order, 0)
        ordered = np.repeat(group * width, windows)
        ordered += gram
        ordered *= most
        ordered += np.repeat(member, windows)
        ordered.sort()
        entry = np.flatnonzero(_changes(ordered))
        times = np.diff(entry, append=len(ordered))
        keys, members = np.divmod(ordered[entry], most)
        first = np.flatnonzero(_changes(keys))
        cells = keys[first]
        cell_group, cell_gram = np.divmod(cells, max(width, 1))
        first = np.append(first, len(keys))
        caption = np.repeat(start[cell_group], np.diff(first)) + members
        counted.append(_Cells(width, cells, cell_gram, first, caption, times))
    return counted


def _split(grams: list[Ints], lengths: Ints, captions: int) -> tuple[list[Ints], list[Ints]]:
    """The n-grams of the first `captions` captions, and those of the rest."""
    ends = [int(np.maximum(lengths[:captions] - order, 0).sum()) for order in range(ORDERS)]
    own = [gram[:end] for gram, end in zip(grams, ends, strict=True)]
    return own, [gram[end:] for gram, end in zip(grams, ends, strict=True)]
