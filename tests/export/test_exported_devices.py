"""Exported judges on accelerators: ONNX Runtime's execution providers, with a stand-in of them.

The stand-in's sessions compute on the CPU, say that they have the provider, and note with what they
were made and in which memory values are.
"""

from __future__ import annotations

import logging
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnxruntime import IOBinding, OrtValue

from beholder import Judge, Verdict
from beholder.cli import main
from beholder.errors import DeviceError, JudgeError, MissingExtra
from beholder.export.judge_file import pack
from beholder.export.precision import Version
from beholder.features.device import using_device
from beholder.judge.runtime import backends, onnxruntime_graph
from beholder.judge.runtime.providers import ON_CPU, Placement, choose_placement
from beholder.judge.store.folder import load_judge
from beholder.judge.store.packed import write_packed

PACKAGES = {
    "onnxruntime": ["AzureExecutionProvider", "CPUExecutionProvider"],
    "onnxruntime for macOS": ["CoreMLExecutionProvider", "CPUExecutionProvider"],
    "onnxruntime-directml": ["DmlExecutionProvider", "CPUExecutionProvider"],
    "onnxruntime-gpu": [
        "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def exported(judge: Path, written_graphs: dict[str, Any], tmp_path_factory: Any) -> Path:
    """The judge as a file, as the exporter writes it."""
    path = tmp_path_factory.mktemp("exported") / "judge.beholder"
    manifest, members = pack(load_judge(judge), Version(written_graphs, "everything"), "fp32")
    write_packed(path, manifest, {**members, "README.md": b"# A judge"})
    return path


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEHOLDER_DEVICE", raising=False)


def install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: PACKAGES[package])


class Accelerator:
    """What the stand-in's sessions were made with, and where their values were put."""

    def __init__(self) -> None:
        self.providers: list[Any] = []
        self.memories: list[tuple[str, int]] = []
        self.missing: tuple[str, ...] = ()  # libraries of these are not there
        self.refuses: str | None = None


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Accelerator:
    """A machine with an accelerator and onnxruntime-gpu."""
    install("onnxruntime-gpu", monkeypatch)
    machine = Accelerator()

    class Binding(IOBinding):
        def bind_output(self, name: str, device_type: str = "", device_id: int = 0) -> None:
            machine.memories.append((device_type, device_id))
            super().bind_output(name)

    class Session(onnxruntime.InferenceSession):
        def __init__(
            self, content: bytes, options: Any, *, providers: Any, enable_fallback: int
        ) -> None:
            assert enable_fallback == 0
            machine.providers.append(providers)
            names = [name for name, _ in providers if name not in machine.missing]
            self.given_providers = names
            if machine.refuses and names != ["CPUExecutionProvider"]:
                raise RuntimeError(machine.refuses)
            super().__init__(content, options, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            return self.given_providers

        def io_binding(self) -> Binding:
            return Binding(self)

    class Value(OrtValue):
        @staticmethod
        def ortvalue_from_numpy(
            array: NDArray[Any], device_type: str = "", device_id: int = 0
        ) -> OrtValue:
            machine.memories.append((device_type, device_id))
            return OrtValue.ortvalue_from_numpy(array)

    monkeypatch.setattr(onnxruntime_graph, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime_graph, "OrtValue", Value)
    return machine


@pytest.mark.parametrize(
    ("package", "device", "first", "index", "memory"),
    [
        ("onnxruntime", "cpu", "CPUExecutionProvider", None, ("cpu", 0)),
        ("onnxruntime", None, "CPUExecutionProvider", None, ("cpu", 0)),
        ("onnxruntime for macOS", "mps", "CoreMLExecutionProvider", None, ("cpu", 0)),
        ("onnxruntime for macOS", "coreml", "CoreMLExecutionProvider", None, ("cpu", 0)),
        ("onnxruntime for macOS", None, "CPUExecutionProvider", None, ("cpu", 0)),
        ("onnxruntime-directml", "dml", "DmlExecutionProvider", "0", ("cpu", 0)),
        ("onnxruntime-directml", "directml:1", "DmlExecutionProvider", "1", ("cpu", 0)),
        ("onnxruntime-gpu", "cuda", "CUDAExecutionProvider", "0", ("cuda", 0)),
        ("onnxruntime-gpu", "cuda:1", "CUDAExecutionProvider", "1", ("cuda", 1)),
        ("onnxruntime-gpu", None, "CUDAExecutionProvider", "0", ("cuda", 0)),
        ("onnxruntime-gpu", "tensorrt:2", "TensorrtExecutionProvider", "2", ("cuda", 2)),
    ],
)
def test_a_device_is_a_provider(
    package: str, device: str | None, first: str, index: str | None, memory: tuple[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    install(package, monkeypatch)
    placement = choose_placement(device)
    name, options = placement.providers()[0]
    assert (name, options.get("device_id")) == (first, index)
    assert (placement.memory, placement.memory_index) == memory
    assert placement.providers()[-1][0] == "CPUExecutionProvider"
    if first.startswith("Tensorrt"):  # what it can't do, CUDA does, on the same device
        assert placement.providers()[1][0] == "CUDAExecutionProvider"
        assert placement.providers()[1][1]["device_id"] == index


def test_the_option_and_the_environment_are_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    install("onnxruntime-gpu", monkeypatch)
    monkeypatch.setenv("BEHOLDER_DEVICE", "cuda:3")
    assert choose_placement().index == 3
    with using_device("cpu"):
        assert choose_placement() == ON_CPU
        assert choose_placement("cuda:1").index == 1


@pytest.mark.parametrize(
    ("package", "device", "says"),
    [
        ("onnxruntime", "cuda", r"pip install 'beholder\[gpu\]'"),
        ("onnxruntime", "tensorrt", r"pip install 'beholder\[gpu\]' tensorrt"),
        ("onnxruntime", "dml", r"pip install 'beholder\[directml\]'"),
        ("onnxruntime", "mps", "on macOS"),
        ("onnxruntime-gpu", "coreml", "has only Tensorrt, CUDA, CPU"),
        ("onnxruntime-gpu", "cuda:x", "can't run on 'cuda:x'"),
        ("onnxruntime-gpu", "tpu", "Use one of cpu, cuda, tensorrt"),
    ],
)
def test_a_provider_that_is_not_installed_is_one_sentence(
    package: str, device: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(package, monkeypatch)
    with pytest.raises(DeviceError, match=says):
        choose_placement(device)


def test_two_distributions_of_onnx_runtime_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    install("onnxruntime", monkeypatch)

    def version(name: str) -> str:
        if name not in ("onnxruntime", "onnxruntime-gpu"):
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(DeviceError, match="onnxruntime and onnxruntime-gpu are both installed"):
        choose_placement("cuda")


def verdicts(judge: Judge, pictures: Path) -> list[Verdict]:
    return judge([pictures / f"{number:02}.png" for number in range(1, 6)])


def test_a_judge_runs_where_it_is_told_and_says_the_same(
    exported: Path, pictures: Path, accelerator: Accelerator
) -> None:
    expected = verdicts(Judge.load(exported, "cpu"), pictures)
    assert len({verdict.comment for verdict in expected}) > 1
    assert set(accelerator.memories) == {("cpu", 0)}
    accelerator.memories.clear()
    accelerator.providers.clear()
    assert verdicts(Judge.load(exported, "cuda:1"), pictures) == expected
    assert set(accelerator.memories) == {("cuda", 1)}
    options = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC", "device_id": "1"}
    chosen = [("CUDAExecutionProvider", options), ("CPUExecutionProvider", {})]
    assert accelerator.providers == [chosen] * 4  # trunk, heads, encoder, step


def test_the_past_stays_on_the_device(
    exported: Path, pictures: Path, accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes words and parents from the host, and gives it log-probabilities."""
    graph = onnxruntime_graph.OnnxRuntimeGraph
    put, get, run = graph.put, graph.get, graph.run
    moved: list[int] = []  # axes of what was put or got since the last step began
    of_steps: list[list[int]] = []

    def noted_put(self: Any, array: NDArray[Any]) -> OrtValue:
        moved.append(array.ndim)
        return put(self, array)

    def noted_get(self: Any, value: OrtValue) -> NDArray[Any]:
        moved.append(len(value.shape()))
        return get(self, value)

    def noted_run(self: Any, values: dict[str, OrtValue]) -> dict[str, OrtValue]:
        if "parents" in values:
            of_steps.append(moved.copy())
            moved.clear()
        return run(self, values)

    for name, noting in (("put", noted_put), ("get", noted_get), ("run", noted_run)):
        monkeypatch.setattr(graph, name, noting)
    judge = Judge.load(exported, "cuda")
    judge(pictures / "01.png")
    assert len(of_steps) > 3
    # log-probabilities [R, V] come; where the rows changed their pictures' keys and values
    # [R, h, c, N] go; words [R] and parents [R] go; no past [R, T, 4d] does either
    for axes in of_steps[1:]:
        assert axes[0] == 2 and axes[-2:] == [1, 1] and set(axes[1:-2]) <= {4}


def test_a_provider_that_onnx_runtime_leaves_out_is_refused(
    exported: Path, accelerator: Accelerator, capsys: pytest.CaptureFixture[str], pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Without its libraries ONNX Runtime warns and goes on with the CPU."""
    accelerator.missing = ("CUDAExecutionProvider",)
    with pytest.raises(DeviceError, match=r"can't use 'cuda' here: graph .* would run with CPU"):
        Judge.load(exported, "cuda")
    monkeypatch.setenv("BEHOLDER_DEVICE", "cuda")
    with pytest.raises(SystemExit, match="2"):
        main(["judge", str(exported), str(pictures / "01.png")])
    printed = capsys.readouterr().err
    assert "can't use 'cuda' here" in printed and "where: BEHOLDER_DEVICE" in printed
    accelerator.missing, accelerator.refuses = (), "CUDA failure 101: invalid device ordinal"
    with pytest.raises(DeviceError, match=r"can't use 'cuda:7' here.*invalid device ordinal"):
        Judge.load(exported, "cuda:7")


def test_the_best_that_is_there_is_the_cpu_where_cuda_does_not_work(
    exported: Path, pictures: Path, accelerator: Accelerator, caplog: pytest.LogCaptureFixture
) -> None:
    accelerator.missing = ("CUDAExecutionProvider",)
    with caplog.at_level(logging.WARNING, logger="beholder"):
        judge = Judge.load(exported)
    assert "The judge runs on the CPU" in caplog.text
    assert verdicts(judge, pictures) == verdicts(Judge.load(exported, "cpu"), pictures)


def test_libraries_that_are_not_found_do_not_get_among_the_verdicts(
    exported: Path, accelerator: Accelerator, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudnn"))
    Judge.load(exported, "cuda")
    captured = capsys.readouterr()
    assert captured.out == "" and "libcudnn" in captured.err


def test_directml_is_run_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    install("onnxruntime-directml", monkeypatch)
    assert choose_placement("dml").one_at_a_time
    assert not Placement("CUDAExecutionProvider", "cuda").one_at_a_time


def test_without_onnx_runtime_it_is_told_what_to_install(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as caught:
        Judge.load(exported)
    assert "pip install 'beholder[cpu]'" in str(caught.value)
    assert "beholder[gpu]" in str(caught.value)


def test_openvino_runs_where_it_is_told(
    exported: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    expected = verdicts(Judge.load(exported, "cpu", backend="openvino"), pictures)
    actual = verdicts(Judge.load(exported, "auto", backend="openvino"), pictures)
    assert [verdict.comment for verdict in actual] == [verdict.comment for verdict in expected]
    np.testing.assert_allclose(
        [verdict.score for verdict in actual], [verdict.score for verdict in expected], rtol=1e-4
    )
    with pytest.raises(DeviceError, match="OpenVINO finds no 'gpu:5' here"):
        Judge.load(exported, "gpu:5", backend="openvino")
    monkeypatch.setenv("BEHOLDER_DEVICE", "cuda")
    with pytest.raises(DeviceError, match="Use one of cpu, gpu, xpu, auto") as caught:
        Judge.load(exported, backend="openvino")
    assert caught.value.where == "BEHOLDER_DEVICE"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"classes": {"light": ("dark", "bright")}}, "heads gives .* for 1 attributes"),
        ({"classes": {"light": ("dark", "mid", "bright"), "kind.of": ("a", "b", "c")}},
         "heads gives .x2 for light of 3 labels"),
        ({"heads": ("attributes", "comment")}, "heads gives score"),
        ({"size": (32, 32)}, r"trunk takes pixels of \?x3x64x64 instead of \?x3x32x32"),
    ],
)  # fmt: skip
def test_graphs_that_are_not_those_of_the_manifest_are_refused(
    changes: dict[str, Any], says: str, judge: Path, written_graphs: dict[str, Any], tmp_path: Path
) -> None:
    manifest, members = pack(load_judge(judge), Version(written_graphs, "everything"), "fp32")
    if "size" in changes:
        changes = {"transform": {**manifest.transform, **changes}}
    path = tmp_path / "judge.beholder"
    write_packed(path, manifest.model_copy(update=changes), {**members, "README.md": b"#"})
    with pytest.raises(JudgeError, match=f"not those of its manifest: {says}"):
        Judge.load(path)


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        ("trunk", "trunk takes image instead of pixels"),
        ("heads", "heads takes image"),
        ("encoder", "encoder takes image"),
        ("step", "step takes image, .* instead of tokens"),
    ],
)
def test_graphs_with_other_names_are_refused(
    graph: str, says: str, judge: Path, written_graphs: dict[str, Any], tmp_path: Path
) -> None:
    renamed = type(written_graphs[graph])()
    renamed.CopyFrom(written_graphs[graph])
    before = renamed.graph.input[0].name
    renamed.graph.input[0].name = "image"
    for node in renamed.graph.node:
        for index, name in enumerate(node.input):
            if name == before:
                node.input[index] = "image"
    graphs = {**written_graphs, graph: renamed}
    manifest, members = pack(load_judge(judge), Version(graphs, "everything"), "fp32")
    path = tmp_path / "judge.beholder"
    write_packed(path, manifest, {**members, "README.md": b"#"})
    with pytest.raises(JudgeError, match=says):
        Judge.load(path)
