"""Runs the graphs of an exported judge, in whatever runtime; numpy alone around them.

What graphs take and give is told in `export.graphs`.

Shape suffixes: B pictures, H height, W width, K classes of an attribute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beholder.decoding import search
from beholder.decoding.graph import Graph
from beholder.decoding.graph_step import GraphStep
from beholder.judge.generation import GenerationConfig
from beholder.judge.runtime.engine import HeadOutputs


class GraphEngine:
    """The graphs of an exported judge.

    Args:
        graphs: by their names without `.onnx`: `trunk`, `heads`, `encoder`, `step`; of further
            writers of an ensemble `encoder.1` and so on.
        attributes: their names, in the order of the heads' outputs.
        writers: comment heads that write together; 0 without one.
    """

    def __init__(
        self, graphs: Mapping[str, Graph], attributes: Sequence[str], writers: int = 0
    ) -> None:
        self.attributes = tuple(attributes)
        self.writers = writers
        self._graphs = dict(graphs)

    def opinions(
        self, pixels_B3HW: NDArray[np.float32], generation: GenerationConfig | None
    ) -> HeadOutputs:
        seen = self._seen("trunk", pixels_B3HW)
        score_B, distribution_BK, probabilities_BK = None, None, {}
        if "heads" in self._graphs:
            outputs = self._run("heads", seen)
            score_B = outputs.pop("score").astype(np.float64) if "score" in outputs else None
            if "distribution" in outputs:
                distribution_BK = outputs.pop("distribution").astype(np.float64)
            probabilities_BK = {
                name: probabilities.astype(np.float64)
                for name, probabilities in zip(self.attributes, outputs.values(), strict=True)
            }
        comments_B = None
        if generation is not None and self.writers:
            comments_B = self._comments(pixels_B3HW, seen, generation)
        pooled_BP = self._graphs["trunk"].get(seen["pooled"]) if "pooled" in seen else None
        return HeadOutputs(score_B, probabilities_BK, comments_B, distribution_BK, pooled_BP)

    def _comments(
        self,
        pixels_B3HW: NDArray[np.float32],
        seen: Mapping[str, Any],
        generation: GenerationConfig,
    ) -> list[list[list[int]]]:
        writers = []
        for suffix in ["", *(f".{index}" for index in range(1, self.writers))]:
            features = seen
            if suffix and f"trunk{suffix}" in self._graphs:
                features = self._seen(f"trunk{suffix}", pixels_B3HW)
            step = self._graphs[f"step{suffix}"]
            writers.append((step, self._run(f"encoder{suffix}", features)))
        beams = search(GraphStep(writers), len(pixels_B3HW), **generation.search_options())
        return [[hypothesis.tokens for hypothesis in hypotheses] for hypotheses in beams]

    def _seen(self, trunk: str, pixels_B3HW: NDArray[np.float32]) -> dict[str, Any]:
        """What a trunk makes of pictures, in the runtime's memory, for the next graph."""
        graph = self._graphs[trunk]
        return graph.run({"pixels": graph.put(pixels_B3HW)})

    def _run(self, name: str, values: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
        """A graph's outputs by name, of those values that it takes."""
        graph = self._graphs[name]
        outputs = graph.run({input_name: values[input_name] for input_name in graph.inputs})
        return {output_name: graph.get(value) for output_name, value in outputs.items()}
