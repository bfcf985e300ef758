"""What is held out of the emoji, and how what is written about them is scored."""

from __future__ import annotations

import numpy as np
import pytest

import emoji_captions
from emoji_pictures import Emoji


def emoji_of(hexcode: str, english: str, korean: str) -> Emoji:
    return Emoji(hexcode, {"en": english, "ko": korean}, {}, "objects", "clothing")


def test_an_emoji_is_alone_if_its_name_shares_no_word_in_some_language() -> None:
    emoji = [
        emoji_of("a", "red heart", "빨간 하트"),
        emoji_of("b", "blue heart", "파란 하트"),
        emoji_of("c", "crown", "파란 왕관"),  # no other crown in English
        emoji_of("d", "red hat", "모자"),  # no other hat in Korean
    ]
    assert emoji_captions.words_of_their_own(emoji) == {"c", "d"}


def test_words_are_recalled_whatever_their_order_and_number() -> None:
    names = {"a": "Red Heart", "b": "blue heart"}
    scores = emoji_captions.score(names, {"a": "heart, heart of red", "b": "crown"})
    assert scores["word recall"] == pytest.approx((1 + 0) / 2)
    right = emoji_captions.score(names, names)
    assert (right["word recall"], right["BLEU-1"]) == pytest.approx((1.0, 1.0))
    assert right["CIDEr-D"] > scores["CIDEr-D"]


def test_features_are_compared_by_their_direction() -> None:
    rows = emoji_captions.unit(np.array([[3.0, 4.0], [0.0, 2.0]], dtype=np.float32))
    assert rows == pytest.approx(np.array([[0.6, 0.8], [0.0, 1.0]]))
