"""The smallest exported judge: the score is the pixels' mean, so that a swapped answer shows; an
attribute tells which half of the range they are of."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from beholder.data.transforms import EvalTransform
from beholder.judge.store.manifest import Manifest
from beholder.judge.store.packed import write_packed


def write_brightness_judge(path: Path, factor: float = 255.0) -> None:
    """Write it; scores are from 0 to `factor`."""
    transform = EvalTransform(size=(8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    manifest = Manifest(
        precision="fp32",
        heads=("score", "attributes"),
        classes={"half": ("dark", "bright")},
        score_range=(0.0, factor),
        transform=transform.to_dict(),
    )
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["B", 3, 8, 8])
    mean = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["B"])
    trunk = [helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0)]
    axes = helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"])
    half = helper.make_tensor_value_info("half", TensorProto.FLOAT, ["B", 2])
    heads = [
        helper.make_node("Mul", ["mean", "factor"], ["score"]),
        helper.make_node("Unsqueeze", ["mean", "last"], ["bright"]),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Concat", ["dark", "bright"], ["half"], axis=1),
    ]
    numbers = [
        helper.make_tensor("factor", TensorProto.FLOAT, [], [factor]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
    ]
    graphs = {
        "trunk.onnx": helper.make_graph(trunk, "trunk", [pixels], [mean], [axes]),
        "heads.onnx": helper.make_graph(heads, "heads", [mean], [score, half], numbers),
    }
    opset = [helper.make_opsetid("", 18)]
    members = {
        name: helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
        for name, graph in graphs.items()
    }
    for content in members.values():
        onnx.checker.check_model(content)
    write_packed(path, manifest, {**members, "README.md": b"# A judge of brightness\n"})
