"""Which runtimes run an exported judge."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal, get_args

from beholder.decoding.graph import Graph
from beholder.errors import JudgeError, MissingExtra

Backend = Literal["onnxruntime", "openvino"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
DEFAULT: Backend = "onnxruntime"


def open_graphs(
    graphs: Mapping[str, bytes], backend: Backend, threads: int | None = None
) -> dict[str, Graph]:
    """Each graph by its name, ready to run.

    Args:
        threads: that run a graph; None: one per core.

    Raises:
        JudgeError: no such backend, or it can't run a graph.
        MissingExtra: the backend is not installed.
    """
    if backend == "onnxruntime":
        from beholder.judge.onnxruntime_graph import OnnxRuntimeGraph

        return {name: OnnxRuntimeGraph(name, graph, threads) for name, graph in graphs.items()}
    if backend == "openvino":
        if find_spec("openvino") is None:
            raise MissingExtra("The backend openvino", "openvino")
        from beholder.judge.openvino_graph import OpenVinoGraph

        return {name: OpenVinoGraph(name, graph, threads) for name, graph in graphs.items()}
    raise JudgeError(f"There is no backend {backend!r}.", fix=f"Use one of: {', '.join(BACKENDS)}.")
