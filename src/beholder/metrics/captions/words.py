"""Numbers for the words of many captions at once, from their bytes: no word is made.

The first seven bytes of a word and its length (8 stands for any longer one) make a key of 64 bits,
and keys are numbered exactly. A longer word goes on from its number with its next four bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]

_HEAD, _STEP = 7, 4  # bytes of a word in its first key, and in each later one
_NUMBER_BITS = 29  # room for a number in a later key, beside the bytes and how many they are
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing, Knuth, TAOCP 3, 6.4
_SPACE = re.compile(r"\s")


def number_words(captions: Sequence[str]) -> tuple[Ints, Ints, int]:
    """Number the words of captions, as `str.split` parts them.

    Returns:
        One number per word, of all captions in one array, equal for equal words alone; the words
        per caption; a bound that all numbers are below, at most the number of words.
    """
    if not captions:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), 0
    text = "\n".join(captions)
    # printable: the only white space is the space
    if text.count("\n") != len(captions) - 1 or not text.replace("\n", "").isprintable():
        text = "\n".join([_SPACE.sub(" ", caption) for caption in captions])
    padded = f"\n{text}\n".encode("utf-8", "surrogatepass") + bytes(8)
    letters = np.frombuffer(padded, dtype=np.uint8)[:-8]
    is_end = letters == ord("\n")
    is_gap = (letters == ord(" ")) | is_end
    edges = np.flatnonzero(is_gap[1:] != is_gap[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    numbers, bound = _number(padded, starts, ends - starts)
    return numbers, np.diff(np.searchsorted(starts, np.flatnonzero(is_end))), bound


def _number(padded: bytes, starts: Ints, lengths: Ints) -> tuple[Ints, int]:
    # the eight bytes from every byte on, first byte lowest
    window = np.ndarray(len(padded) - 7, dtype="<u8", buffer=padded, strides=(1,))
    numbers, bound = _dense(_pack(window[starts], lengths, _HEAD))
    rest, place = np.flatnonzero(lengths > _HEAD), _HEAD
    while len(rest):
        assert bound < 1 << _NUMBER_BITS
        keys = _pack(window[starts[rest] + place], lengths[rest] - place, _STEP)
        keys |= numbers[rest].astype(np.uint64) << np.uint64(64 - _NUMBER_BITS)
        # above all numbers so far: words that have ended keep theirs
        longer, distinct = _dense(keys)
        numbers[rest] = longer + bound
        bound += distinct
        place += _STEP
        rest = rest[lengths[rest] > place]
    return numbers, bound


def _pack(bytes_of: Keys, lengths: Ints, kept: int) -> Keys:
    """The lowest `kept` bytes that belong to the word, and above them how many there are."""
    some = range(kept + 2)
    masks = np.array([(1 << 8 * min(count, kept)) - 1 for count in some], dtype=np.uint64)
    marks = np.array([count << 8 * kept for count in some], dtype=np.uint64)
    count = np.minimum(lengths, kept + 1)
    return (bytes_of & masks[count]) | marks[count]


def _dense(keys: Keys) -> tuple[Ints, int]:
    """Numbers of keys, 0 to the number of distinct ones, and that number.

    Every key has a slot of a table; those that find another key there are sorted instead.
    """
    bits = max(len(keys).bit_length(), 1)
    slots = ((keys * _MULTIPLIER) >> np.uint64(64 - bits)).astype(np.int64)
    table = np.empty(1 << bits, dtype=np.uint64)
    table[slots] = keys
    lost = np.flatnonzero(table[slots] != keys)
    bound = len(table)
    if len(lost):
        others, slots[lost] = np.unique(keys[lost], return_inverse=True)
        slots[lost] += bound
        bound += len(others)
    used = np.zeros(bound, dtype=bool)
    used[slots] = True
    numbers = np.cumsum(used) - 1
    return numbers[slots], int(numbers[-1]) + 1
