"""Tokenised captions as arrays: what BLEU, ROUGE-L and CIDEr-D compute on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

Tokens = Sequence[Hashable]
Caption = str | Tokens  # a string is tokens joined by spaces

_END = "\n"  # between captions; no token of a printable text has it
_CELLS = 2_000_000  # token pairs compared at once


def as_tokens(caption: Caption) -> Tokens:
    """The tokens of a caption; a string is split at white space."""
    return caption.split() if isinstance(caption, str) else caption


class TokenIds(defaultdict[Hashable, int]):
    """Token -> integer from 0, handed out in order of first use."""

    def __init__(self) -> None:
        super().__init__()
        self.default_factory = self.__len__

    def encode(self, captions: Sequence[Caption]) -> tuple[Ints, Ints]:
        """All tokens in one flat array, and the length of each caption."""
        if set(map(type, captions)) == {str}:
            text = f" {_END} ".join(captions)  # type: ignore[arg-type]
            # printable: the only white space is the space
            if text.replace(_END, "").isprintable() and text.count(_END) == len(captions) - 1:
                return self._encode_text(text)
        rows = [as_tokens(caption) for caption in captions]
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        words = chain.from_iterable(rows)
        return np.fromiter(map(self.__getitem__, words), np.int64, int(lengths.sum())), lengths

    def _encode_text(self, text: str) -> tuple[Ints, Ints]:
        """Split all captions in one go: several times faster than one by one."""
        words = text.split(" ")
        flat = np.fromiter(map(self.__getitem__, words), np.int64, len(words))
        nothing = self.get("")  # between two spaces
        if nothing is not None:
            flat = flat[flat != nothing]
        is_end = flat == self[_END]
        ends = np.concatenate([[-1], np.flatnonzero(is_end), [len(flat)]])
        return flat[~is_end], np.diff(ends) - 1


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
    def build(
        cls, references: Sequence[Sequence[Caption]], hypotheses: Sequence[Caption]
    ) -> CaptionSet:
        """Encode captions given in the same order of pictures."""
        ids = TokenIds()
        hypothesis_ids, hypothesis_lengths = ids.encode(hypotheses)
        reference_ids, reference_lengths = ids.encode(
            [text for group in references for text in group]
        )
        counts = np.fromiter(map(len, references), dtype=np.int64, count=len(references))
        return cls(hypothesis_ids, hypothesis_lengths, reference_ids, reference_lengths, counts)

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
        counts = self.reference_counts[pictures]
        rows = ranges(first[pictures], counts)
        return Overlap(
            pictures=pictures,
            first_pair=np.concatenate([[0], np.cumsum(counts)[:-1]]),
            pair_picture=np.repeat(np.arange(len(pictures)), counts),
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
        first_pair: [P] first reference of each picture within the chunk.
        pair_picture: [R] picture (0 to P-1) of each reference.
        hypothesis_TP, reference_TR: token ids, padded with -1 and -2, which never match.
    """

    pictures: Ints
    first_pair: Ints
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
        return np.maximum.reduceat(values, self.first_pair, axis=-1)


def _padded(flat: Ints, lengths: Ints, rows: Ints, pad: int) -> NDArray[np.int32]:
    """[longest, len(rows)]: token ids of the chosen captions, one per column."""
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])[rows]
    chosen = lengths[rows]
    table = np.full((int(chosen.max(initial=0)), len(rows)), pad, dtype=np.int32)
    column = np.repeat(np.arange(len(rows)), chosen)
    position = ranges(np.zeros_like(chosen), chosen)
    table[position, column] = flat[ranges(starts, chosen)]
    return table


def ranges(starts: Ints, counts: Ints) -> Ints:
    """start, start + 1, ..., start + count - 1 for each pair, one after another."""
    total = int(counts.sum())
    offsets = np.repeat(starts - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return offsets + np.arange(total)


def by_key(
    references: Mapping[str, Sequence[Caption]], hypotheses: Mapping[str, Caption]
) -> CaptionSet:
    """`CaptionSet` of two mappings with the same keys, in the order of `hypotheses`."""
    return CaptionSet.build([references[key] for key in hypotheses], list(hypotheses.values()))
