"""Graphs of an exported judge in ONNX Runtime, on the CPU: what a light install runs them with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime
from numpy.typing import NDArray
from onnxruntime import InferenceSession, OrtValue
from onnxruntime.capi import onnxruntime_pybind11_state as refusals

from beholder.errors import JudgeError

_REFUSED = (
    refusals.Fail, refusals.InvalidArgument, refusals.InvalidGraph, refusals.InvalidProtobuf,
    refusals.NotImplemented, refusals.RuntimeException,
)  # fmt: skip
ERRORS_ONLY = 3


class OnnxRuntimeGraph:
    """See `decoding.graph.Graph`.

    Raises:
        JudgeError: ONNX Runtime can't run it.
    """

    def __init__(self, name: str, content: bytes, threads: int | None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = ERRORS_ONLY
        # the threads of one graph would spin on the cores that the next one needs
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except _REFUSED as error:
            raise JudgeError(
                f"ONNX Runtime {onnxruntime.__version__} can't run the judge's graph {name}: "
                f"{error}",
                fix="Update onnxruntime, or export the judge again.",
            ) from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def inputs(self) -> Mapping[str, Sequence[Any]]:
        return {given.name: given.shape for given in self._session.get_inputs()}

    def put(self, array: NDArray[Any]) -> OrtValue:
        return OrtValue.ortvalue_from_numpy(array)

    def get(self, value: OrtValue) -> NDArray[Any]:
        array: NDArray[Any] = value.numpy()
        return array

    def run(self, given: Mapping[str, OrtValue]) -> dict[str, OrtValue]:
        values = self._session.run_with_ort_values(self._outputs, dict(given))
        return dict(zip(self._outputs, values, strict=True))
