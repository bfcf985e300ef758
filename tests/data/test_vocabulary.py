"""Normalisation against the published one, and the vocabulary's promises."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beholder.data.vocabulary import Vocabulary, comment_words, display_form, normalise_caption
from beholder.errors import VocabularyError

GOLDEN = Path(__file__).parents[1] / "golden"
DROPPED = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}


def spelled_out_normalisation(text: str) -> list[str]:
    """The published steps one after the other: an independent path to the same words."""
    spaced = re.sub(r"([^\w0-9])", r" \1 ", text.lower().rstrip())
    return [word for word in spaced.split(" ") if word and word not in DROPPED]


@pytest.mark.parametrize(
    ("caption", "words"), json.loads((GOLDEN / "normalised_captions.json").read_text())
)
def test_normalisation_as_published(caption: str, words: list[str]) -> None:
    assert normalise_caption(caption) == words


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_normalisation_equals_its_steps(text: str) -> None:
    assert normalise_caption(text) == spelled_out_normalisation(text)


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("हिन्दी में चित्र।", ["हिन्दी", "में", "चित्र", "।"]),
        ("ภาพนี้สวยมาก", ["ภาพนี้สวยมาก"]),
        ("صُورَة جميلة", ["صُورَة", "جميلة"]),
        ("Ảnh rất đẹp", ["ảnh", "rất", "đẹp"]),
        ("\u0130zmir, I\u0307zmir and izmir", ["izmir", "izmir", "and", "izmir"]),
        ("a\tb\u00a0c\u3000d\u2003e\u200bf\u2028g", list("abcdefg")),
        ("cafe\u0301 caf\u00e9", ["caf\u00e9", "caf\u00e9"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("soft\u00adhyphen \ufeffmark", ["softhyphen", "mark"]),
    ],
)
def test_words_of_all_scripts_stay_whole(caption: str, words: list[str]) -> None:
    assert comment_words(caption) == words
    assert comment_words(unicodedata.normalize("NFD", caption)) == words


@given(st.text())
def test_no_white_space_or_lone_mark_is_a_word(text: str) -> None:
    for word in comment_words(text):
        assert not any(sign.isspace() for sign in word)
        assert unicodedata.category(word[0])[0] != "M"
    assert comment_words(text) == comment_words(unicodedata.normalize("NFD", text))


def test_special_words_come_first_and_words_are_sorted() -> None:
    vocabulary = Vocabulary.build(["Zebra, 3 apples!", "an apple"])
    assert vocabulary.tokens == ("EOS", "PAD", "SOS", "UNK", "3", "an", "apple", "apples", "zebra")
    assert (vocabulary.eos, vocabulary.pad, vocabulary.bos, vocabulary.unk) == (0, 1, 2, 3)


def test_rare_words_become_unknown() -> None:
    vocabulary = Vocabulary.build(["good colour", "good light", "bad light"], min_count=2)
    assert vocabulary.tokens[4:] == ("good", "light")
    assert vocabulary.encode("good bad light") == [2, 4, 3, 5, 0]


def test_order_of_comments_does_not_matter() -> None:
    comments = ["too dark", "nice sky", "nice mood, too soft"]
    assert Vocabulary.build(comments) == Vocabulary.build(reversed(comments))


@given(st.lists(st.text(min_size=1), min_size=1))
def test_encode_then_decode_gives_the_words_back(comments: list[str]) -> None:
    if not any(comment_words(comment) for comment in comments):
        return
    vocabulary = Vocabulary.build(comments)
    for comment in comments:
        assert vocabulary.words(vocabulary.encode(comment)) == comment_words(comment)


def test_encode_cuts_words_but_keeps_the_end() -> None:
    vocabulary = Vocabulary.build(["a b c d"])
    assert vocabulary.encode("a b c d", max_length=4) == [2, 4, 5, 0]


def test_decode_stops_at_the_first_end_and_skips_pads() -> None:
    vocabulary = Vocabulary.build(["a b"])
    assert vocabulary.decode([2, 4, 1, 5, 0, 4, 4]) == "a b"
    assert vocabulary.decode([2, 0]) == ""


def test_dictionary_round_trip() -> None:
    vocabulary = Vocabulary.build(["schönes Licht", "하늘이 예뻐요"])
    assert Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary


def test_special_ids_of_a_foreign_order_are_found() -> None:
    vocabulary = Vocabulary(["\n", "EOS", "PAD", "SOS", "UNK", "a"])
    assert vocabulary.encode("a z") == [3, 5, 4, 1]


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"kind": "words"},
        {"kind": "words", "tokens": "EOS"},
        {"kind": "words", "tokens": ["EOS", "PAD", "SOS"]},
        {"kind": "words", "tokens": ["EOS", "PAD", "SOS", "UNK", 5]},
        {"kind": "words", "tokens": ["EOS", "PAD", "SOS", "UNK", "a", "a"]},
        {"kind": "bpe", "tokens": ["EOS", "PAD", "SOS", "UNK", "a"]},
    ],
)
def test_damaged_dictionaries_are_refused(content: dict[str, object]) -> None:
    with pytest.raises(VocabularyError):
        Vocabulary.from_dict(content)


def test_comments_without_words_are_refused() -> None:
    with pytest.raises(VocabularyError, match="No word occurs"):
        Vocabulary.build(["...", "!"])


def test_an_id_outside_is_refused() -> None:
    with pytest.raises(VocabularyError, match="99"):
        Vocabulary.build(["a"]).decode([2, 99, 0])


def test_display_form() -> None:
    assert display_form("nice sky") == "Nice sky."
    assert display_form("") == ""


def test_only_the_standard_library_is_loaded() -> None:
    code = (
        "import sys, beholder.data.vocabulary as v; v.Vocabulary.build(['a']);"
        "print([n for n in ('torch', 'numpy', 'polars', 'PIL') if n in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
