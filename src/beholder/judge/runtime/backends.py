"""Which runtimes run an exported judge."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal, get_args

from beholder.decoding.graph import Graph
from beholder.errors import DeviceError, JudgeError, MissingExtra
from beholder.judge.store.graph_proto import check_plain

Backend = Literal["onnxruntime", "openvino"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
DEFAULT: Backend = "onnxruntime"

log = logging.getLogger("beholder")


def open_graphs(
    graphs: Mapping[str, bytes],
    backend: Backend,
    threads: int | None = None,
    device: str | None = None,
) -> dict[str, Graph]:
    """Each graph by its name, ready to run.

    Args:
        threads: that run a graph on the CPU; None: one per core.
        device: see `providers.choose_placement`, and with OpenVINO `choose_openvino_device`.

    Raises:
        JudgeError: no such backend, a graph holds what no export writes (`graph_proto`), or the
            backend can't run it.
        DeviceError: the backend does not know the device, or it is not there.
        MissingExtra: the backend is not installed.
    """
    for name, graph in graphs.items():
        check_plain(name, graph)
    if backend == "onnxruntime":
        return _in_onnxruntime(graphs, threads, device)
    if backend == "openvino":
        if find_spec("openvino") is None:
            raise MissingExtra("The backend openvino", "openvino")
        from beholder.judge.runtime.openvino_graph import OpenVinoGraph, choose_openvino_device

        openvino_device = choose_openvino_device(device)
        return {
            name: OpenVinoGraph(name, graph, threads, openvino_device)
            for name, graph in graphs.items()
        }
    raise JudgeError(f"There is no backend {backend!r}.", fix=f"Use one of: {', '.join(BACKENDS)}.")


def _in_onnxruntime(
    graphs: Mapping[str, bytes], threads: int | None, device: str | None
) -> dict[str, Graph]:
    require_onnxruntime("Running an exported judge")
    from beholder.judge.runtime.onnxruntime_graph import OnnxRuntimeGraph
    from beholder.judge.runtime.providers import ON_CPU, choose_placement, find_libraries

    placement = choose_placement(device)
    find_libraries(placement)
    try:
        return {
            name: OnnxRuntimeGraph(name, graph, threads, placement)
            for name, graph in graphs.items()
        }
    except DeviceError as error:
        if placement.required:
            raise
        log.warning("The judge runs on the CPU. %s", error.what)
    return {name: OnnxRuntimeGraph(name, graph, threads, ON_CPU) for name, graph in graphs.items()}


def require_onnxruntime(feature: str) -> None:
    """Make sure that ONNX Runtime is there, of whatever distribution.

    Raises:
        MissingExtra: it is not; names the extras that bring one.
    """
    if find_spec("onnxruntime") is None:
        raise MissingExtra(feature, "cpu", "gpu")
