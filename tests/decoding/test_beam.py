"""The bookkeeping of beam search over steps that need no model, and that it needs no torch."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beholder.decoding import search
from beholder.decoding.slots import Slots

WORDS = 5


class Table:
    """A step that looks log-probabilities up by picture and whole prefix."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.pasts: list[tuple[int, ...]] = []
        self.fed = 0

    def log_probs(self, past: tuple[int, ...]) -> np.ndarray:
        logits = np.random.default_rng([self.seed, *past]).normal(size=WORDS) * 2
        return logits - np.log(np.exp(logits).sum())

    def __call__(
        self, tokens_R: np.ndarray, parents_R: np.ndarray, best: int
    ) -> tuple[np.ndarray, np.ndarray]:
        self.fed += len(tokens_R)
        pasts = self.pasts or [(picture,) for picture in range(max(parents_R) + 1)]
        self.pasts = [
            (*pasts[parent], int(token)) for token, parent in zip(tokens_R, parents_R, strict=True)
        ]
        rows = np.stack([self.log_probs(past) for past in self.pasts])
        words = np.argsort(-rows, axis=1)[:, :best]
        return np.take_along_axis(rows, words, axis=1), words


@given(seed=st.integers(0, 1000), pictures=st.integers(1, 3), length=st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_enough_beams_find_the_best_of_all_sequences(seed: int, pictures: int, length: int) -> None:
    """With as many beams as there are sequences nothing is pruned: compare with all of them.

    The first step proposes one word per beam, so there are at most WORDS beams; the search is
    exhaustive up to length 3 and a lower bound beyond.
    """
    hypotheses = search(
        Table(seed), pictures, beam_size=WORDS, max_length=length, bos=2, eos=0, n_best=1
    )
    for picture in range(pictures):
        table = Table(seed)
        scores = {}
        for words in itertools.product(range(WORDS), repeat=length - 1):
            stop = words.index(0) + 1 if 0 in words else len(words)
            tokens = (2, *words[:stop])
            total = sum(
                table.log_probs((picture, *tokens[:n]))[tokens[n]] for n in range(1, len(tokens))
            )
            scores[tokens] = total / len(tokens)
        best = hypotheses[picture][0]
        assert best.score == pytest.approx(scores[tuple(best.tokens)])
        assert best.score == pytest.approx(sum(best.token_log_probs) / len(best.tokens))
        if length == 2:
            assert best.score == pytest.approx(max(scores.values()))


def test_hypotheses_fall_and_differ() -> None:
    for hypotheses in search(Table(3), 4, beam_size=5, max_length=9, bos=2, eos=0, n_best=5):
        scores = [h.score for h in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(h.tokens) for h in hypotheses}) == 5


def test_a_picture_is_found_the_same_alone_and_among_others() -> None:
    """Ended beams and pictures leave the step; what remains must not notice."""

    class Only(Table):
        def log_probs(self, past: tuple[int, ...]) -> np.ndarray:
            return super().log_probs((2, *past[1:]))

    together = search(Table(11), 4, beam_size=3, max_length=12, bos=2, eos=0, n_best=3)
    alone = search(Only(11), 1, beam_size=3, max_length=12, bos=2, eos=0, n_best=3)
    assert together[2] == alone[0]


def test_ended_rows_are_not_fed() -> None:
    class Ends(Table):
        def log_probs(self, past: tuple[int, ...]) -> np.ndarray:
            probabilities = np.full(WORDS, 0.01)
            probabilities[0 if len(past) > 2 + past[0] else 3] = 1.0
            return np.log(probabilities / probabilities.sum())

    table = Ends(0)
    hypotheses = search(table, 2, beam_size=1, max_length=30, bos=2, eos=0)
    assert [h[0].tokens for h in hypotheses] == [[2, 3, 0], [2, 3, 3, 0]]
    assert table.fed == 2 + 3


@pytest.mark.parametrize(("end", "kept"), [(0.30, False), (0.36, True)])
def test_a_beam_that_ended_competes_on(end: float, kept: bool) -> None:
    """Two beams; the children of the open one have 0.333 and 0.326 in all."""

    class Late(Table):
        def log_probs(self, past: tuple[int, ...]) -> np.ndarray:
            if len(past) == 2:
                return np.log(np.array([end, 0.01, 0.01, 0.68, 0.01]))
            return np.log(np.array([0.01, 0.48, 0.49, 0.01, 0.01]))

    hypotheses = search(Late(0), 1, beam_size=2, max_length=3, bos=2, eos=0, n_best=2)[0]
    expected = {(2, 0), (2, 3, 2)} if kept else {(2, 3, 1), (2, 3, 2)}
    assert {tuple(h.tokens) for h in hypotheses} == expected


@pytest.mark.parametrize(
    ("beam_size", "n_best", "max_length"), [(3, 4, 10), (3, 0, 10), (0, 1, 10), (3, 1, 1)]
)
def test_impossible_sizes_are_refused(beam_size: int, n_best: int, max_length: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        search(Table(0), 1, beam_size=beam_size, max_length=max_length, bos=2, eos=0, n_best=n_best)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_slots_hold_what_their_rows_wrote(seed: int) -> None:
    """A cache of plain integers that does only the moves it is told to."""
    chance = np.random.default_rng(seed)
    pictures, size, room = 3, 8, 10
    slots = Slots(pictures, size, room)
    cache = np.full((size, room), -7)
    pasts: list[list[int]] = [[] for _ in range(pictures)]
    picture_of = list(range(pictures))
    for position in range(room):
        parents = chance.integers(0, len(pasts), chance.integers(1, size + 1))
        move = slots.reorder(parents)
        if move is not None:
            assert not set(move.sources) & set(move.targets)
            assert (move.positions < position).all()
            cache[move.targets, move.positions] = cache[move.sources, move.positions]
        slots.written()
        picture_of = [picture_of[parent] for parent in parents]
        tokens = chance.integers(0, 100, len(parents))
        pasts = [
            [*pasts[parent], int(token)] for parent, token in zip(parents, tokens, strict=True)
        ]
        assert sorted(slots.slot_of_row) == list(range(len(parents)))
        cache[slots.slot_of_row, position] = tokens
        assert slots.picture_of_slot[slots.slot_of_row].tolist() == picture_of
        assert cache[slots.slot_of_row, : position + 1].tolist() == pasts


def test_rows_that_stay_in_order_are_never_copied() -> None:
    slots = Slots(2, 6, 4)
    slots.reorder(np.array([0, 0, 0, 1, 1, 1]))
    slots.written()
    for _ in range(3):
        assert slots.reorder(np.arange(6)) is None
        slots.written()


def test_the_bookkeeping_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import beholder.decoding as d\n"
        "import numpy as np\n"
        "step = lambda t, p, k: (np.zeros((len(t), k)), np.tile(np.arange(k), (len(t), 1)))\n"
        "print(len(d.search(step, 2, beam_size=2, max_length=4, bos=2, eos=0)))\n"
        "try: d.beam_search\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["2", "MissingExtra"]
