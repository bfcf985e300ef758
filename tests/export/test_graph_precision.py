"""8-bit numbers: how far weights move, what stays in floating point, and that parity decides."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto
from small_judge import load_uncut

from beholder.cli import main
from beholder.export import precision as quantise
from beholder.export.limits import LIMITS
from beholder.export.parity import Parity
from beholder.export.precision import int8_weight, narrowed, quantised
from beholder.judge.store.packed import read_packed


def run(*arguments: object) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def many(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """130 pictures, two of them broken: enough to calibrate on too."""
    root = tmp_path_factory.mktemp("many")
    for path in pictures.iterdir():
        shutil.copy(path, root / f"a{path.name}")
        shutil.copy(path, root / f"b{path.name}")
    return root


def outputs(graph: Any, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(graph.SerializeToString()).run(None, values)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_weight_moves_by_half_a_step_at_most(axis: int) -> None:
    weight = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    weight[:, :, 0] *= 100
    weight[0] = 0
    small, scale = int8_weight(weight, axis)
    assert small.dtype == np.int8
    assert scale.shape == tuple(
        size if index == axis % 3 else 1 for index, size in enumerate(weight.shape)
    )
    assert (np.abs(small * scale - weight) <= scale / 2 * 1.0001).all()
    assert np.abs(small).max() == 127


def test_narrowed_graphs_compute_with_the_weights_they_store(
    written_graphs: dict[str, Any],
) -> None:
    """Against the float graph, the weights of which were rounded by plain arithmetic."""
    from onnx import numpy_helper

    graph = written_graphs["heads"]
    rounded = type(graph)()
    rounded.CopyFrom(graph)
    for tensor in rounded.graph.initializer:
        if tensor.name.endswith("0.weight") and np.prod(tensor.dims) >= 128:
            small, scale = int8_weight(numpy_helper.to_array(tensor), 0)
            values = (small * scale).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    (pooled_input,) = onnxruntime.InferenceSession(graph.SerializeToString()).get_inputs()
    pooled = np.random.default_rng(0).normal(size=(7, pooled_input.shape[1])).astype(np.float32)
    ours, plain, float_ = (
        outputs(version, {"pooled": pooled}) for version in (narrowed(graph), rounded, graph)
    )
    for version, expected in zip(ours, plain, strict=True):
        np.testing.assert_allclose(version, expected, atol=1e-5)
    small = narrowed(written_graphs["step"]).graph.initializer
    scales = [tensor for tensor in small if tensor.name.endswith(".scale")]
    assert len(scales) > 10
    # float16 can't hold them
    assert all(scale.data_type == TensorProto.FLOAT for scale in scales)
    assert max(np.abs(a - b).max() for a, b in zip(ours, float_, strict=True)) > 1e-5


def test_ever_more_stays_in_floating_point(written_graphs: dict[str, Any]) -> None:
    generator = np.random.default_rng(0)
    pixels = [generator.normal(size=(1, 3, 64, 64)).astype(np.float32) for _ in range(4)]
    versions = list(quantised(written_graphs, pixels))
    kinds = []
    for version in versions:
        nodes = version.graphs["trunk"].graph.node
        kinds.append(sum(node.op_type == "QuantizeLinear" for node in nodes))
    assert kinds[0] > kinds[1] > kinds[2] > kinds[3] > 0
    assert kinds[4:] == [0, 0, 0, 0]
    assert versions[0].floating.startswith("activations of 0 of ")
    assert versions[-1].floating == "activations, and as float16 the weights of the trunk"
    sizes = [sum(g.ByteSize() for g in version.graphs.values()) for version in versions]
    whole = sum(graph.ByteSize() for graph in written_graphs.values())
    assert max(sizes[:5]) < 0.55 * whole  # of small graphs the nodes are a part
    expected = outputs(written_graphs["trunk"], {"pixels": pixels[0]})
    errors = [
        max(
            float(np.abs(tensor - reference).max() / np.ptp(reference))
            for tensor, reference in zip(
                outputs(version.graphs["trunk"], {"pixels": pixels[0]}), expected, strict=True
            )
        )
        for version in (versions[0], versions[4], versions[7])
    ]
    assert 0.2 > errors[0] > errors[1] > errors[2] > 0


def test_parity_decides_how_much_that_is(
    judge: Path, many: Path, graphs: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "judge.beholder"
    arguments = ("export", judge, "--to", path, "--pictures", many, "--precision", "int8")
    parities: list[Parity] = []

    def strict(self: Parity, limits: Any) -> list[str]:
        assert limits is LIMITS["int8"]
        parities.append(self)
        return [] if len(parities) > 4 else ["not yet"]

    monkeypatch.setattr(Parity, "broken", strict)
    assert run(*arguments) == 0
    packed = read_packed(path)
    assert packed.manifest.precision == "int8"
    assert packed.manifest.floating == "activations"
    assert packed.manifest.parity["pictures"] >= 64
    assert packed.manifest.parity == parities[-1].to_dict()
    assert f"in floating point: {packed.manifest.floating}" in capsys.readouterr().out
    pictures = sorted(many.iterdir())[1:20]
    verdicts = [load_uncut(file)(pictures) for file in (judge, path)]
    assert np.ptp([v.score for v in verdicts[0]]) > 0
    differences = [abs(a.score - b.score) for a, b in zip(*verdicts, strict=True)]
    assert 0 < max(differences) < 0.2 * np.ptp([v.score for v in verdicts[0]])
    monkeypatch.setattr(Parity, "broken", lambda self, limits: ["never enough"])
    monkeypatch.setattr(quantise, "SHARES", ())  # three versions are enough
    path.unlink()
    assert run(*arguments) == 1
    assert "As int8 the file does not say what the judge says: never enough" in (
        capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []
