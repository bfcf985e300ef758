"""A judge's file made by hand, without torch: the mean of each colour, and a score of it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from PIL import Image

from beholder.data.sealed import own_hash
from beholder.data.transforms import EvalTransform
from beholder.judge.calibration import Calibration
from beholder.judge.store.manifest import Manifest
from beholder.judge.store.packed import GRAPH, write_packed
from beholder.metrics.conformal import ConformalInterval

SIDE = 32
LABELS = ("dark", "bright")


def _model(name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any], **kept: Any) -> Any:
    tensors = [numpy_helper.from_array(np.asarray(value), key) for key, value in kept.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializer=tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def _value(name: str, *shape: Any) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def trunk() -> ModelProto:
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["pooled"], axis=1),
    ]
    return _model(
        "trunk", nodes, [_value("pixels", "B", 3, SIDE, SIDE)], [_value("pooled", "B", 3)]
    )


def heads(weight: float = 1.0) -> ModelProto:
    nodes = [
        helper.make_node("MatMul", ["pooled", "weight"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis"], ["score"]),
        helper.make_node("MatMul", ["pooled", "wide"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities.0"], axis=-1),
    ]
    return _model(
        "heads", nodes, [_value("pooled", "B", 3)],
        [_value("score", "B"), _value("probabilities.0", "B", len(LABELS))],
        weight=np.full((3, 1), weight, np.float32), axis=np.array([1]),
        wide=np.array([[-1, 1], [-1, 1], [0, 0]], np.float32),
    )  # fmt: skip


def write_judge(path: Path, graphs: Mapping[str, bytes] | None = None, **changes: Any) -> Path:
    """Write the judge's file.

    Args:
        graphs: instead of those above.
        changes: of the manifest.
    """
    serialised = {"trunk": trunk().SerializeToString(), "heads": heads().SerializeToString()}
    manifest = Manifest(
        **{
            "precision": "fp32", "heads": ("score", "attributes"), "classes": {"light": LABELS},
            "transform": EvalTransform(size=(SIDE, SIDE)).to_dict(), "score_range": (-9.0, 9.0),
            "calibration": Calibration(
                temperatures={"light": 2.0},
                score=ConformalInterval(level=0.9, quantile=0.25, pictures=40),
            ),
            **changes,
        }
    )  # fmt: skip
    members = {
        f"{name}{GRAPH}": content for name, content in {**serialised, **(graphs or {})}.items()
    }
    write_packed(path, manifest, {**members, "README.md": b"# A judge"})
    return path


def reseal(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a judge's manifest, and give it the right hash of itself."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    change(manifest)
    manifest["sha256"] = own_hash(manifest)
    members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)


def picture(path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path
