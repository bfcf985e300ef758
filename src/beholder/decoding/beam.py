"""Beam search: its bookkeeping, over any model that can do a step. Only numpy.
 Semantics as published with ExpansionNet v2: every beam proposes its best k words; of those k x k
the best k sequences are kept; a beam that has ended keeps its score and still competes, until
better ones displace it; at the end scores are divided by length. A picture whose beams have all
ended can't change any more and leaves the search, as do the beams that have ended: neither changes
the result.

Shapes: P pictures, k beams, R rows that the step gets, T tokens so far.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from beholder.decoding.hypothesis import Hypothesis


class Step(Protocol):
    """A model, an ensemble or an exported file, as beam search sees it."""

    def __call__(
        self, tokens_R: np.ndarray, parents_R: np.ndarray, best: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Continue rows by one word each, and propose the next.

        Args:
            tokens_R: int64, the last word of each row.
            parents_R: int64, which row of the last call each row continues (in the first call:
                its picture). Rows that are not continued are dropped.
            best: number of words to propose.

        Returns:
            Log-probabilities, float [R, best], falling, and their words, int64 [R, best].
        """
        ...


def search(
    step: Step,
    pictures: int,
    *,
    beam_size: int,
    max_length: int,
    bos: int,
    eos: int,
    n_best: int = 1,
) -> list[list[Hypothesis]]:
    """The best sequences of each picture.

    Args:
        step: it starts with one row per picture.
        pictures: P; may be 0.
        beam_size: k, at most the number of words.
        max_length: most tokens of a sequence, bos and eos included; at least 2.
        bos, eos: ids of the first and the last token.
        n_best: number of hypotheses to return, at most `beam_size`.

    Returns:
        P lists of `n_best` hypotheses, best first.
    """
    if not 1 <= n_best <= beam_size:
        raise ValueError(f"n_best must be between 1 and the beam size {beam_size}, not {n_best}")
    if max_length < 2:
        raise ValueError(f"max_length must be at least 2, not {max_length}")
    if pictures == 0:
        return []
    beams = _Beams(pictures, beam_size, max_length, bos, eos)
    first = np.arange(pictures)
    beams.start(*step(np.full(pictures, bos), first, beam_size))
    while beams.length < max_length and not beams.ended_Pk.all():
        open_Pk = ~beams.ended_Pk
        words_R = beams.tokens_PkT[open_Pk, beams.length - 1]
        beams.extend(open_Pk, *step(words_R, beams.row_Pk[open_Pk], beam_size))
    return beams.best(n_best)


class _Beams:
    """The sequences of all pictures, and the row of the last step that each came from."""

    def __init__(self, pictures: int, beam_size: int, max_length: int, bos: int, eos: int) -> None:
        self.eos = eos
        self.length = 1
        self.tokens_PkT = np.full((pictures, beam_size, max_length), eos, dtype=np.int64)
        self.tokens_PkT[:, :, 0] = bos
        self.log_probs_PkT = np.zeros((pictures, beam_size, max_length), dtype=np.float64)
        self.lengths_Pk = np.full((pictures, beam_size), 2)
        self.ended_Pk = np.zeros((pictures, beam_size), dtype=bool)
        self.row_Pk = np.repeat(np.arange(pictures)[:, None], beam_size, axis=1)

    @property
    def totals_Pk(self) -> np.ndarray:
        return self.log_probs_PkT.sum(axis=2)

    def start(self, log_probs_Pk: np.ndarray, words_Pk: np.ndarray) -> None:
        self._append(log_probs_Pk, words_Pk)

    def extend(self, open_Pk: np.ndarray, log_probs_Rk: np.ndarray, words_Rk: np.ndarray) -> None:
        pictures, beam_size = open_Pk.shape
        # an ended beam proposes itself, unchanged, and nothing else
        proposed_Pkk = np.full((pictures, beam_size, beam_size), -np.inf)
        proposed_Pkk[:, :, 0] = 0.0
        proposed_Pkk[open_Pk] = log_probs_Rk
        words_Pkk = np.full((pictures, beam_size, beam_size), self.eos)
        words_Pkk[open_Pk] = words_Rk
        rows_Pk = np.zeros((pictures, beam_size), dtype=np.int64)
        rows_Pk[open_Pk] = np.arange(len(log_probs_Rk))

        totals_Px = (self.totals_Pk[:, :, None] + proposed_Pkk).reshape(pictures, -1)
        chosen_Pk = np.argsort(-totals_Px, axis=1, kind="stable")[:, :beam_size]
        beam_Pk = chosen_Pk // beam_size
        picture_P1 = np.arange(pictures)[:, None]
        self.tokens_PkT = self.tokens_PkT[picture_P1, beam_Pk]
        self.log_probs_PkT = self.log_probs_PkT[picture_P1, beam_Pk]
        self.lengths_Pk = self.lengths_Pk[picture_P1, beam_Pk]
        self.ended_Pk = self.ended_Pk[picture_P1, beam_Pk]
        self.row_Pk = rows_Pk[picture_P1, beam_Pk]
        self.lengths_Pk += ~self.ended_Pk
        flat_Px = (pictures, beam_size * beam_size)
        self._append(
            np.take_along_axis(proposed_Pkk.reshape(flat_Px), chosen_Pk, axis=1),
            np.take_along_axis(words_Pkk.reshape(flat_Px), chosen_Pk, axis=1),
        )

    def best(self, count: int) -> list[list[Hypothesis]]:
        scores_Pk = self.totals_Pk / self.lengths_Pk
        order_Pk = np.argsort(-scores_Pk, axis=1, kind="stable")[:, :count]
        return [
            [self._hypothesis(picture, beam, scores_Pk) for beam in order_Pk[picture]]
            for picture in range(len(order_Pk))
        ]

    def _append(self, log_probs_Pk: np.ndarray, words_Pk: np.ndarray) -> None:
        self.tokens_PkT[:, :, self.length] = words_Pk
        self.log_probs_PkT[:, :, self.length] = log_probs_Pk
        self.ended_Pk = self.ended_Pk | (words_Pk == self.eos)
        self.length += 1

    def _hypothesis(self, picture: int, beam: int, scores_Pk: np.ndarray) -> Hypothesis:
        length = self.lengths_Pk[picture, beam]
        return Hypothesis(
            self.tokens_PkT[picture, beam, :length].tolist(),
            self.log_probs_PkT[picture, beam, :length].tolist(),
            float(scores_Pk[picture, beam]),
        )
