"""CIDEr-D (Vedantam, Zitnick and Parikh, CVPR 2015), for evaluation and as a reward.

The variant of the MS-COCO caption evaluation: n-grams of 1 to 4, weights tf * (log P - log df) with
df counted over the P pictures of a corpus, clipped cosine, a Gaussian penalty of sigma 6 on the
difference of lengths, the mean over orders and references, times 10.

References are prepared once as arrays; scoring a batch of hypotheses is then a few look-ups and
segment sums for all of them, and all orders, together.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beholder.errors import DataError
from beholder.metrics.captions.ngrams import BLOCK, ORDERS, Cells, NgramIndex, Ngrams, count
from beholder.metrics.captions.tokens import Caption, CaptionSet, Ints, Tokens, as_tokens, ranges

SIGMA = 6.0
Group = Sequence[Caption]
Floats = NDArray[np.float64]


def cider_d(captions: CaptionSet) -> tuple[float, Floats]:
    """CIDEr-D of the corpus (mean over pictures) and of each picture [P], 0 to 10.

    Document frequencies are those of the given references. Higher is better.
    """
    if not len(captions):
        return 0.0, np.zeros(0)
    index = NgramIndex(captions.references, captions.reference_lengths, captions.words)
    frequencies = _Frequencies(index.ngrams, captions.reference_counts)
    prepared = frequencies.prepare(
        frequencies.cells, captions.reference_lengths, captions.reference_counts
    )
    ngrams = index.number(captions.hypotheses, captions.hypothesis_lengths, captions.words)
    scores = frequencies.compare(prepared, ngrams, np.arange(len(captions)), SIGMA)
    return float(scores.mean()), scores


class CiderD:
    """CIDEr-D with the document frequencies of `corpus`.

    Args:
        corpus: the references of each picture, as token lists (or strings of tokens joined by
            spaces). The same tokens must be used in `score`; words and integers both do. They are
            prepared here, once: the lists must not be changed afterwards.
        sigma: of the length penalty.

    Raises:
        DataError: the corpus has no picture, or a picture has no reference.
    """

    def __init__(self, corpus: Sequence[Group], sigma: float = SIGMA) -> None:
        if not len(corpus) or not all(len(group) for group in corpus):
            raise DataError("CIDEr-D needs a corpus of pictures with a reference each.")
        self.sigma = sigma
        self.pictures = len(corpus)
        self._corpus = list(corpus)
        # the object that was prepared is known at once; an equal one by its words
        self._same = {id(group): row for row, group in enumerate(self._corpus)}
        sizes = np.fromiter(map(len, corpus), dtype=np.int64, count=len(corpus))
        captions = [as_tokens(text) for group in corpus for text in group]
        self._ids = _number_tokens(captions)
        flat, lengths, words = self._encode(captions)
        self._index = NgramIndex(flat, lengths, words)
        self._frequencies = _Frequencies(self._index.ngrams, sizes)
        self._prepared = self._frequencies.prepare(self._frequencies.cells, lengths, sizes)

    def score(self, hypotheses: Sequence[Caption], references: Sequence[Group | int]) -> Floats:
        """CIDEr-D of each hypothesis against its references [H], 0 to 10, higher is better.

        Args:
            hypotheses: token lists.
            references: for each hypothesis its references as token lists, or the index of its
                picture in the corpus. References of the corpus are recognised and not prepared
                again; others are scored with the corpus's document frequencies.

        Raises:
            DataError: the two lists differ in length, or a hypothesis has no reference.
        """
        if len(hypotheses) != len(references):
            raise DataError(
                f"{len(hypotheses)} hypotheses for {len(references)} groups of references."
            )
        rows, others = self._rows(references)
        captions = [as_tokens(text) for text in hypotheses]
        if not others:
            return self._score_known(captions, rows)
        scores = np.zeros(len(captions))
        known = rows < self.pictures
        inside, outside = np.flatnonzero(known), np.flatnonzero(~known)
        scores[inside] = self._score_known([captions[index] for index in inside], rows[inside])
        own = [captions[index] for index in outside]
        scores[outside] = self._score_others(own, others, rows[outside] - self.pictures)
        return scores

    def _score_known(self, captions: list[Tokens], rows: Ints) -> Floats:
        flat, lengths, words = self._encode(captions)
        ngrams = self._index.number(flat, lengths, words)
        return self._frequencies.compare(self._prepared, ngrams, rows, self.sigma)

    def _score_others(self, captions: list[Tokens], groups: list[Group], rows: Ints) -> Floats:
        # encoded together, so that an n-gram the corpus lacks has one number in both
        theirs = [as_tokens(text) for group in groups for text in group]
        flat, lengths, words = self._encode([*captions, *theirs])
        ngrams = self._index.number(flat, lengths, words)
        sizes = np.fromiter(map(len, groups), dtype=np.int64, count=len(groups))
        cells = Cells.build(ngrams, sizes, first=len(captions))
        prepared = self._frequencies.prepare(cells, lengths, sizes)
        return self._frequencies.compare(prepared, ngrams, rows, self.sigma)

    def _encode(self, captions: Sequence[Tokens]) -> tuple[Ints, Ints, int]:
        """Token ids in one array, tokens per caption, and the bound of the ids.

        Tokens that the corpus lacks are numbered above its own, for this call only.
        """
        lengths = np.fromiter(map(len, captions), dtype=np.int64, count=len(captions))
        tokens = list(chain.from_iterable(captions))
        flat = np.fromiter(map(self._ids.get, tokens, repeat(-1)), np.int64, len(tokens))
        unknown = np.flatnonzero(flat < 0)
        words = len(self._ids)
        if len(unknown):
            lacking = [tokens[place] for place in unknown.tolist()]
            fresh = _number_tokens([lacking])
            flat[unknown] = [words + fresh[token] for token in lacking]
            words += len(fresh)
        return flat, lengths, words

    @cached_property
    def _group_rows(self) -> dict[tuple[tuple[Hashable, ...], ...], int]:
        return {_group_key(group): row for row, group in enumerate(self._corpus)}

    def _rows(self, references: Sequence[Group | int]) -> tuple[Ints, list[Group]]:
        """Picture of each group in the corpus; numbers above it count through the other groups."""
        rows = [self._same.get(id(group), -1) for group in references]
        others: list[Group] = []
        seen: dict[int, int] = {}  # the samples of a picture share one list
        for place, group in enumerate(references if -1 in rows else ()):
            if rows[place] >= 0:
                continue
            if isinstance(group, (int, np.integer)):
                rows[place] = int(group)
                continue
            row = seen.get(id(group))
            if row is None:
                if not len(group):
                    raise DataError("A hypothesis has no reference.", where=f"row {place}")
                row = self._group_rows.get(_group_key(group), self.pictures + len(others))
                if row == self.pictures + len(others):
                    others.append(group)
                seen[id(group)] = row
            rows[place] = row
        return np.array(rows, dtype=np.int64), others


class _References(NamedTuple):
    """Prepared groups of references: their cells; of each entry the weight, the weight over the
    norm of its caption, and the length of its caption in bigrams; captions per group.
    """

    cells: Cells
    weight: Floats
    unit: Floats
    bigrams: Floats
    sizes: Ints


class _Frequencies:
    """Document frequencies of a corpus, and what is weighted by them."""

    def __init__(self, ngrams: Ngrams, sizes: Ints) -> None:
        self.cells = Cells.build(ngrams, sizes)
        log_pictures = float(np.log(float(len(sizes))))
        found = np.append(np.bincount(self.cells.number), 0)
        # the last entry stands for all n-grams that the corpus lacks: as if in one picture
        self._idf = log_pictures - np.log(np.maximum(1, found))

    def _weights(
        self, caption: Ints, number: Ints, times: Ints, captions: int
    ) -> tuple[Floats, Floats]:
        """tf * idf of each n-gram, and one over the norm of its caption and order."""
        weight = times * self._idf.take(number, mode="clip")
        place = caption * ORDERS + (number & (ORDERS - 1))
        norms = np.sqrt(np.bincount(place, weights=weight * weight, minlength=captions * ORDERS))
        # where the norm is 0 all weights are: any divisor gives the 0 that is wanted
        norms[norms == 0] = 1.0
        return weight, (1.0 / norms)[place]

    def prepare(self, cells: Cells, lengths: Ints, sizes: Ints) -> _References:
        number = np.repeat(cells.number, np.diff(cells.first))
        weight, scale = self._weights(cells.caption, number, cells.times, len(lengths))
        bigrams = np.maximum(lengths - 1, 0)[cells.caption].astype(np.float64)
        return _References(cells, weight, weight * scale, bigrams, sizes)

    def compare(self, references: _References, ngrams: Ngrams, rows: Ints, sigma: float) -> Floats:
        """Scores [H] of the first H captions against the groups `rows` of prepared references."""
        scores = [
            self._compare(references, ngrams, rows[first : first + BLOCK], first, sigma)
            for first in range(0, len(rows), BLOCK)
        ]
        return np.concatenate([np.zeros(0), *scores])

    def _compare(
        self, references: _References, ngrams: Ngrams, rows: Ints, start: int, sigma: float
    ) -> Floats:
        caption, number, times = count(ngrams, start, start + len(rows))
        weight, scale = self._weights(caption, number, times, len(rows))
        cell, source = references.cells.find(rows, caption, number, ngrams.bits)
        first = references.cells.first[cell]
        entries = references.cells.first[cell + 1] - first
        source = np.repeat(source, entries)
        entry = ranges(first, entries)
        # min(mine, theirs) * theirs / (my norm * their norm)
        product = np.minimum(weight[source], references.weight[entry])
        product *= references.unit[entry] * scale[source]
        caption = caption[source]
        bigrams = np.maximum(ngrams.lengths[start : start + len(rows)] - 1, 0)
        gap = bigrams[caption] - references.bigrams[entry]
        product *= np.exp(gap * gap / (-2 * sigma**2))
        total = np.bincount(caption, weights=product, minlength=len(rows))
        return total * (10.0 / ORDERS) / references.sizes[rows]


def _number_tokens(captions: Iterable[Tokens]) -> dict[Hashable, int]:
    """Every distinct token and its number, in order of first use."""
    distinct = dict.fromkeys(chain.from_iterable(captions))
    return {token: number for number, token in enumerate(distinct)}


def _group_key(group: Group) -> tuple[tuple[Hashable, ...], ...]:
    return tuple([tuple(as_tokens(text)) for text in group])
