"""OpenVINO as a backend: names stay those of the graph, and signals find their stack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from beholder.errors import JudgeError

pytest.importorskip("openvino")

SIGNALLED = """
import gc, os, signal, sys
from pathlib import Path
from beholder.judge.runtime.openvino_graph import OpenVinoGraph

content = Path(sys.argv[1]).read_bytes()
graphs = [OpenVinoGraph(str(number), content, None) for number in range(3)]
del graphs[0]
gc.collect()
graphs.clear()
gc.collect()
signal.signal(signal.SIGUSR1, lambda *given: print("heard", flush=True))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.fixture(scope="module")
def content() -> bytes:
    """A graph whose runtime takes the first and last node away, and keeps their names."""
    nodes = [
        helper.make_node("Identity", ["pooled"], ["a_first"]),
        helper.make_node("Neg", ["a_first"], ["a_last"]),
        helper.make_node("Identity", ["a_last"], ["score"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3])
        for name in ("pooled", "score")
    ]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def test_names_are_those_of_the_graph(content: bytes) -> None:
    from beholder.judge.runtime.openvino_graph import OpenVinoGraph

    graph = OpenVinoGraph("heads", content, threads=1)
    assert dict(graph.inputs) == {"pooled": [None, 3]}
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    first = graph.run({"pooled": values})
    graph.run({"pooled": values[:1] + 100})
    assert list(first) == ["score"]
    np.testing.assert_array_equal(first["score"], -values)  # whatever has been run since


def test_what_it_can_not_run_is_told(content: bytes) -> None:
    from beholder.judge.runtime.openvino_graph import OpenVinoGraph

    with pytest.raises(JudgeError, match="graph trunk"):
        OpenVinoGraph("trunk", content[: len(content) // 2], threads=None)


def test_signals_are_heard_after_graphs_have_gone(content: bytes, tmp_path: Path) -> None:
    """On processors with AMX every OpenVINO core replaces the thread's signal stack."""
    (tmp_path / "small.onnx").write_bytes(content)
    command = [sys.executable, "-c", SIGNALLED, str(tmp_path / "small.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
