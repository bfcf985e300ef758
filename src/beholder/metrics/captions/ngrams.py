"""N-grams of captions as numbers, all orders in one array: what CIDEr-D counts and compares.

N-grams are numbered exactly, never hashed: a token by its id, a bigram by its two tokens, a trigram
by a bigram and a token, a 4-gram by two bigrams. The number of an n-gram is 4 times its number
among those of its length, plus n - 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beholder.metrics.captions.tokens import Ints, ranges

ORDERS = 4
_BITS = 31  # room for each half of an n-gram's key
_NO_KEY = np.iinfo(np.int64).max  # above every key
_PACKED_BITS = 63  # room for a key and its position together


class Ngrams(NamedTuple):
    """Every n-gram of some captions: its number, of so many `bits`, and the caption that has it."""

    number: Ints
    caption: Ints
    bits: int


class NgramIndex:
    """The n-grams of a corpus.

    Args:
        flat: token ids of all captions.
        lengths: tokens per caption.
        words: bound of the ids.
    """

    def __init__(self, flat: Ints, lengths: Ints, words: int) -> None:
        self._keys: list[Ints] = []  # sorted keys of bigrams, trigrams and 4-grams
        self._sizes = [words]  # distinct n-grams of each order
        windows = _Windows(flat, lengths)
        for order in range(1, ORDERS):
            first, second, bounds = windows.halves(order, self._sizes)
            keys, numbers = _distinct(first, second, bounds)
            self._keys.append(np.append(keys, _NO_KEY))
            self._sizes.append(len(keys))
            windows.keep(order, numbers)
        self.ngrams = windows.join(self._sizes)

    def number(self, flat: Ints, lengths: Ints, words: int) -> Ngrams:
        """The n-grams of other captions; those that the corpus lacks have numbers of their own.

        Args:
            flat: token ids; a token that the corpus lacks has one from `words` of the corpus on.
            lengths: tokens per caption.
            words: bound of these ids.
        """
        windows, widths = _Windows(flat, lengths), [words]
        lacking = max(self._sizes)  # above the known n-grams of all orders
        for order in range(1, ORDERS):
            first, second, bounds = windows.halves(order, widths)
            keys, rank = _distinct(first, second, bounds)
            known_keys = self._keys[order - 1]
            numbers = np.searchsorted(known_keys, keys)
            unknown = np.flatnonzero(known_keys[numbers] != keys)
            numbers[unknown] = np.arange(lacking, lacking + len(unknown))
            windows.keep(order, numbers[rank])
            widths.append(lacking + len(unknown))
        return windows.join(widths)


class _Windows:
    """The n-grams of captions by the token that they start with, numbered order by order."""

    def __init__(self, flat: Ints, lengths: Ints) -> None:
        self.caption = np.repeat(np.arange(len(lengths)), lengths)
        left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(flat))
        self.starts = [np.flatnonzero(left > order) for order in range(ORDERS)]
        self.numbers = [flat]

    def halves(self, order: int, widths: list[int]) -> tuple[Ints, Ints, tuple[int, int]]:
        """The two known parts of every n-gram of `order` + 1 tokens, and their bounds."""
        start = self.starts[order]
        second = 1 if order == 3 else 0
        shift = order - second
        bounds = widths[order - 1 - second], widths[second]
        return self.numbers[order - 1 - second][start], self.numbers[second][start + shift], bounds

    def keep(self, order: int, numbers: Ints) -> None:
        by_token = np.zeros_like(self.numbers[0])
        by_token[self.starts[order]] = numbers
        self.numbers.append(by_token)

    def join(self, widths: list[int]) -> Ngrams:
        """All orders in one array."""
        orders = [
            numbers[start] * ORDERS + order
            for order, (numbers, start) in enumerate(zip(self.numbers, self.starts, strict=True))
        ]
        caption = np.concatenate([self.caption[start] for start in self.starts])
        return Ngrams(np.concatenate(orders), caption, (ORDERS * max(widths)).bit_length())


def count(ngrams: Ngrams) -> tuple[Ints, Ints, Ints]:
    """Distinct n-grams of each caption, caption by caption: caption, number, how many times."""
    ordered = np.sort((ngrams.caption << ngrams.bits) | ngrams.number)
    first = np.flatnonzero(_changes(ordered))
    caption, number = _parts(ordered[first], ngrams.bits)
    return caption, number, np.diff(first, append=len(ordered))


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
    def build(cls, ngrams: Ngrams, sizes: Ints) -> Cells:
        """Of groups of `sizes` captions each, one after another."""
        start = np.cumsum(sizes) - sizes
        group = np.repeat(np.arange(len(sizes)), sizes)
        member_bits = int(sizes.max()).bit_length()
        member = np.arange(len(group)) - start[group]
        ordered = ((group << (ngrams.bits + member_bits)) | member)[ngrams.caption]
        ordered |= ngrams.number << member_bits
        ordered.sort()
        entry = np.flatnonzero(_changes(ordered))
        keys, members = _parts(ordered[entry], member_bits)
        cell = np.flatnonzero(_changes(keys))
        cell_group, number = _parts(keys[cell], ngrams.bits)
        first = np.append(cell, len(keys))
        return cls(
            limit=int(number.max(initial=-1)) + 1,
            number=number,
            group_first=np.searchsorted(cell_group, np.arange(len(sizes) + 1)),
            first=first,
            caption=np.repeat(start[cell_group], np.diff(first)) + members,
            times=np.diff(entry, append=len(ordered)),
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
