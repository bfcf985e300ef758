"""CIDEr-D (Vedantam, Zitnick and Parikh, CVPR 2015), for evaluation and as a reward.

The variant of the MS-COCO caption evaluation: n-grams of 1 to 4, weights tf * (log P - log df) with
df counted over the P pictures of a corpus, clipped cosine, a Gaussian penalty of sigma 6 on the
difference of lengths, the mean over orders and references, times 10.

References and their norms are prepared once. A batch of hypotheses is then compared, all at once,
with its own references only; the corpus is used for document frequencies alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from itertools import chain, repeat

import numpy as np

from beholder.errors import DataError
from beholder.metrics.captions.ngrams import (
    BLOCK,
    HYPOTHESIS_END,
    ORDERS,
    REFERENCE_END,
    Floats,
    Frequencies,
    Text,
    changes,
    common,
    run_lengths,
)
from beholder.metrics.captions.tokens import Caption, CaptionSet, Ints, Tokens, as_tokens, ranges

SIGMA = 6.0
Group = Sequence[Caption]


def cider_d(captions: CaptionSet) -> tuple[float, Floats]:
    """CIDEr-D of the corpus (mean over pictures) and of each picture [P], 0 to 10.

    Document frequencies are those of the references. Higher is better.
    """
    if not len(captions):
        return 0.0, np.zeros(0)
    references = _References(
        captions.references, captions.reference_lengths, captions.reference_counts
    )
    hypotheses = Text.build(captions.hypotheses, captions.hypothesis_lengths, HYPOTHESIS_END)
    scores = _scores(hypotheses, references, np.arange(len(captions)), SIGMA)
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
        self._ids = {_copy(token): row for token, row in _number_tokens(captions).items()}
        self._references = _References(*self._encode(captions), sizes)

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
        outside_captions = [captions[index] for index in outside]
        scores[outside] = self._score_others(
            outside_captions, others, rows[outside] - self.pictures
        )
        return scores

    def _score_known(self, captions: list[Tokens], rows: Ints) -> Floats:
        hypotheses = Text.build(*self._encode(captions), HYPOTHESIS_END)
        return _scores(hypotheses, self._references, rows, self.sigma)

    def _score_others(self, captions: list[Tokens], groups: list[Group], rows: Ints) -> Floats:
        # encoded together, so that a token the corpus lacks has one number in both
        theirs = [as_tokens(text) for group in groups for text in group]
        flat, lengths = self._encode([*captions, *theirs])
        split = len(captions)
        end = int(lengths[:split].sum())
        sizes = np.fromiter(map(len, groups), dtype=np.int64, count=len(groups))
        frequencies = self._references.frequencies
        references = _References(flat[end:], lengths[split:], sizes, frequencies)
        hypotheses = Text.build(flat[:end], lengths[:split], HYPOTHESIS_END)
        return _scores(hypotheses, references, rows, self.sigma)

    def _encode(self, captions: Sequence[Tokens]) -> tuple[Ints, Ints]:
        """Token ids in one array, and tokens per caption.

        Tokens that the corpus lacks are numbered above its own, for this call only.
        """
        lengths = np.fromiter(map(len, captions), dtype=np.int64, count=len(captions))
        tokens = list(chain.from_iterable(captions))
        flat = np.fromiter(map(self._ids.get, tokens, repeat(-1)), np.int64, len(tokens))
        unknown = np.flatnonzero(flat < 0)
        if len(unknown):
            lacking = [tokens[position] for position in unknown.tolist()]
            fresh = _number_tokens([lacking])
            flat[unknown] = [len(self._ids) + fresh[token] for token in lacking]
        return flat, lengths

    @cached_property
    def _group_rows(self) -> dict[tuple[tuple[Hashable, ...], ...], int]:
        return {_group_key(group): row for row, group in enumerate(self._corpus)}

    def _rows(self, references: Sequence[Group | int]) -> tuple[Ints, list[Group]]:
        """Picture of each group in the corpus; numbers above it count through the other groups."""
        rows = [self._same.get(id(group), -1) for group in references]
        others: list[Group] = []
        seen: dict[int, int] = {}  # the samples of a picture share one list
        for index, group in enumerate(references if -1 in rows else ()):
            if rows[index] >= 0:
                continue
            if isinstance(group, (int, np.integer)):
                rows[index] = int(group)
                continue
            row = seen.get(id(group))
            if row is None:
                if not len(group):
                    raise DataError("A hypothesis has no reference.", where=f"row {index}")
                row = self._group_rows.get(_group_key(group), self.pictures + len(others))
                if row == self.pictures + len(others):
                    others.append(group)
                seen[id(group)] = row
            rows[index] = row
        return np.array(rows, dtype=np.int64), others


class _References:
    """Groups of references, prepared.

    Args:
        flat: token ids.
        lengths: tokens per reference.
        sizes: references per group.
        frequencies: of a corpus; without, those of these references.
    """

    def __init__(
        self, flat: Ints, lengths: Ints, sizes: Ints, frequencies: Frequencies | None = None
    ) -> None:
        self.sizes = sizes
        self.text = Text.build(flat, lengths, REFERENCE_END)
        self.first = self.text.first[np.append(0, np.cumsum(sizes))]  # of each group, and the end
        group = np.repeat(np.arange(len(sizes)), np.diff(self.first))
        self.frequencies = frequencies or Frequencies(self.text, group, len(sizes))
        self.unit = _Weights(self.text, self.frequencies).unit
        self.bigrams = _bigrams(self.text)

    def postings_of(self, rows: Ints) -> tuple[Ints, Ints, Ints]:
        """Number of the group of each row among those asked; the places of these in the text, and
        the number of each place's group."""
        is_wanted = np.zeros(len(self.sizes), dtype=bool)
        is_wanted[rows] = True
        groups = np.flatnonzero(is_wanted)
        start = self.first[groups]
        counts = self.first[groups + 1] - start
        number = (np.cumsum(is_wanted) - 1)[rows]
        return number, ranges(start, counts), np.repeat(np.arange(len(groups)), counts)


class _Weights:
    """Of a text, all orders: how often the caption has the n-gram of each place [4, T], 0 where
    there is none; its squared idf [4, T]; one over the norm of each caption [4, captions]."""

    def __init__(self, text: Text, frequencies: Frequencies) -> None:
        tokens, captions = text.tokens, len(text.first) - 1
        # with itself, but an end that never equals its own
        other_end = np.where(tokens < 0, HYPOTHESIS_END + REFERENCE_END - tokens, tokens)
        pairs = common(tokens, text.caption, other_end, text.caption)
        self.times = np.array(
            [np.bincount(position, minlength=len(tokens)) for position, _ in pairs]
        )
        self.square = np.square(frequencies.idf(text))
        # an n-gram that is there k times is met at k places
        products = self.times * self.square
        norms = np.sqrt(
            [np.bincount(text.caption, order_products, captions) for order_products in products]
        )
        # where the norm is 0 all weights are: any divisor gives the 0 that is wanted
        norms[norms == 0] = 1.0
        self.unit = 1.0 / norms


def _scores(hypotheses: Text, references: _References, rows: Ints, sigma: float) -> Floats:
    """[H]: CIDEr-D of each hypothesis against the group of references `rows`."""
    parts = [np.zeros(0)]
    for first in range(0, len(rows), BLOCK):
        block = rows[first : first + BLOCK]
        parts.append(_block(hypotheses.part(first, first + len(block)), references, block, sigma))
    return np.concatenate(parts)


def _block(mine: Text, references: _References, rows: Ints, sigma: float) -> Floats:
    weights = _Weights(mine, references.frequencies)
    group, postings, their_group = references.postings_of(rows)
    theirs, captions = references.text.tokens[postings], references.text.caption[postings]
    # an n-gram that I have k times is met at k places
    scale = weights.square * weights.unit[:, mine.caption] / np.maximum(weights.times, 1)
    parts = []
    pairs = common(mine.tokens, group[mine.caption], theirs, their_group)
    for order, (position, other) in enumerate(pairs):
        reference = captions[other]
        # one that has the n-gram several times is met as often, one after another
        once = np.flatnonzero(changes(position) | changes(reference))
        often = run_lengths(once, len(position))
        position, reference = position[once], reference[once]
        # min(mine, theirs) * theirs / (my norm * their norm)
        share = np.minimum(weights.times[order][position], often) * often * scale[order][position]
        parts.append((position, reference, share * references.unit[order][reference]))
    position, reference, share = map(np.concatenate, zip(*parts, strict=True))
    gap = _bigrams(mine)[mine.caption][position] - references.bigrams[reference]
    share *= np.exp(gap * gap / (-2 * sigma**2))
    total = np.bincount(mine.caption[position], share, len(rows))
    return total * (10.0 / ORDERS) / references.sizes[rows]


def _bigrams(text: Text) -> Ints:
    """Of each caption: its length in CIDEr-D."""
    return np.maximum(np.diff(text.first) - 2, 0)


def _number_tokens(captions: Iterable[Tokens]) -> dict[Hashable, int]:
    """Every distinct token and its number, in order of first use."""
    distinct = dict.fromkeys(chain.from_iterable(captions))
    return {token: number for number, token in enumerate(distinct)}


def _copy(token: Hashable) -> Hashable:
    """An equal token; made one after another, words lie side by side and are found sooner."""
    if type(token) is not str:
        return token
    return token.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")


def _group_key(group: Group) -> tuple[tuple[Hashable, ...], ...]:
    return tuple([tuple(as_tokens(text)) for text in group])
