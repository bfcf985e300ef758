"""Runs an exported judge with ONNX Runtime, on the CPU. Only numpy and ONNX Runtime.

What graphs take and give is told in `deploy.onnx_graphs`.

Shape suffixes: B pictures, H height, W width, K classes of an attribute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from onnxruntime.capi import onnxruntime_pybind11_state as refusals

from beholder.decoding import search
from beholder.decoding.onnx_step import OnnxStep
from beholder.errors import JudgeError
from beholder.judge.engine import RawOpinions

_REFUSED = (
    refusals.Fail, refusals.InvalidArgument, refusals.InvalidGraph, refusals.InvalidProtobuf,
    refusals.NotImplemented, refusals.RuntimeException,
)  # fmt: skip
ERRORS_ONLY = 3


@dataclass(frozen=True)
class Search:
    """What beam search needs to know of the comment heads: see `decoding.beam.search`."""

    max_length: int
    bos: int
    eos: int
    writers: int = 1


class OnnxEngine:
    """The graphs of an exported judge.

    Args:
        graphs: by their names without `.onnx`: `trunk`, `heads`, `encoder`, `step`; of further
            writers of an ensemble `encoder.1` and so on.
        attributes: their names, in the order of the heads' outputs.
        search: None without a comment head.

    Raises:
        JudgeError: ONNX Runtime can't run a graph.
    """

    def __init__(
        self, graphs: Mapping[str, bytes], attributes: Sequence[str], search: Search | None
    ) -> None:
        self.attributes = tuple(attributes)
        self.search = search
        self._graphs = {name: _session(name, content) for name, content in graphs.items()}

    def opinions(self, pixels_B3HW: NDArray[np.float32], beam_size: int | None) -> RawOpinions:
        seen = self._run("trunk", {"pixels": pixels_B3HW})
        score_B, probabilities_BK = None, {}
        if "heads" in self._graphs:
            said = self._run("heads", seen)
            score_B = said.pop("score").astype(np.float64) if "score" in said else None
            probabilities_BK = {
                name: probabilities.astype(np.float64)
                for name, probabilities in zip(self.attributes, said.values(), strict=True)
            }
        comments_B = None
        if beam_size is not None and self.search is not None:
            comments_B = self._comments(pixels_B3HW, seen, beam_size, self.search)
        return RawOpinions(score_B, probabilities_BK, comments_B)

    def _comments(
        self,
        pixels_B3HW: NDArray[np.float32],
        seen: Mapping[str, NDArray[np.float32]],
        beam_size: int,
        how: Search,
    ) -> list[list[list[int]]]:
        writers = []
        for suffix in ["", *(f".{index}" for index in range(1, how.writers))]:
            own = seen
            if suffix and f"trunk{suffix}" in self._graphs:
                own = self._run(f"trunk{suffix}", {"pixels": pixels_B3HW})
            writers.append((self._graphs[f"step{suffix}"], self._run(f"encoder{suffix}", own)))
        found = search(
            OnnxStep(writers),
            len(pixels_B3HW),
            beam_size=beam_size,
            max_length=how.max_length,
            bos=how.bos,
            eos=how.eos,
            n_best=beam_size,
        )
        return [[one.tokens for one in hypotheses] for hypotheses in found]

    def _run(
        self, name: str, given: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """A graph's outputs by name, of those of the given arrays that it takes."""
        session = self._graphs[name]
        taken = {one.name: given[one.name] for one in session.get_inputs()}
        names = [one.name for one in session.get_outputs()]
        return dict(zip(names, session.run(names, taken), strict=True))


def _session(name: str, content: bytes) -> InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    # the threads of one graph would spin on the cores that the next one needs
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except _REFUSED as error:
        raise JudgeError(
            f"ONNX Runtime {onnxruntime.__version__} can't run the judge's graph {name}: {error}",
            fix="Update onnxruntime, or export the judge again.",
        ) from error
