"""Graphs with 8-bit numbers: every matrix, and the trunk's activations where they bear it.

Weights have a scale per output channel. The trunk's convolutions and products also take 8-bit
activations, whose ranges are found on pictures (static quantisation, ONNX Runtime's). Where that
costs too much, the most sensitive nodes keep float activations, ever more of them: their weights,
and those of the other graphs, are widened once, when the file is loaded.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beholder.export.onnx_weights import halve_weights, worth_narrowing

Pixels = Sequence[NDArray[np.float32]]

SHARES = (0.0, 0.1, 0.25, 0.5)  # of the trunk's nodes that keep float activations
SMALL = 2**14  # numbers of a matrix that costs few bytes; those of early layers are such
QUANTISED = ("Conv", "MatMul", "Gemm")
RANKED_ON = 4  # pictures


class Version(NamedTuple):
    """One form of a judge's graphs, and in words what of it stays in floating point."""

    graphs: dict[str, Any]
    floating: str


def quantised(graphs: Mapping[str, Any], pixels: Pixels) -> Iterator[Version]:
    """The graphs with 8-bit numbers, then with ever fewer of them; each is made when it is asked
    for.

    Args:
        graphs: of `onnx_graphs.judge_graphs`.
        pixels: prepared pictures, [1, 3, H, W] each, to find the ranges of activations on.
    """
    narrow = {name: narrowed(graph) for name, graph in graphs.items()}
    trunks = {name: _Trunk(graph, pixels) for name, graph in graphs.items() if _is_trunk(name)}
    total = sum(len(trunk.nodes) for trunk in trunks.values())
    for share in SHARES:
        quantised_trunks = {name: trunk.quantised(share) for name, trunk in trunks.items()}
        count = sum(left for _, left in quantised_trunks.values())
        trunk_graphs = {name: narrowed(graph) for name, (graph, _) in quantised_trunks.items()}
        yield Version(
            narrow | trunk_graphs, f"activations of {count} of {total} nodes of the trunk"
        )
    yield Version(narrow, "activations")
    early = {name: narrowed(graph, SMALL) for name, graph in graphs.items() if _is_trunk(name)}
    yield Version(narrow | early, "activations, and as float16 small matrices of the trunk")
    half = {name: deepcopy(graph) for name, graph in graphs.items()}
    for graph in half.values():
        halve_weights(graph)
    trunk = {name: graph for name, graph in half.items() if _is_trunk(name)}
    heads = {name: graph for name, graph in half.items() if not _is_trunk(name)}
    description = "activations, and as float16 the weights of the trunk"
    last = [
        Version(narrow | trunk, description),
        Version(early | heads, "activations, and as float16 all but the trunk's large matrices"),
    ]
    yield from sorted(last, key=_bytes)


def _bytes(version: Version) -> int:
    return sum(graph.ByteSize() for graph in version.graphs.values())


def _is_trunk(name: str) -> bool:
    return name.startswith("trunk")


def narrowed(graph: Any, fewest: int = 0) -> Any:
    """A copy that stores its weights as int8, each behind a cast and a scale per output channel,
    and its other matrices, those of less than `fewest` numbers among them, as float16."""
    from onnx import TensorProto, helper, numpy_helper

    graph = deepcopy(graph)
    axes = _channel_axes(graph)
    first, scales = [], []
    for tensor in list(graph.graph.initializer):
        axis = axes.get(tensor.name)
        if tensor.data_type != TensorProto.FLOAT or axis is None:
            continue
        if not worth_narrowing(tensor.dims) or math.prod(tensor.dims) < fewest:
            continue
        name, weight = tensor.name, numpy_helper.to_array(tensor)
        small, scale = int8_weight(weight, axis)
        tensor.CopyFrom(numpy_helper.from_array(small, f"{name}.int8"))
        scales.append(numpy_helper.from_array(scale, f"{name}.scale"))
        first += [
            helper.make_node("Cast", [f"{name}.int8"], [f"{name}.wide"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}.wide", f"{name}.scale"], [name]),
        ]
    nodes = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*first, *nodes])
    graph.graph.initializer.extend(scales)
    # a scale is often smaller than float16 can hold
    halve_weights(graph, keep={scale.name for scale in scales})
    return graph


def int8_weight(
    weight: NDArray[np.float32], axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A matrix as int8, symmetric, and the scale of each channel along `axis`, of as many
    dimensions."""
    others = tuple(other for other in range(weight.ndim) if other != axis % weight.ndim)
    scale = np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-30) / 127
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


def _channel_axes(graph: Any) -> dict[str, int]:
    """The weights of layers and embeddings, and which of their axes holds the output channels (of
    an embedding: its entries)."""
    axes: dict[str, int] = {}
    for node in graph.graph.node:
        if node.op_type == "Conv":
            axes[node.input[1]] = 0
        elif node.op_type == "MatMul":
            axes[node.input[1]] = -1
        elif node.op_type == "Gemm":
            transposed = any(
                attribute.name == "transB" and attribute.i for attribute in node.attribute
            )
            axes[node.input[1]] = 0 if transposed else 1
        elif node.op_type == "Gather":
            axes[node.input[0]] = 0
    return axes


class _Trunk:
    """One trunk that is quantised statically, with nodes that can be left out.

    Attributes:
        nodes: names of those that can take 8-bit activations, the most sensitive first.
    """

    def __init__(self, graph: Any, pixels: Pixels) -> None:
        import onnx

        self.pixels = pixels
        self.prepared = _prepared(graph)
        self.nodes = [n.name for n in self.prepared.graph.node if n.op_type in QUANTISED]
        with tempfile.TemporaryDirectory(prefix="beholder-int8-") as folder:
            path = Path(folder) / "int8.onnx"
            self._quantise(path, ())
            self._all = onnx.load(path)
            noise = _signal_to_noise(path, pixels[:RANKED_ON])
        weakest = {
            node.name: min(noise.get(name, np.inf) for name in (*node.input, *node.output))
            for node in self.prepared.graph.node
        }
        self.nodes.sort(key=lambda name: weakest[name])

    def quantised(self, share: float) -> tuple[Any, int]:
        """The graph, of which this share of the nodes keeps float activations; and their number."""
        import onnx

        count = round(share * len(self.nodes))
        if count == 0:
            return self._all, 0
        with tempfile.TemporaryDirectory(prefix="beholder-int8-") as folder:
            path = Path(folder) / "int8.onnx"
            self._quantise(path, self.nodes[:count])
            return onnx.load(path), count

    def _quantise(self, path: Path, exclude: Collection[str]) -> None:
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        source = path.with_name("given.onnx")
        onnx.save(self.prepared, source)
        with _Quiet():
            quantize_static(
                source,
                path,
                _reader(self.pixels),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=list(exclude),
            )


def _prepared(graph: Any) -> Any:
    """The graph with norms merged into convolutions, and every shape that can be known."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="beholder-int8-") as folder, _Quiet():
        source, path = Path(folder) / "given.onnx", Path(folder) / "prepared.onnx"
        onnx.save(graph, source)  # given as it is, weights would be looked for in a file
        quant_pre_process(source, path, skip_symbolic_shape=True)
        return onnx.load(path)


def _signal_to_noise(path: Path, pixels: Pixels) -> dict[str, float]:
    """How far each quantised activation stands above its own rounding, in decibels."""
    from onnxruntime.quantization import qdq_loss_debug as debug

    with _Quiet():
        augmented = path.with_name("augmented.onnx")
        debug.modify_model_output_intermediate_tensors(path, augmented)
        seen = debug.collect_activations(str(augmented), _reader(pixels))
        matched = debug.create_activation_matching(seen)
    return {
        name: debug.compute_signal_to_quantization_noice_ratio(
            outputs["pre_qdq"], outputs["post_qdq"]
        )
        for name, outputs in matched.items()
    }


def _reader(pixels: Pixels) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(pixels)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            pixels = next(self.left, None)
            return None if pixels is None else {"pixels": pixels}

    return Reader()


class _Quiet:
    """Keeps what the quantiser logs of its own workings from the user."""

    def __enter__(self) -> None:
        self.level = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *args: object) -> None:
        logging.disable(self.level)
