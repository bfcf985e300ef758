"""Steps of exported captioners for beam search, with ONNX Runtime; several are an ensemble.

What graphs take and give is told in `deploy.onnx_graphs`. The past stays in the runtime's memory;
it grows by a position with each step, and rows are reordered inside the graph. Only numpy and ONNX
Runtime.

Shapes: B pictures, R rows, V words, k words asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, OrtValue


class OnnxStep:
    """One step of an exported captioner, or of several whose probabilities are averaged.

    Args:
        writers: for each its graph `step`, and what its `encoder` made of the pictures:
            `keys.<i>` and `values.<i>`, the first axis of which is B.
    """

    def __init__(
        self, writers: Sequence[tuple[InferenceSession, Mapping[str, np.ndarray]]]
    ) -> None:
        self._writers = [_Writer(session, seen) for session, seen in writers]

    def __call__(
        self, tokens_R: np.ndarray, parents_R: np.ndarray, best: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `decoding.beam.Step`."""
        said = [writer.advance(tokens_R, parents_R) for writer in self._writers]
        if len(said) == 1:
            return largest(said[0], best)
        mean_RV = np.mean([np.exp(log_probs_RV) for log_probs_RV in said], axis=0)
        values_Rk, words_Rk = largest(mean_RV, best)
        with np.errstate(divide="ignore"):
            return np.log(values_Rk), words_Rk


class _Writer:
    """The rows of one captioner: their past, and the keys and values of their pictures."""

    def __init__(self, session: InferenceSession, seen: Mapping[str, np.ndarray]) -> None:
        from onnxruntime import OrtValue

        self._session, self._seen = session, seen
        self._picture_of_row = np.arange(len(next(iter(seen.values()))))
        self._pictures = self._of_rows()
        self._outputs = [output.name for output in session.get_outputs()]
        self._past: dict[str, OrtValue] = {}
        for given in session.get_inputs():
            if given.name.startswith("past."):
                empty = np.zeros((len(self._picture_of_row), 0, given.shape[2]), np.float32)
                self._past[given.name] = OrtValue.ortvalue_from_numpy(empty)

    def advance(self, tokens_R: np.ndarray, parents_R: np.ndarray) -> np.ndarray:
        """Log-probabilities [R, V] of the word after these."""
        from onnxruntime import OrtValue

        picture_of_row = self._picture_of_row[parents_R]
        if not np.array_equal(picture_of_row, self._picture_of_row):
            self._picture_of_row = picture_of_row
            self._pictures = self._of_rows()
        fed = {
            "tokens": OrtValue.ortvalue_from_numpy(tokens_R),
            "parents": OrtValue.ortvalue_from_numpy(parents_R),
        }
        log_probs, *past = self._session.run_with_ort_values(
            self._outputs, {**fed, **self._past, **self._pictures}
        )
        self._past = dict(zip(self._past, past, strict=True))
        log_probs_RV: np.ndarray = log_probs.numpy()
        return log_probs_RV

    def _of_rows(self) -> dict[str, OrtValue]:
        """Keys and values of each row's picture."""
        from onnxruntime import OrtValue

        return {
            name: OrtValue.ortvalue_from_numpy(array[self._picture_of_row])
            for name, array in self._seen.items()
        }


def largest(scores_RV: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest scores of each row, falling, and their words: [R, k] each.

    Raises:
        ValueError: there are fewer words.
    """
    words = scores_RV.shape[1]
    if count > words:
        raise ValueError(f"{count} words asked for, but the vocabulary has {words}")
    near_Rk = np.argpartition(scores_RV, words - count, axis=1)[:, words - count :]
    values_Rk = np.take_along_axis(scores_RV, near_Rk, axis=1)
    order_Rk = np.argsort(-values_Rk, axis=1, kind="stable")
    return (
        np.take_along_axis(values_Rk, order_Rk, axis=1),
        np.take_along_axis(near_Rk, order_Rk, axis=1),
    )
