"""Graphs of an exported judge in ONNX Runtime: what a light install runs them with."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import onnxruntime
from numpy.typing import NDArray
from onnxruntime import InferenceSession, OrtValue
from onnxruntime.capi import onnxruntime_pybind11_state as refusals

from beholder.decoding.graph import Axes
from beholder.errors import JudgeError, OpinionError, shortened
from beholder.judge.runtime.engine import lost_in_a_fork
from beholder.judge.runtime.providers import CPU, ON_CPU, Placement, unusable

_REFUSED = (
    refusals.EPFail, refusals.Fail, refusals.InvalidArgument, refusals.InvalidGraph,
    refusals.InvalidProtobuf, refusals.NotImplemented, refusals.RuntimeException,
)  # fmt: skip
ERRORS_ONLY = 3

# Sessions of the process that this one was forked from. To destroy one would wait for threads that
# are not here, or crash.
_left_behind: list[InferenceSession] = []


class OnnxRuntimeGraph:
    """See `decoding.graph.Graph`. Values stay in the memory of the device (`Placement.memory`).

    It may be pickled, and used in a forked process: there it starts a session of its own, as the
    threads of the first one are not in it.

    Raises:
        JudgeError: ONNX Runtime can't run it, or it was begun on an accelerator before a fork; an
            `OpinionError`: it fails on a batch.
        DeviceError: it can't run it on the device.
    """

    def __init__(
        self, name: str, content: bytes, threads: int | None, placement: Placement = ON_CPU
    ) -> None:
        self._made_from = (name, content, threads, placement)
        self._placement = placement
        self._memory = (placement.memory, placement.memory_index)
        self._session = _open_session(name, content, threads, placement)
        self._process = os.getpid()
        self.inputs: Axes = {value.name: value.shape for value in self._session.get_inputs()}
        self.outputs: Axes = {value.name: value.shape for value in self._session.get_outputs()}
        self._turn = threading.Lock() if placement.one_at_a_time else nullcontext()

    def __reduce__(self) -> tuple[Any, ...]:
        return OnnxRuntimeGraph, self._made_from

    def put(self, array: NDArray[Any]) -> OrtValue:
        return OrtValue.ortvalue_from_numpy(array, *self._memory)

    def get(self, value: OrtValue) -> NDArray[Any]:
        array: NDArray[Any] = value.numpy()
        return array

    def run(self, values: Mapping[str, OrtValue]) -> dict[str, OrtValue]:
        if self._process != os.getpid():
            self._begin_again()
        binding = self._session.io_binding()
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, *self._memory)
        try:
            with self._turn:
                self._session.run_with_iobinding(binding)
        except _REFUSED as error:
            raise OpinionError(
                f"The judge's graph {self._made_from[0]} failed: {shortened(error)}",
                fix="Judge fewer pictures at a time if memory is short; else export it again.",
            ) from error
        outputs = dict(zip(self.outputs, binding.get_outputs(), strict=True))
        binding.clear_binding_inputs()  # which the outputs would keep
        return outputs

    def _begin_again(self) -> None:
        """Start this forked process's own session."""
        if self._placement.provider != CPU:
            raise lost_in_a_fork(f"A judge on {self._placement.device}")
        _left_behind.append(self._session)
        self._session = _open_session(*self._made_from)
        self._process = os.getpid()


def _open_session(
    name: str, content: bytes, threads: int | None, placement: Placement
) -> InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = ERRORS_ONLY
    options.enable_mem_pattern = not placement.one_at_a_time  # DirectML needs it off
    # the threads of one graph would spin on the cores that the next one needs
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # without the fallback that ONNX Runtime prints to standard output and goes on with
    how = {"providers": placement.providers(), "enable_fallback": 0}
    try:
        session = InferenceSession(content, options, **how)
    except (*_REFUSED, RuntimeError, ValueError) as error:
        if placement.provider != CPU:
            raise unusable(placement, f"graph {name}: {shortened(error)}") from error
        raise JudgeError(
            f"ONNX Runtime {onnxruntime.__version__} can't run the judge's graph {name}: "
            f"{shortened(error)}",
            fix="Update onnxruntime, or export the judge again.",
        ) from error
    if placement.provider not in session.get_providers():
        has = ", ".join(session.get_providers())
        raise unusable(placement, f"graph {name} would run with {has} instead.")
    return session
