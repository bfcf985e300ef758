"""Numbering of words against splitting and a dictionary."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beholder.metrics.captions import word_numbers
from beholder.metrics.captions.word_numbers import number_words

SIGNS = "ab\0\x01\x7fé한😀\udc80 \t\n\r\x1c\x85\u00a0\u2028\u3000"
TEXTS = st.lists(st.text(st.sampled_from(SIGNS), max_size=40), max_size=12)


def check(captions: list[str]) -> None:
    numbers, lengths, bound = number_words(captions)
    split = [caption.split() for caption in captions]
    flat = [word for row in split for word in row]
    assert lengths.tolist() == [len(row) for row in split]
    assert len(numbers) == len(flat)
    assert all(0 <= number < bound for number in numbers.tolist())
    pairs = set(zip(flat, numbers.tolist(), strict=True))
    assert len(pairs) == len(set(flat)) == len(set(numbers.tolist()))


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_equal_numbers_for_equal_words_alone(captions: list[str]) -> None:
    check(captions)


def test_long_words_that_differ_in_one_place() -> None:
    rng = random.Random(0)
    base = "abcdefghijklmnopqrstuvwxyz"
    changed = [base[:at] + sign + base[at + 1 :] for at in range(26) for sign in "XY"]
    cut = [base[:at] for at in range(1, 27)]
    captions = [" ".join(rng.choices(changed + cut, k=9)) for _ in range(300)]
    check(captions)
    check(["  a  b ", "", " ", "a"])


def test_keys_that_share_a_slot_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    captions = [f"w{index} {index} word{index % 7} {index}" for index in range(500)]
    before = number_words(captions)
    # all keys in one slot: all but one are lost
    monkeypatch.setattr(word_numbers, "_MULTIPLIER", np.uint64(0))
    after = number_words(captions)
    assert after[1].tolist() == before[1].tolist()
    assert len(set(zip(before[0].tolist(), after[0].tolist(), strict=True))) == len(set(before[0]))
    check(captions)
