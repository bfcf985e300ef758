"""Subword vocabularies: Korean there and back, and beside the vocabulary of words."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beholder.data.vocabulary import SubwordVocabulary, Vocabulary, comment_words
from beholder.errors import VocabularyError

pytest.importorskip("tokenizers")

KOREAN = [
    "사진이 전체적으로 어둡고 노이즈가 많습니다.",
    "사진이 밝고 색감이 선명합니다!",
    "색감이 어둡습니다, 그리고 노이즈가 적습니다",
    "노이즈가 없고 전체적으로 선명한 사진",
] * 3


@pytest.fixture(scope="module")
def vocabulary() -> SubwordVocabulary:
    return SubwordVocabulary.build_subwords(KOREAN, 80)


def test_comments_come_back_as_their_words(vocabulary: SubwordVocabulary) -> None:
    for text in KOREAN:
        ids = vocabulary.encode(text)
        assert ids[0] == vocabulary.bos
        assert ids[-1] == vocabulary.eos
        assert vocabulary.unk not in ids
        assert vocabulary.words(ids) == comment_words(text)
        assert vocabulary.encode(comment_words(text)) == ids
        assert vocabulary.encode(unicodedata.normalize("NFD", text)) == ids


def test_new_words_of_known_signs_are_known(vocabulary: SubwordVocabulary) -> None:
    text = "선명이 밝습니다"
    assert vocabulary.decode(vocabulary.encode(text)) == text
    words = Vocabulary.build(KOREAN)
    assert words.unk in words.encode(text)
    assert len(vocabulary) <= 80


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted({w for t in KOREAN for w in comment_words(t)}))))
def test_any_sequence_of_its_words(words: list[str]) -> None:
    vocabulary = SubwordVocabulary.build_subwords(KOREAN, 80)
    assert vocabulary.words(vocabulary.encode(words)) == words


def test_what_a_reward_sees(vocabulary: SubwordVocabulary) -> None:
    ids = vocabulary.encode(KOREAN[0])
    assert vocabulary.spell(ids) == [*comment_words(KOREAN[0]), "EOS"]
    assert vocabulary.spell(ids[:-1]) == comment_words(KOREAN[0])
    words = Vocabulary.build(["a b"])
    assert words.spell(words.encode("b a")) == ["b", "a", "EOS"]


def test_both_kinds_are_read_back_by_their_kind(vocabulary: SubwordVocabulary) -> None:
    for written in (vocabulary, Vocabulary.build(KOREAN)):
        again = Vocabulary.from_dict(json.loads(json.dumps(written.to_dict())))
        assert type(again) is type(written)
        assert again == written
        assert again.encode(KOREAN[1]) == written.encode(KOREAN[1])
        assert pickle.loads(pickle.dumps(again)) == written
    assert vocabulary != Vocabulary(vocabulary.tokens)
    with pytest.raises(VocabularyError, match="subwords"):
        Vocabulary.from_dict({"kind": "subwords", "tokens": ["a"]})


def test_it_is_a_function_of_the_comments_alone(vocabulary: SubwordVocabulary) -> None:
    code = (
        "import json, sys\n"
        "from beholder.data.vocabulary import SubwordVocabulary\n"
        "v = SubwordVocabulary.build_subwords(json.loads(sys.argv[1]), 80)\n"
        "print(json.dumps(v.to_dict()))\n"
    )
    arguments = [sys.executable, "-c", code, json.dumps(list(reversed(KOREAN)))]
    output = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    assert json.loads(output) == vocabulary.to_dict()


def test_reading_a_comment_needs_no_tokenizers(vocabulary: SubwordVocabulary) -> None:
    code = (
        "import json, sys\n"
        "sys.modules['tokenizers'] = None\n"
        "from beholder.data.vocabulary import Vocabulary\n"
        "from beholder.errors import MissingExtra\n"
        "v = Vocabulary.from_dict(json.loads(sys.argv[1]))\n"
        "assert v.decode(json.loads(sys.argv[2])) == sys.argv[3]\n"
        "try:\n    v.encode('a')\n"
        "except MissingExtra as error:\n    assert 'train' in str(error)\n"
        "else:\n    raise AssertionError\n"
    )
    ids = vocabulary.encode(KOREAN[0])
    text = " ".join(comment_words(KOREAN[0]))
    arguments = [json.dumps(vocabulary.to_dict()), json.dumps(ids), text]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)


def test_comments_without_a_word_are_refused() -> None:
    with pytest.raises(VocabularyError, match="No comment has a word"):
        SubwordVocabulary.build_subwords(["...", ""], 50)
