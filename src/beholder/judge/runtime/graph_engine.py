"""Runs the graphs of an exported judge, in whatever runtime; numpy alone around them.

What graphs take and give is told in `export.graphs`.

Shape suffixes: B pictures, H height, W width, K classes of an attribute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beholder.decoding import search
from beholder.decoding.graph import Graph
from beholder.decoding.graph_step import GraphStep
from beholder.judge.runtime.engine import RawOpinions


@dataclass(frozen=True)
class Search:
    """What beam search needs to know of the comment heads: see `decoding.beam.search`."""

    max_length: int
    bos: int
    eos: int
    writers: int = 1


class GraphEngine:
    """The graphs of an exported judge.

    Args:
        graphs: by their names without `.onnx`: `trunk`, `heads`, `encoder`, `step`; of further
            writers of an ensemble `encoder.1` and so on.
        attributes: their names, in the order of the heads' outputs.
        search: None without a comment head.
    """

    def __init__(
        self, graphs: Mapping[str, Graph], attributes: Sequence[str], search: Search | None
    ) -> None:
        self.attributes = tuple(attributes)
        self.search = search
        self._graphs = dict(graphs)

    def opinions(self, pixels_B3HW: NDArray[np.float32], beam_size: int | None) -> RawOpinions:
        seen = self._seen("trunk", pixels_B3HW)
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
        seen: Mapping[str, Any],
        beam_size: int,
        how: Search,
    ) -> list[list[list[int]]]:
        writers = []
        for suffix in ["", *(f".{index}" for index in range(1, how.writers))]:
            own = seen
            if suffix and f"trunk{suffix}" in self._graphs:
                own = self._seen(f"trunk{suffix}", pixels_B3HW)
            writers.append((self._graphs[f"step{suffix}"], self._run(f"encoder{suffix}", own)))
        found = search(
            GraphStep(writers),
            len(pixels_B3HW),
            beam_size=beam_size,
            max_length=how.max_length,
            bos=how.bos,
            eos=how.eos,
            n_best=beam_size,
        )
        return [[one.tokens for one in hypotheses] for hypotheses in found]

    def _seen(self, trunk: str, pixels_B3HW: NDArray[np.float32]) -> dict[str, Any]:
        """What a trunk makes of pictures, in the runtime's memory, for the next graph."""
        graph = self._graphs[trunk]
        return graph.run({"pixels": graph.put(pixels_B3HW)})

    def _run(self, name: str, given: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
        """A graph's outputs by name, of those of the given values that it takes."""
        graph = self._graphs[name]
        said = graph.run({one: given[one] for one in graph.inputs})
        return {one: graph.get(value) for one, value in said.items()}
