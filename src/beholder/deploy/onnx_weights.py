"""An ONNX file with its matrices in half precision: half the bytes, computed with in float32.

Only what is stored changes. ONNX Runtime widens the weights once, when it loads the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def halve_weights(model: Any) -> None:
    """Store the matrices of an `onnx.ModelProto` as float16, each behind a cast to float32."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name = tensor.name
        narrow = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(narrow, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
