"""Numbers for the words of many captions at once, from their bytes: no word is made.

The first seven bytes of a word and how many they are (8: there are more) make a key of 64 bits, and
keys are numbered exactly. A longer word goes on from its number with its next four bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]

_HEAD, _STEP = 7, 4  # bytes of a word in its first key, and in each later one
_NUMBER_BITS = 29  # room for a number in a later key, beside its bytes and how many they are
_COUNT_BITS = np.uint64(3)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing, Knuth, TAOCP 3, 6.4
_SPACE = re.compile(r"\s")


def number_words(captions: Sequence[str]) -> tuple[Ints, Ints, int]:
    """Number the words of captions, as `str.split` parts them.

    Returns:
        One number per word, of all captions in one array, equal for equal words alone; the words
        per caption; a bound that all numbers are below.
    """
    if not captions:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), 0
    text = "\n".join(captions)
    if not _is_plain(text, len(captions)):
        text = "\n".join([_SPACE.sub(" ", caption) for caption in captions])
    padded = f"\n{text}\n".encode("utf-8", "surrogatepass") + bytes(8)
    letters = np.frombuffer(padded, dtype=np.uint8)[:-8]
    is_end = letters == ord("\n")
    is_gap = (letters == ord(" ")) | is_end
    edges = np.flatnonzero(is_gap[1:] != is_gap[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    numbers, bound = _number(padded, starts, ends - starts)
    return numbers, np.diff(np.searchsorted(starts, np.flatnonzero(is_end))), bound


def _is_plain(text: str, captions: int) -> bool:
    """Whether the white space of joined captions is spaces, and line ends between them."""
    if text.isascii():
        letters = np.frombuffer(text.encode(), dtype=np.uint8)
        return int(np.count_nonzero(letters < ord(" "))) == text.count("\n") == captions - 1
    # the space is the only white space that can be printed
    return text.count("\n") == captions - 1 and text.replace("\n", "").isprintable()


def _number(padded: bytes, starts: Ints, lengths: Ints) -> tuple[Ints, int]:
    # the eight bytes from every byte on, first byte lowest
    window = np.ndarray(len(padded) - 7, dtype="<u8", buffer=padded, strides=(1,))
    numbers, bound = _dense(_pack(window[starts], lengths, _HEAD))
    rest, offset = np.flatnonzero(lengths > _HEAD), _HEAD
    while len(rest):
        assert bound < 1 << _NUMBER_BITS
        left = lengths[rest] - offset
        keys = _pack(window[starts[rest] + offset], left, _STEP)
        keys |= numbers[rest].view(np.uint64) << _COUNT_BITS
        # above all numbers so far: words that have ended keep theirs
        longer, distinct = _dense(keys)
        numbers[rest] = longer + bound
        bound += distinct
        offset += _STEP
        rest = rest[left > _STEP]
    return numbers, bound


def _pack(following: Keys, lengths: Ints, kept: int) -> Keys:
    """At the top the up to `kept` bytes that belong to the word, at the bottom how many there are,
    `kept` + 1 for more."""
    packed = following << (64 - 8 * np.minimum(lengths, kept)).view(np.uint64)
    packed |= np.minimum(lengths, kept + 1).view(np.uint64)
    return packed


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
