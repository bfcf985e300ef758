"""Graphs of an exported judge in OpenVINO, on Intel's processors; with the extra `openvino`."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any

import openvino
from numpy.typing import NDArray

from beholder.decoding.graph import Axes
from beholder.errors import DeviceError, JudgeError, OpinionError, shortened
from beholder.features.device import asked_device
from beholder.judge.runtime.engine import lost_in_a_fork

# bfloat16, which OpenVINO chooses on processors that have it, is no longer the judge that was
# compared with its original when it was exported
_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
_DEVICES = {"cpu": "CPU", "gpu": "GPU", "xpu": "GPU", "auto": "AUTO"}


@cache
def _core() -> openvino.Core:
    """One for all graphs, for as long as the process lives: each makes a signal stack for the
    thread, and one that ends before a later one leaves that thread with a stack that is gone."""
    return openvino.Core()


def choose_openvino_device(device: str | None = None) -> str:
    """Where OpenVINO runs the graphs of an exported judge, as OpenVINO names it.

    Args:
        device: `cpu`, `gpu` (also `xpu`), `gpu:1`, or `auto`, where OpenVINO chooses; None: as
            `features.device` was told; if it was not, the CPU.

    Raises:
        DeviceError: OpenVINO has no such device here.
    """
    wanted = asked_device(device)
    if wanted is None:
        return "CPU"
    kind, colon, number = wanted.name.partition(":")
    if kind not in _DEVICES or (colon and not number.isdigit()):
        raise DeviceError(
            f"OpenVINO can't run a judge on {wanted.name!r}.",
            where=wanted.origin,
            fix=f"Use one of {', '.join(_DEVICES)}, with a number if there are several (gpu:1).",
        )
    chosen = f"{_DEVICES[kind]}.{number}" if number else _DEVICES[kind]
    available = _core().available_devices
    # one device is GPU, several are GPU.0 and GPU.1; AUTO is none of them
    known = {*available, *(name.partition(".")[0] for name in available), "AUTO"}
    if chosen.removesuffix(".0") not in known and chosen not in known:
        raise DeviceError(
            f"OpenVINO finds no {wanted.name!r} here: it has only {', '.join(available)}.",
            where=wanted.origin,
            fix="Install the driver of the graphics processor, or choose cpu.",
        )
    return chosen


class OpenVinoGraph:
    """See `decoding.graph.Graph`. Values are arrays. It may be pickled.

    Args:
        device: as `choose_openvino_device` names it.

    Raises:
        JudgeError: OpenVINO can't run it, or it was begun before a fork.
    """

    def __init__(self, name: str, content: bytes, threads: int | None, device: str = "CPU") -> None:
        self._made_from = (name, content, threads, device)
        self._process = os.getpid()
        core = _core()
        options: dict[str, Any] = dict(_EXACT)
        if device == "CPU":  # the others do not know it
            options["INFERENCE_NUM_THREADS"] = threads or 0
        try:
            model = core.read_model(content)
            self._compiled = core.compile_model(model, device, options)
        except RuntimeError as error:
            raise JudgeError(
                f"OpenVINO {openvino.__version__} can't run the judge's graph {name} on {device}: "
                f"{shortened(error)}",
                fix="Leave the backend out, or update openvino.",
            ) from error
        self._requests = threading.local()  # a request must not be run by two threads at once
        # compiling gives both further names: those of what comes just behind or before
        self.outputs: Axes = {end.any_name: _sizes(end) for end in model.outputs}
        self.inputs: Axes = {end.any_name: _sizes(end) for end in model.inputs}

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenVinoGraph, self._made_from

    def put(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def get(self, value: NDArray[Any]) -> NDArray[Any]:
        return value

    def run(self, values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self._process != os.getpid():
            raise lost_in_a_fork("A judge in OpenVINO")
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        try:
            outputs = self._requests.own.infer(dict(values), share_inputs=True)
        except RuntimeError as error:
            raise OpinionError(
                f"The judge's graph {self._made_from[0]} failed: {shortened(error)}",
                fix="Judge fewer pictures at a time if memory is short; else export it again.",
            ) from error
        return dict(zip(self.outputs, outputs.to_tuple(), strict=True))


def _sizes(end: Any) -> list[int | None]:
    """Of the axes of an input or output; None: any."""
    return [size.get_length() if size.is_static else None for size in end.partial_shape]
