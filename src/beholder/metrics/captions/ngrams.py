"""N-grams of captions as numbers, all orders in one array: what CIDEr-D counts and compares.

N-grams are numbered exactly, never hashed: a token by its id, a bigram by its two tokens, a trigram
by a bigram and a token, a 4-gram by two bigrams.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beholder.metrics.captions.tokens import Ints, ranges

ORDERS = 4
BLOCK = 512  # groups or captions at once: their n-grams fit the processor's cache
_BITS = 31  # room for each half of an n-gram's key
_NO_KEY = np.iinfo(np.int64).max  # above every key
_PACKED_BITS = 63  # room for a key and its position together


class Ngrams:
    """The n-grams of captions by the token that they start with, numbered order by order.

    Args:
        flat: token ids of all captions.
        lengths: tokens per caption.
        words: bound of the ids.
    """

    def __init__(self, flat: Ints, lengths: Ints, words: int) -> None:
        self.lengths = lengths
        self.widths = [words]  # bound of the numbers of each order
        self._ends = np.cumsum(lengths)
        self._numbers = [flat]
        # tokens from each token to the end of its caption
        left = np.repeat(self._ends, lengths) - np.arange(len(flat))
        self._starts = [np.flatnonzero(left > order) for order in range(ORDERS)]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def bits(self) -> int:
        """Of the largest number in `block`."""
        return (ORDERS * max(self.widths)).bit_length()

    def halves(self) -> tuple[Ints, Ints, tuple[int, int]]:
        """The two known parts of every n-gram of the next order, and their bounds."""
        order = len(self._numbers)
        start = self._starts[order]
        first, second = (1, 1) if order == 3 else (order - 1, 0)
        following = start + order - second
        bounds = self.widths[first], self.widths[second]
        return self._numbers[first][start], self._numbers[second][following], bounds

    def add(self, numbers: Ints, width: int) -> None:
        """Keep the numbers, below `width`, of the n-grams that `halves` gave."""
        by_token = np.zeros_like(self._numbers[0])
        by_token[self._starts[len(self._numbers)]] = numbers
        self._numbers.append(by_token)
        self.widths.append(width)

    def block(self, first: int, last: int) -> tuple[Ints, Ints]:
        """All n-grams of captions `first` to `last` - 1: their numbers, and their captions from 0.

        The number of an n-gram is 4 times that within its order, plus n - 1.
        """
        lengths = self.lengths[first:last]
        tokens = self._ends[first] - lengths[0], self._ends[last - 1]
        starts = [start[slice(*np.searchsorted(start, tokens))] for start in self._starts]
        numbers = [
            by_token[start] * ORDERS + order
            for order, (by_token, start) in enumerate(zip(self._numbers, starts, strict=True))
        ]
        caption = np.repeat(np.arange(last - first), lengths)
        return np.concatenate(numbers), caption[np.concatenate(starts) - tokens[0]]


class NgramIndex:
    """The n-grams of a corpus, numbered; they are its `ngrams`.

    Args:
        flat: token ids of all captions.
        lengths: tokens per caption.
        words: bound of the ids.
    """

    def __init__(self, flat: Ints, lengths: Ints, words: int) -> None:
        self._keys: list[Ints] = []  # sorted keys of bigrams, trigrams and 4-grams
        self.ngrams = Ngrams(flat, lengths, words)
        for _ in range(1, ORDERS):
            keys, numbers = _distinct(*self.ngrams.halves())
            self._keys.append(np.append(keys, _NO_KEY))
            self.ngrams.add(numbers, len(keys))

    def number(self, flat: Ints, lengths: Ints, words: int) -> Ngrams:
        """The n-grams of other captions; those that the corpus lacks have numbers of their own.

        Args:
            flat: token ids; a token that the corpus lacks has one from `words` of the corpus on.
            lengths: tokens per caption.
            words: bound of these ids.
        """
        ngrams = Ngrams(flat, lengths, words)
        lacking = max(self.ngrams.widths)  # above the known n-grams of all orders
        for known_keys in self._keys:
            keys, rank = _distinct(*ngrams.halves())
            numbers = np.searchsorted(known_keys, keys)
            unknown = np.flatnonzero(known_keys[numbers] != keys)
            numbers[unknown] = np.arange(lacking, lacking + len(unknown))
            ngrams.add(numbers[rank], lacking + len(unknown))
        return ngrams


def count(ngrams: Ngrams, first: int, last: int) -> tuple[Ints, Ints, Ints]:
    """Distinct n-grams of each caption of a block: caption, number, how many times."""
    number, caption = ngrams.block(first, last)
    ordered = np.sort((caption << ngrams.bits) | number)
    start = np.flatnonzero(_changes(ordered))
    caption, number = _parts(ordered[start], ngrams.bits)
    return caption, number, np.diff(start, append=len(ordered))


class Cells(NamedTuple):
    """The n-grams of groups of captions, group by group.

    A cell is an n-gram of a group: `number`, ascending. The cells of group g are those from
    group_first[g] to group_first[g + 1]. The entries of cell c are those from first[c] to
    first[c + 1]: `caption` that has it, and how many `times`. All numbers are below `limit`.
    """

    limit: int
    number: Ints
    group_first: Ints
    first: Ints
    caption: Ints
    times: Ints

    @classmethod
    def build(cls, ngrams: Ngrams, sizes: Ints, first: int = 0) -> Cells:
        """Of the captions from `first` on, in groups of `sizes` captions each."""
        parts = []
        for start in range(0, len(sizes), BLOCK):
            some = sizes[start : start + BLOCK]
            parts.append(_cells(ngrams, some, first))
            first += int(some.sum())
        numbers, counts, entries, captions, times = map(np.concatenate, zip(*parts, strict=True))
        return cls(
            limit=int(numbers.max(initial=-1)) + 1,
            number=numbers,
            group_first=np.append(0, np.cumsum(counts)),
            first=np.append(0, np.cumsum(entries)),
            caption=captions,
            times=times,
        )

    def find(self, groups: Ints, caption: Ints, number: Ints, bits: int) -> tuple[Ints, Ints]:
        """Cells of those n-grams that the group of their caption has, and their positions.

        Args:
            groups: the group that each caption is looked up in.
            caption, number: the n-grams looked for; numbers have so many `bits`.
        """
        # only the cells of these groups are searched: few, and next to each other in memory
        source = np.flatnonzero(number < self.limit)
        is_asked = np.zeros(len(self.group_first) - 1, dtype=bool)
        is_asked[groups] = True
        chosen = np.flatnonzero(is_asked)
        row = (np.cumsum(is_asked) - 1)[groups]
        start = self.group_first[chosen]
        counts = self.group_first[chosen + 1] - start
        cells = ranges(start, counts)
        keys = np.repeat(np.arange(len(chosen)) << bits, counts) | self.number[cells]
        if not len(keys):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        wanted = (row[caption[source]] << bits) | number[source]
        place = np.searchsorted(keys, wanted)
        place[place == len(keys)] = 0
        found = keys[place] == wanted
        return cells[place[found]], source[found]


def _cells(ngrams: Ngrams, sizes: Ints, first: int) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Of groups of captions from `first` on: the number of each cell, the cells of each group, the
    entries of each cell; caption and times of each entry."""
    number, caption = ngrams.block(first, first + int(sizes.sum()))
    start = np.cumsum(sizes) - sizes
    group = np.repeat(np.arange(len(sizes)), sizes)
    member_bits = int(sizes.max()).bit_length()
    member = np.arange(len(group)) - start[group]
    ordered = ((group << (ngrams.bits + member_bits)) | member)[caption]
    ordered |= number << member_bits
    ordered.sort()
    entry = np.flatnonzero(_changes(ordered))
    keys, members = _parts(ordered[entry], member_bits)
    cell = np.flatnonzero(_changes(keys))
    cell_group, number = _parts(keys[cell], ngrams.bits)
    entries = np.diff(cell, append=len(keys))
    captions = np.repeat(start[cell_group] + first, entries) + members
    counts = np.bincount(cell_group, minlength=len(sizes))
    return number, counts, entries, captions, np.diff(entry, append=len(ordered))


def _parts(packed: Ints, bits: int) -> tuple[Ints, Ints]:
    """What is above the lowest `bits`, and those."""
    return packed >> bits, packed & ((1 << bits) - 1)


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
