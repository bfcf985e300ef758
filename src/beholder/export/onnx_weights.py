"""What an ONNX file holds: its matrices in half precision, and nothing of where it was made."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

FEWEST_NUMBERS = 128  # of a matrix that is narrowed


def halve_weights(model: Any, keep: Collection[str] = ()) -> None:
    """Store the matrices of an `onnx.ModelProto` as float16, each behind a cast to float32.

    Only what is stored changes. ONNX Runtime widens the weights once, when it loads the file.

    Args:
        keep: names of matrices that stay as they are.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or not worth_narrowing(tensor.dims):
            continue
        name = tensor.name
        if name in keep:
            continue
        narrow = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(narrow, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])


def worth_narrowing(shape: Sequence[int]) -> bool:
    """Whether a tensor is a matrix that holds most of its bytes in numbers: constants of a formula
    stay exact, whatever their shape."""
    return len(shape) >= 2 and math.prod(shape) >= FEWEST_NUMBERS


def strip_origins(model: Any) -> None:
    """Take out of an `onnx.ModelProto` what its exporter notes of every node: the lines of source
    that it comes from, with the paths of this machine."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
