"""METEOR's alignment of a hypothesis with a reference.

Denkowski and Lavie, Meteor Universal, WMT 2014: matches are exact words, words of one stem, words
with a synonym set in common, and phrases of the paraphrase table. A match whose words no other
match touches is fixed; among the others a beam search from left to right over the reference picks
those that cover most words, then those in fewest chunks, then those that move words least.

Two habits of the original program that change scores are kept: covered words are counted in whole
numbers, weight by weight, so that a lone stem or synonym (weight below 1) counts nothing and is
taken only where it costs no chunk; and the distance of a match is charged to the alternatives that
are tried after it, not to itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from beholder.metrics.captions.meteor.data import MeteorData

EXACT, STEM, SYNONYM, PARAPHRASE = range(4)
WEIGHTS = (1.0, 0.6, 0.8, 0.6)
BEAM = 40


class Match(NamedTuple):
    """Words start to start + length of the reference and those of the hypothesis, and why."""

    module: int
    start: int
    length: int
    own_start: int
    own_length: int


class Word(NamedTuple):
    """What matching needs to know of a word."""

    text: str
    stem: str
    synonyms: frozenset[int]


class Sentence(NamedTuple):
    """A normalised caption: its words, and (start, length, number) of the phrases in it."""

    words: tuple[Word, ...]
    phrases: tuple[tuple[int, int, int], ...]


def prepare(words: Sequence[Word], data: MeteorData) -> Sentence:
    """Look the phrases of a caption up."""
    phrases = []
    texts = [word.text for word in words]
    for start in range(len(texts)):
        for length in range(1, min(data.longest, len(texts) - start) + 1):
            number = data.phrase_number(" ".join(texts[start : start + length]))
            if number is not None:
                phrases.append((start, length, number))
    return Sentence(tuple(words), tuple(phrases))


def align(hypothesis: Sentence, reference: Sentence, data: MeteorData) -> list[Match]:
    """The chosen matches, in the order of the reference."""
    ours, theirs = hypothesis.words, reference.words
    if ours == theirs:
        return [Match(EXACT, index, 1, index, 1) for index in range(len(ours))]
    options = _options(hypothesis, reference, data)
    own_cover, cover = [0] * len(ours), [0] * len(theirs)
    for matches in options:
        for match in matches:
            for index in range(match.start, match.start + match.length):
                cover[index] += 1
            for index in range(match.own_start, match.own_start + match.own_length):
                own_cover[index] += 1
    start = _Path()
    for matches in options:
        if len(matches) == 1:
            match = matches[0]
            words = range(match.start, match.start + match.length)
            own_words = range(match.own_start, match.own_start + match.own_length)
            if all(cover[i] == 1 for i in words) and all(own_cover[i] == 1 for i in own_words):
                start.fixed[match.start] = match
                start.used |= _mask(match.start, match.length)
                start.own_used |= _mask(match.own_start, match.own_length)
    return _search(options, start)


def _options(hypothesis: Sentence, reference: Sentence, data: MeteorData) -> list[list[Match]]:
    """All matches, by the place in the reference at which they start."""
    ours, theirs = hypothesis.words, reference.words
    options: list[list[Match]] = [[] for _ in theirs]
    for module in (EXACT, STEM, SYNONYM):
        for own_start, mine in enumerate(ours):
            for start, word in enumerate(theirs):
                if module == EXACT:
                    fits = mine.text == word.text
                elif mine.text == word.text:
                    fits = False
                elif module == STEM:
                    fits = mine.stem == word.stem
                else:
                    fits = not mine.synonyms.isdisjoint(word.synonyms)
                if fits:
                    options[start].append(Match(module, start, 1, own_start, 1))
    if hypothesis.phrases and reference.phrases:
        own_numbers = [number for _, _, number in hypothesis.phrases]
        numbers = [number for _, _, number in reference.phrases]
        # the table has a direction; both are looked up, and a pair listed both ways counts twice
        alike = np.argwhere(data.paraphrases(own_numbers, numbers)).tolist()
        back = np.argwhere(data.paraphrases(numbers, own_numbers)).tolist()
        for row, column in [*alike, *((row, column) for column, row in back)]:
            own_start, own_length, _ = hypothesis.phrases[row]
            start, length, _ = reference.phrases[column]
            options[start].append(Match(PARAPHRASE, start, length, own_start, own_length))
    return options


class _Path:
    """A partial alignment."""

    __slots__ = (
        "chosen", "chunks", "distance", "fixed", "last", "matches", "next", "own_matches",
        "own_used", "used",
    )  # fmt: skip

    def __init__(self) -> None:
        self.fixed: dict[int, Match] = {}
        self.chosen: tuple[Match, ...] = ()
        self.used = 0
        self.own_used = 0
        self.matches = 0
        self.own_matches = 0
        self.chunks = 0
        self.distance = 0
        self.next = 0  # first word of the reference that is not decided
        self.last = -1  # end of the last match in the hypothesis, -1 after an unmatched word

    def copy(self) -> _Path:
        other = _Path.__new__(_Path)
        for name in _Path.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    def take(self, match: Match) -> None:
        weight = WEIGHTS[match.module]
        self.own_matches = int(self.own_matches + match.own_length * weight)
        self.matches = int(self.matches + match.length * weight)
        if self.last != -1 and match.own_start != self.last:
            self.chunks += 1
        self.next = match.start + match.length
        self.last = match.own_start + match.own_length
        self.chosen = (*self.chosen, match)

    def rank(self) -> tuple[int, int, int]:
        return -self.own_matches - self.matches, self.chunks, self.distance


def _search(options: list[list[Match]], start: _Path) -> list[Match]:
    """Beam search over the words of the reference."""
    paths = [start]
    for position, matches in enumerate(options):
        paths.sort(key=_Path.rank)
        grown: list[_Path] = []
        for path in paths[:BEAM]:
            if path.used >> position & 1:
                if position >= path.next:
                    match = path.fixed[position]
                    path.take(match)
                    path.distance += abs(match.start - match.own_start)
                grown.append(path)
                continue
            for match in matches:
                words = _mask(match.start, match.length)
                own_words = _mask(match.own_start, match.own_length)
                if path.used & words or path.own_used & own_words:
                    continue
                taken = path.copy()
                taken.used |= words
                taken.own_used |= own_words
                taken.take(match)
                path.distance += abs(match.start - match.own_start)
                grown.append(taken)
            if path.last != -1:
                path.chunks += 1
                path.last = -1
            path.next = position + 1
            grown.append(path)
        paths = grown
    paths.sort(key=_Path.rank)
    for path in paths[:BEAM]:
        if path.last != -1:
            path.chunks += 1
    return list(min(paths[:BEAM], key=_Path.rank).chosen)


def _mask(start: int, length: int) -> int:
    return ((1 << length) - 1) << start
