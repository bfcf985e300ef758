"""Steps of exported captioners for beam search; several are an ensemble.

`export.graphs` describes the inputs and outputs of the graphs. The past stays in the runtime's
memory; it grows by a position with each step, and rows are reordered inside the graph. Only numpy.

Shapes: B pictures, R rows, V words, k best words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from beholder.decoding.graph import Graph


class GraphStep:
    """One step of an exported captioner, or of several whose probabilities are averaged.

    Args:
        captioners: for each its graph `step`, and the outputs of its `encoder` for the pictures,
            `keys.<i>` and `values.<i>`, whose first axis is B.
    """

    def __init__(self, captioners: Sequence[tuple[Graph, Mapping[str, np.ndarray]]]) -> None:
        self._captioners = [_Captioner(graph, encoded) for graph, encoded in captioners]

    def __call__(
        self, tokens_R: np.ndarray, parents_R: np.ndarray, best: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `decoding.beam.Step`."""
        log_probs = [captioner.advance(tokens_R, parents_R) for captioner in self._captioners]
        if len(log_probs) == 1:
            return largest(log_probs[0], best)
        mean_RV = np.mean([np.exp(log_probs_RV) for log_probs_RV in log_probs], axis=0)
        values_Rk, words_Rk = largest(mean_RV, best)
        with np.errstate(divide="ignore"):
            return np.log(values_Rk), words_Rk


class _Captioner:
    """The rows of one captioner: their past, and the keys and values of their pictures."""

    def __init__(self, graph: Graph, encoded: Mapping[str, np.ndarray]) -> None:
        self._graph, self._encoded = graph, encoded
        self._picture_of_row = np.arange(len(next(iter(encoded.values()))))
        self._pictures = self._of_rows()
        self._past: dict[str, Any] = {}
        for name, shape in graph.inputs.items():
            if name.startswith("past."):
                empty = np.zeros((len(self._picture_of_row), 0, shape[2]), np.float32)
                self._past[name] = graph.put(empty)

    def advance(self, tokens_R: np.ndarray, parents_R: np.ndarray) -> np.ndarray:
        """Log-probabilities [R, V] of the word after these."""
        picture_of_row = self._picture_of_row[parents_R]
        if not np.array_equal(picture_of_row, self._picture_of_row):
            self._picture_of_row = picture_of_row
            self._pictures = self._of_rows()
        put = self._graph.put
        rows = {"tokens": put(tokens_R), "parents": put(parents_R)}
        log_probs, *past = self._graph.run({**rows, **self._past, **self._pictures}).values()
        self._past = dict(zip(self._past, past, strict=True))
        log_probs_RV: np.ndarray = self._graph.get(log_probs)
        return log_probs_RV

    def _of_rows(self) -> dict[str, Any]:
        """Keys and values of each row's picture."""
        rows = self._picture_of_row
        return {name: self._graph.put(array[rows]) for name, array in self._encoded.items()}


def largest(scores_RV: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest scores of each row, falling, and their words: [R, k] each.

    Raises:
        ValueError: there are fewer words.
    """
    words = scores_RV.shape[1]
    if count > words:
        raise ValueError(f"{count} words are wanted, but the vocabulary has {words}")
    near_Rk = np.argpartition(scores_RV, words - count, axis=1)[:, words - count :]
    values_Rk = np.take_along_axis(scores_RV, near_Rk, axis=1)
    order_Rk = np.argsort(-values_Rk, axis=1, kind="stable")
    return (
        np.take_along_axis(values_Rk, order_Rk, axis=1),
        np.take_along_axis(near_Rk, order_Rk, axis=1),
    )
