"""N-grams of captions: which of them captions have in common, and how many pictures of a corpus do.

No n-gram is built or hashed. Two captions share one where they have as many equal tokens in a row.
Document frequencies need numbers: an n-gram has one by those of its first and its last n - 1
tokens. One of a single picture weighs as much in CIDEr-D as one of none, so that only those of two
or more are kept, and as all parts of such an n-gram are of two or more, few are ever looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beholder.metrics.captions.tokens import Ints, ranges

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ORDERS = 4
BLOCK = 512  # captions compared at once: what they have in common fits the processor's cache
HYPOTHESIS_END, REFERENCE_END = -1, -2  # never equal, so that no n-gram goes on past them
_BITS = 31  # room for each half of an n-gram's key
_NO_KEY = np.iinfo(np.int64).max  # above every key
_PACKED_BITS = 63  # room for a key and its position together


class Text(NamedTuple):
    """Captions in one array.

    Args:
        tokens: ids of a caption's tokens, then its end, then those of the next caption.
        caption: that each of them belongs to.
        first: where each caption starts, and the length of `tokens`.
    """

    tokens: Ints
    caption: Ints
    first: Ints

    @classmethod
    def build(cls, flat: Ints, lengths: Ints, end: int) -> Text:
        first = np.append(0, np.cumsum(lengths + 1))
        caption = np.repeat(np.arange(len(lengths)), lengths + 1)
        tokens = np.full(len(caption), end)
        tokens[np.arange(len(flat)) + np.repeat(np.arange(len(lengths)), lengths)] = flat
        return cls(tokens, caption, first)

    def part(self, first: int, last: int) -> Text:
        """Captions `first` to `last` - 1."""
        start, end = self.first[first], self.first[last]
        captions = self.caption[start:end] - first
        return Text(self.tokens[start:end], captions, self.first[first : last + 1] - start)


def common(
    mine: Ints, my_group: Ints, theirs: Ints, their_group: Ints
) -> Iterator[tuple[Ints, Ints]]:
    """For n from 1 to 4: the places of equal n-grams in texts of the same group, mine and theirs.

    Ordered by my place, then by theirs.

    Args:
        mine, theirs: tokens with ends, which must differ.
        my_group, their_group: of each token.
    """
    bits = max(int(mine.max(initial=0)), int(theirs.max(initial=0))).bit_length()
    my_place, their_place = np.flatnonzero(mine >= 0), np.flatnonzero(theirs >= 0)
    ordered, position = _sorted((their_group[their_place] << bits) | theirs[their_place])
    start = np.flatnonzero(changes(ordered))
    known = np.append(ordered[start], _NO_KEY)
    wanted = (my_group[my_place] << bits) | mine[my_place]
    number = np.searchsorted(known, wanted)
    is_known = np.flatnonzero(known[number] == wanted)
    number = number[is_known]
    counts = run_lengths(start, len(ordered))[number]
    position_mine = np.repeat(my_place[is_known], counts)
    position_theirs = their_place[position[ranges(start[number], counts)]]
    yield position_mine, position_theirs
    for order in range(1, ORDERS):
        longer = np.flatnonzero(mine[position_mine + order] == theirs[position_theirs + order])
        position_mine, position_theirs = position_mine[longer], position_theirs[longer]
        yield position_mine, position_theirs


class Frequencies:
    """log P - log df of n-grams of 1 to 4 tokens, df counted over the P pictures of a corpus.

    Args:
        corpus: the references of all pictures.
        picture: of each of its tokens, ascending.
        pictures: how many.
    """

    def __init__(self, corpus: Text, picture: Ints, pictures: int) -> None:
        self._log_pictures = float(np.log(float(pictures)))
        position = np.flatnonzero(corpus.tokens >= 0)
        words = np.unique(corpus.tokens[position] * pictures + picture[position]) // pictures
        # the last entry stands for all words that the corpus lacks
        self._words = self._weight(np.append(np.bincount(words), 0))
        self._keys: list[Ints] = []  # n-grams of two pictures or more, sorted, for n from 2 to 4
        self._idf: list[Floats] = []
        position, keys = _longer(position, corpus.tokens[position])
        for _ in range(1, ORDERS):
            distinct, rank, pictures_each = _distinct(keys, picture[position])
            shared = pictures_each > 1
            self._keys.append(np.append(distinct[shared], _NO_KEY))
            self._idf.append(self._weight(pictures_each[shared]))
            known = np.flatnonzero(shared[rank])
            number = (np.cumsum(shared) - 1)[rank[known]]
            position, keys = _longer(position[known], number)

    def _weight(self, pictures_each: Ints) -> Floats:
        return self._log_pictures - np.log(np.maximum(1, pictures_each))

    def idf(self, text: Text) -> Floats:
        """[4, T]: of the n-gram from each place of a text on, n from 1 to 4."""
        idf = np.full((ORDERS, len(text.tokens)), self._log_pictures)
        idf[0] = self._words.take(text.tokens, mode="clip")
        position = np.flatnonzero(text.tokens >= 0)
        position, keys = _longer(position, text.tokens[position])
        for order, (shared, weight) in enumerate(zip(self._keys, self._idf, strict=True), 1):
            number = np.searchsorted(shared, keys)
            known = np.flatnonzero(shared[number] == keys)
            position, number = position[known], number[known]
            idf[order, position] = weight[number]
            position, keys = _longer(position, number)
        return idf


def run_lengths(start: Ints, total: int) -> Ints:
    """Of runs that start there and cover `total` places."""
    return np.append(start[1:], total)[: len(start)] - start


def _longer(position: Ints, number: Ints) -> tuple[Ints, Ints]:
    """From known n-grams those one token longer that have two of them: where, and their keys."""
    first = np.flatnonzero(position[1:] - position[:-1] == 1)
    return position[first], (number[first] << _BITS) | number[first + 1]


def _distinct(keys: Ints, picture: Ints) -> tuple[Ints, Ints, Ints]:
    """Sorted distinct keys, the rank of each key among them, and the pictures of each.

    Args:
        keys: of n-grams in the order of their places.
        picture: of each, ascending.
    """
    ordered, position = _sorted(keys)
    is_new = changes(ordered)
    rank = np.empty(len(keys), dtype=np.int64)
    rank[position] = np.cumsum(is_new) - 1
    # equal keys keep their order, and so do their pictures
    first = np.flatnonzero(is_new | changes(picture[position]))
    return ordered[is_new], rank, np.bincount(rank[position[first]], minlength=int(is_new.sum()))


def _sorted(keys: Ints) -> tuple[Ints, Ints]:
    """Keys in order, and the position that each had; equal ones keep theirs."""
    first, second = keys >> _BITS, keys & ((1 << _BITS) - 1)
    bits = int(second.max(initial=0)).bit_length()
    position_bits = len(keys).bit_length()
    if int(first.max(initial=0)).bit_length() + bits + position_bits > _PACKED_BITS:
        position = np.argsort(keys, kind="stable")
        return keys[position], position
    # the position rides in the low bits: a plain sort is many times faster than an argsort
    packed = ((first << bits) | second) << position_bits
    packed |= np.arange(len(keys))
    packed.sort()
    position = packed & ((1 << position_bits) - 1)
    return keys[position], position


def changes(ordered: Ints) -> Bools:
    """Where a new value starts."""
    new = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return new
