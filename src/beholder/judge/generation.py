"""How a comment is written: everything that beam search has to know, in one place.

The defaults are those of the published ExpansionNet v2 (Hu et al., 2023): token ids and length of
its vocabulary and captions, five beams, one of which is told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypedDict

from beholder.data.vocabulary import Vocabulary


class SearchOptions(TypedDict):
    """What `decoding.search` and `decoding.beam_search` take."""

    beam_size: int
    max_length: int
    bos: int
    eos: int
    n_best: int


@dataclass(frozen=True)
class GenerationConfig:
    """Settings of a beam search.

    Args:
        bos, eos: ids of the first and the last token.
        max_length: most tokens of a comment, both ends included; at least 2.
        beam_size: beams, at least 1.
        n_best: comments that are told, best first, at most `beam_size`.

    A hypothesis counts by the sum of its log-probabilities: there is no length penalty, as in the
    published search.
    """

    bos: int = 2
    eos: int = 0
    max_length: int = 74
    beam_size: int = 5
    n_best: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.n_best <= self.beam_size:
            raise ValueError(
                f"n_best must be between 1 and the beam size {self.beam_size}, not {self.n_best}"
            )
        if self.max_length < 2:
            raise ValueError(f"max_length must be at least 2, not {self.max_length}")

    @classmethod
    def of_judge(
        cls, vocabulary: Vocabulary | None, max_length: int, beam_size: int | None
    ) -> GenerationConfig | None:
        """A judge's: every beam is told (a verdict's alternatives). None where nothing is written:
        without a vocabulary or beams."""
        if vocabulary is None or beam_size is None:
            return None
        return cls(vocabulary.bos, vocabulary.eos, max_length, beam_size, beam_size)

    def with_beams(self, beam_size: int) -> GenerationConfig:
        """The same with another number of beams, all of which are told."""
        return replace(self, beam_size=beam_size, n_best=beam_size)

    def search_options(self) -> SearchOptions:
        """The arguments of a search."""
        return {
            "beam_size": self.beam_size,
            "max_length": self.max_length,
            "bos": self.bos,
            "eos": self.eos,
            "n_best": self.n_best,
        }
