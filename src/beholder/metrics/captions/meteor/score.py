"""METEOR 1.5 for English, as the MS-COCO caption evaluation runs it.

Ranking parameters alpha 0.85, beta 0.2, gamma 0.6, delta 0.75; weights of exact, stem, synonym and
paraphrase matches 1, 0.6, 0.8, 0.6; text normalised. The best reference of a picture counts; the
corpus score is that of the summed statistics, not the mean of the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from beholder.metrics.captions.meteor.align import WEIGHTS, Match, Sentence, Word, align, prepare
from beholder.metrics.captions.meteor.data import MeteorData, meteor_data
from beholder.metrics.captions.meteor.word_forms import normalise_line, stem

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
_MODULES = len(WEIGHTS)
Floats = NDArray[np.float64]

# Statistics of an aligned pair: for the hypothesis, then the reference, 2 + 4 x 2 numbers each
# (length, function words, and for each module matched content words and function words); chunks.
_SIDE = 2 + 2 * _MODULES
_LENGTH = 2 * _SIDE + 1


def meteor(references: Sequence[Sequence[str]], hypotheses: Sequence[str]) -> tuple[float, Floats]:
    """METEOR of the corpus and of each picture [P], 0 to 1, higher is better.

    Args:
        references: tokenised captions (tokens joined by spaces), one or more for each picture.
        hypotheses: one tokenised caption for each picture.

    Raises:
        BeholderError: the data of pycocoevalcap is missing.
    """
    scorer = Meteor(meteor_data())
    statistics = np.array(
        [
            scorer.best(hypothesis, group)
            for hypothesis, group in zip(hypotheses, references, strict=True)
        ]
    ).reshape(-1, _LENGTH)
    per_picture = np.array([score(row) for row in statistics], dtype=np.float64)
    total = statistics.sum(axis=0)
    # summed, a caption that matches as a whole adds no chunk
    total[-1] -= sum(map(_whole, statistics))
    return score(total), per_picture


class Meteor:
    """Aligns captions and gathers their statistics; remembers words and captions it has seen."""

    def __init__(self, data: MeteorData) -> None:
        self.data = data
        self._words: dict[str, Word] = {}
        self._sentences: dict[str, Sentence] = {}

    def best(self, hypothesis: str, references: Sequence[str]) -> Floats:
        """Statistics against the reference that gives the highest score."""
        # the package removes its own separator and doubled spaces before it hands the line over
        prepared = self.sentence(hypothesis.replace("|||", "").replace("  ", " "))
        best, highest = np.zeros(_LENGTH), -1.0
        for reference in references:
            statistics = self.statistics(prepared, self.sentence(reference))
            value = score(statistics)
            if value > highest:
                best, highest = statistics, value
        return best

    def sentence(self, text: str) -> Sentence:
        """A caption, normalised and with its words and phrases looked up."""
        sentence = self._sentences.get(text)
        if sentence is None:
            words = [self._word(word) for word in normalise_line(text, self.data.prefixes)]
            sentence = self._sentences[text] = prepare(words, self.data)
        return sentence

    def statistics(self, hypothesis: Sentence, reference: Sentence) -> Floats:
        """Lengths, matches and chunks of an aligned pair."""
        matches = align(hypothesis, reference, self.data)
        counts = np.zeros(_LENGTH)
        self._count_side(
            counts[:_SIDE],
            hypothesis,
            [(match.own_start, match.own_length, match.module) for match in matches],
        )
        self._count_side(
            counts[_SIDE:-1],
            reference,
            [(match.start, match.length, match.module) for match in matches],
        )
        counts[-1] = _chunks(matches)
        return counts

    def _count_side(
        self, counts: Floats, sentence: Sentence, matches: list[tuple[int, int, int]]
    ) -> None:
        function = [word.text in self.data.function_words for word in sentence.words]
        counts[0] = len(function)
        counts[1] = sum(function)
        for start, length, module in matches:
            for index in range(start, start + length):
                counts[2 + 2 * module + function[index]] += 1

    def _word(self, text: str) -> Word:
        word = self._words.get(text)
        if word is None:
            word = self._words[text] = Word(text, stem(text), self.data.synonyms(text))
        return word


def score(statistics: Floats) -> float:
    """The METEOR score of (summed) statistics, 0 to 1."""
    ours, theirs = statistics[:_SIDE], statistics[_SIDE:-1]
    precision, recall = _weighted_share(ours), _weighted_share(theirs)
    if precision <= 0 or recall <= 0:
        return 0.0
    mean = 1.0 / ((1.0 - ALPHA) / precision + ALPHA / recall)
    our_matched, their_matched = ours[2:].sum(), theirs[2:].sum()
    chunks = statistics[-1]
    fragmentation = 0.0 if _whole(statistics) else chunks / ((our_matched + their_matched) / 2)
    return float(mean * (1.0 - GAMMA * fragmentation**BETA))


def _whole(statistics: Floats) -> bool:
    """Whether every word of both captions is matched, in one chunk."""
    ours, theirs = statistics[:_SIDE], statistics[_SIDE:-1]
    return bool(statistics[-1] == 1 and ours[2:].sum() == ours[0] and theirs[2:].sum() == theirs[0])


def _weighted_share(side: Floats) -> float:
    """Matched words over all words of a side, content words weighing DELTA, function words less."""
    length = DELTA * (side[0] - side[1]) + (1 - DELTA) * side[1]
    if length <= 0:
        return 0.0
    per_module = DELTA * side[2::2] + (1 - DELTA) * side[3::2]
    return float(per_module @ np.array(WEIGHTS) / length)


def _chunks(matches: list[Match]) -> int:
    """Runs of matches that are adjacent in both captions."""
    chunks = 0
    end, own_end = -1, -1
    for match in matches:
        if match.start != end or match.own_start != own_end:
            chunks += 1
        end, own_end = match.start + match.length, match.own_start + match.own_length
    return chunks
