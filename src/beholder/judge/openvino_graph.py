"""Graphs of an exported judge in OpenVINO, on the CPU; with the extra `openvino`."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import openvino
from numpy.typing import NDArray

from beholder.errors import JudgeError

# bfloat16, which OpenVINO chooses on processors that have it, is no longer the judge that was
# compared with its original when it was exported
_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


@cache
def _core() -> openvino.Core:
    """One for all graphs, for as long as the process lives: each makes a signal stack for the
    thread, and one that ends before a later one leaves that thread with a stack that is gone."""
    return openvino.Core()


class OpenVinoGraph:
    """See `decoding.graph.Graph`. Values are arrays.

    Raises:
        JudgeError: OpenVINO can't run it.
    """

    def __init__(self, name: str, content: bytes, threads: int | None) -> None:
        core = _core()
        options = {**_EXACT, "INFERENCE_NUM_THREADS": threads or 0}
        try:
            model = core.read_model(content)
            self._compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise JudgeError(
                f"OpenVINO {openvino.__version__} can't run the judge's graph {name}: {error}",
                fix="Leave the backend out, or update openvino.",
            ) from error
        self._requests = threading.local()  # a request must not be run by two threads at once
        # compiling gives both further names: those of what comes just behind or before
        self._outputs = [output.any_name for output in model.outputs]
        self._inputs = {
            given.any_name: [
                size.get_length() if size.is_static else None for size in given.partial_shape
            ]
            for given in model.inputs
        }

    @property
    def inputs(self) -> Mapping[str, Sequence[Any]]:
        return self._inputs

    def put(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def get(self, value: NDArray[Any]) -> NDArray[Any]:
        return value

    def run(self, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        found = self._requests.own.infer(dict(given), share_inputs=True)
        return dict(zip(self._outputs, found.to_tuple(), strict=True))
