"""Tokenised captions as arrays: what BLEU, ROUGE-L and CIDEr-D compute on."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beholder.metrics.captions.word_numbers import Ints, number_words

Tokens = Sequence[Hashable]
Caption = str | Tokens  # a string is tokens joined by spaces

_CELLS = 1_000_000  # token pairs compared at once


def as_tokens(caption: Caption) -> Tokens:
    """The tokens of a caption; a string is split at white space."""
    return caption.split() if isinstance(caption, str) else caption


@dataclass(frozen=True)
class CaptionSet:
    """One hypothesis and one or more references per picture, tokens as integers.

    Args:
        hypotheses, references: flat token ids.
        hypothesis_lengths: [P] tokens per hypothesis.
        reference_lengths: [R] tokens per reference, the references of a picture together.
        reference_counts: [P] references per picture, at least 1.
    """

    hypotheses: Ints
    hypothesis_lengths: Ints
    references: Ints
    reference_lengths: Ints
    reference_counts: Ints

    @classmethod
    def build(cls, references: Sequence[Sequence[str]], hypotheses: Sequence[str]) -> CaptionSet:
        """Number the tokens of captions, joined by spaces, of the same pictures in one order."""
        flat = [text for group in references for text in group]
        ids, lengths, _ = number_words([*hypotheses, *flat])
        split = len(hypotheses)
        end = int(lengths[:split].sum())
        counts = np.fromiter(map(len, references), dtype=np.int64, count=len(references))
        return cls(ids[:end], lengths[:split], ids[end:], lengths[split:], counts)

    def __len__(self) -> int:
        return len(self.hypothesis_lengths)

    def chunks(self) -> Iterator[Overlap]:
        """All pictures in chunks of similar length, small enough to compare token by token."""
        first = np.concatenate([[0], np.cumsum(self.reference_counts)[:-1]])
        longest = np.maximum.reduceat(self.reference_lengths, first) if len(self) else first
        order = np.lexsort((self.hypothesis_lengths, longest))
        sizes = zip(
            longest[order].tolist(),
            self.hypothesis_lengths[order].tolist(),
            self.reference_counts[order].tolist(),
            strict=True,
        )
        start, pairs, widest, deepest = 0, 0, 0, 0
        for index, (depth, width, count) in enumerate(sizes):
            widest, deepest = max(widest, width), max(deepest, depth)
            if pairs and (pairs + count) * widest * deepest > _CELLS:
                yield self._overlap(order[start:index], first)
                start, pairs, widest, deepest = index, 0, width, depth
            pairs += count
        if len(self):
            yield self._overlap(order[start:], first)

    def _overlap(self, pictures: Ints, first: Ints) -> Overlap:
        # those with most references first: the k-th references are then of the first so many
        pictures = pictures[np.argsort(-self.reference_counts[pictures], kind="stable")]
        counts = self.reference_counts[pictures]
        having = [int((counts > k).sum()) for k in range(int(counts[0]))]
        rows = np.concatenate([first[pictures[:some]] + k for k, some in enumerate(having)])
        return Overlap(
            pictures=pictures,
            having=having,
            pair_picture=np.concatenate([np.arange(some) for some in having]),
            hypothesis_TP=_padded(self.hypotheses, self.hypothesis_lengths, pictures, -1),
            reference_TR=_padded(self.references, self.reference_lengths, rows, -2),
            hypothesis_lengths=self.hypothesis_lengths[pictures],
            reference_lengths=self.reference_lengths[rows],
        )


@dataclass(frozen=True)
class Overlap:
    """A chunk of pictures, padded: tokens first, captions last, so that steps along a caption are
    operations on long contiguous rows.

    Args:
        pictures: [P] indices of the pictures in their set.
        having: pictures that have a k-th reference, for each k from 0: always the first so many.
            References lie in this order: all first ones, all second ones, and so on.
        pair_picture: [R] picture (0 to P-1) of each reference.
        hypothesis_TP, reference_TR: token ids, padded with -1 and -2, which never match.
    """

    pictures: Ints
    having: list[int]
    pair_picture: Ints
    hypothesis_TP: NDArray[np.int32]
    reference_TR: NDArray[np.int32]
    hypothesis_lengths: Ints
    reference_lengths: Ints

    def equal(self) -> NDArray[np.bool_]:
        """[reference position, hypothesis position, reference]: the same token."""
        return self.reference_TR[:, None] == self.hypothesis_TP[:, self.pair_picture][None]

    def self_equal(self) -> NDArray[np.bool_]:
        """[hypothesis position, hypothesis position, picture]: the same token."""
        return self.hypothesis_TP[:, None] == self.hypothesis_TP[None]

    def best_reference(self, values: NDArray) -> NDArray:
        """Maximum over the references of each picture, along the last axis."""
        start = self.having[0]
        best = values[..., :start].copy()
        for some in self.having[1:]:
            part = best[..., :some]
            np.maximum(part, values[..., start : start + some], out=part)
            start += some
        return best


def _padded(flat: Ints, lengths: Ints, rows: Ints, pad: int) -> NDArray[np.int32]:
    """[longest, len(rows)]: token ids of the chosen captions, one per column."""
    starts = (np.cumsum(lengths) - lengths)[rows]
    chosen = lengths[rows]
    position = np.arange(int(chosen.max(initial=0)))[:, None]
    table = flat[np.minimum(starts + position, len(flat) - 1)]
    return np.where(position < chosen, table, pad).astype(np.int32)


def ranges(starts: Ints, counts: Ints) -> Ints:
    """start, start + 1, ..., start + count - 1 for each pair, one after another."""
    total = int(counts.sum())
    offsets = np.repeat(starts - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return offsets + np.arange(total)
