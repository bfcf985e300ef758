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
_PACKED_BITS = 63  # room for a key and its position together


class Ngrams(NamedTuple):
    """Every n-gram of some captions: its number, below `width`, and the caption that has it."""

    number: Ints
    caption: Ints
    width: int


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
        grams = [flat]
        for order in range(1, ORDERS):
            first, second, bounds = _halves(order, grams, lengths, self._sizes)
            keys, numbers = _distinct(first, second, bounds)
            self._keys.append(keys)
            self._sizes.append(len(keys))
            grams.append(numbers)
        self.ngrams = _join(grams, lengths, self._sizes)

    def number(self, flat: Ints, lengths: Ints, words: int) -> Ngrams:
        """The n-grams of other captions; those that the corpus lacks have numbers of their own.

        Args:
            flat: token ids; a token that the corpus lacks has one from `words` of the corpus on.
            lengths: tokens per caption.
            words: bound of these ids.
        """
        grams, widths = [flat], [words]
        for order in range(1, ORDERS):
            first, second, bounds = _halves(order, grams, lengths, widths)
            keys, numbers = _distinct(first, second, bounds)
            known_keys = self._keys[order - 1]
            place = np.searchsorted(known_keys, keys)
            place[place == len(known_keys)] = 0
            unknown = known_keys[place] != keys if len(known_keys) else np.ones(len(keys), bool)
            rank = np.cumsum(unknown)
            place = np.where(unknown, self._sizes[order] + rank - 1, place)
            grams.append(place[numbers])
            widths.append(self._sizes[order] + int(unknown.sum()))
        return _join(grams, lengths, widths)


def _join(grams: list[Ints], lengths: Ints, widths: list[int]) -> Ngrams:
    number = np.concatenate(grams) * ORDERS
    captions = np.arange(len(lengths))
    ends = np.cumsum([len(gram) for gram in grams])
    for order in range(1, ORDERS):
        number[ends[order - 1] : ends[order]] += order
    caption = [np.repeat(captions, np.maximum(lengths - order, 0)) for order in range(ORDERS)]
    return Ngrams(number, np.concatenate(caption), ORDERS * max(*widths, 1))


def count(ngrams: Ngrams) -> tuple[Ints, Ints, Ints]:
    """Distinct n-grams of each caption, caption by caption: caption, number, how many times."""
    ordered = np.sort(ngrams.caption * ngrams.width + ngrams.number)
    first = np.flatnonzero(_changes(ordered))
    caption, number = np.divmod(ordered[first], ngrams.width)
    return caption, number, np.diff(first, append=len(ordered))


class Cells(NamedTuple):
    """The n-grams of groups of captions, group by group.

    A cell is an n-gram of a group: `number`, ascending. The cells of group g are those from
    group_first[g] to group_first[g + 1]. The entries of cell c are those from first[c] to
    first[c + 1]: `caption` that has it, and how many `times`.
    """

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
        most = int(sizes.max())
        member = np.arange(len(group)) - start[group]
        offset = group * (ngrams.width * most) + member
        ordered = offset[ngrams.caption]
        ordered += ngrams.number * most
        ordered.sort()
        entry = np.flatnonzero(_changes(ordered))
        keys, members = np.divmod(ordered[entry], most)
        cell = np.flatnonzero(_changes(keys))
        cell_group, number = np.divmod(keys[cell], ngrams.width)
        first = np.append(cell, len(keys))
        return cls(
            number=number,
            group_first=np.searchsorted(cell_group, np.arange(len(sizes) + 1)),
            first=first,
            caption=np.repeat(start[cell_group], np.diff(first)) + members,
            times=np.diff(entry, append=len(ordered)),
        )

    def find(self, groups: Ints, caption: Ints, number: Ints, width: int) -> tuple[Ints, Ints]:
        """Cells of those n-grams that the group of their caption has, and their positions.

        Args:
            groups: the group that each caption is looked up in.
            caption, number: the n-grams looked for; numbers are below `width`.
        """
        # only the cells of these groups are searched: few, and next to each other in memory
        chosen, row = np.unique(groups, return_inverse=True)
        start = self.group_first[chosen]
        counts = self.group_first[chosen + 1] - start
        cells = ranges(start, counts)
        keys = np.repeat(np.arange(len(chosen)) * width, counts) + self.number[cells]
        if not len(keys):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        wanted = row[caption] * width + number
        place = np.searchsorted(keys, wanted)
        place[place == len(keys)] = 0
        source = np.flatnonzero(keys[place] == wanted)
        return cells[place[source]], source


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
