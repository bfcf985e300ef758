"""Judges in other processes: pickled for spawned ones, inherited by forked ones."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from beholder import Judge, Verdict
from beholder.errors import JudgeError
from beholder.export.judge_file import pack
from beholder.export.precision import Version
from beholder.judge.runtime import onnxruntime_graph
from beholder.judge.runtime.providers import Placement
from beholder.judge.store.folder import load_judge
from beholder.judge.store.packed import write_packed

SECONDS = 120

FORKED = """
import multiprocessing, os, sys
from beholder import Judge

path, picture, backend = sys.argv[1:]
judge = Judge.load(path, "cpu", backend=backend or None, threads=2)
expected = judge(picture) if os.environ.get("USED") else None

def work(queue):
    try:
        queue.put(judge(picture))
    except Exception as error:
        queue.put(str(error))

context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=work, args=(queue,))
process.start()
found = queue.get(timeout=300)
process.join(60)
assert process.exitcode == 0, process.exitcode
if isinstance(found, str):
    print(found)
else:
    expected = expected or judge(picture)
    assert found.comment == expected.comment and abs(found.score - expected.score) < 1e-4
    assert judge(picture) == expected
    print("same")
"""


@pytest.fixture(scope="module")
def exported(judge: Path, written_graphs: dict[str, Any], tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp("exported") / "judge.beholder"
    manifest, members = pack(load_judge(judge), Version(written_graphs, "everything"), "fp32")
    write_packed(path, manifest, {**members, "README.md": b"# A judge"})
    return path


def close(actual: Verdict, expected: Verdict) -> None:
    assert actual.comment == expected.comment and actual.interval is not None
    np.testing.assert_allclose(actual.score, expected.score, rtol=1e-4)
    for name, attribute in expected.attributes.items():
        assert actual.attributes[name].label == attribute.label


@pytest.mark.parametrize("method", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_judge_works_in_processes_that_are_started_anew(
    method: str, kind: str, judge: Path, exported: Path, pictures: Path
) -> None:
    loaded = Judge.load(exported if kind == "file" else judge, "cpu", threads=1)
    loaded.beam_size = 2  # what was changed since it was loaded counts
    paths = [pictures / f"{number:02}.png" for number in range(1, 4)]
    expected = [loaded(path) for path in paths]
    with multiprocessing.get_context(method).Pool(1) as pool:
        verdicts = pool.map_async(loaded, paths).get(SECONDS)
    for verdict, other in zip(verdicts, expected, strict=True):
        close(verdict, other)


class _Pictures(torch.utils.data.Dataset[Verdict]):
    """A user's data set that asks a judge."""

    def __init__(self, judge: Judge, paths: list[Path]) -> None:
        self.judge, self.paths = judge, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Verdict:
        return self.judge(self.paths[index])


def _as_they_are(verdicts: list[Verdict]) -> list[Verdict]:
    return verdicts


@pytest.mark.slow
def test_a_judge_works_in_the_workers_of_a_loader(exported: Path, pictures: Path) -> None:
    loaded = Judge.load(exported, "cpu", threads=1)
    paths = [pictures / f"{number:02}.png" for number in range(1, 4)]
    loader = torch.utils.data.DataLoader(
        _Pictures(loaded, paths), batch_size=3, num_workers=1, collate_fn=_as_they_are,
        multiprocessing_context="spawn", timeout=SECONDS,
    )  # fmt: skip
    (verdicts,) = list(loader)
    assert verdicts == [loaded(path) for path in paths]


def test_a_pickled_judge_needs_its_file_no_more(
    exported: Path, pictures: Path, tmp_path: Path
) -> None:
    file = tmp_path / "judge.beholder"
    file.write_bytes(exported.read_bytes())
    for backend in ("onnxruntime", "openvino"):
        if backend == "openvino":
            pytest.importorskip("openvino")
            file.write_bytes(exported.read_bytes())
        loaded = Judge.load(file, "cpu", backend=backend)  # type: ignore[arg-type]
        content = pickle.dumps(loaded)
        file.unlink()
        assert pickle.loads(content)(pictures / "01.png") == loaded(pictures / "01.png")


@pytest.mark.parametrize("used", [pytest.param("", marks=pytest.mark.slow), "1"])
@pytest.mark.parametrize("kind", ["file", "folder", "openvino"])
def test_a_fork_judges_or_says_why_not(
    kind: str, used: str, judge: Path, exported: Path, pictures: Path
) -> None:
    if kind == "openvino":
        pytest.importorskip("openvino")
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    path = judge if kind == "folder" else exported
    arguments = [path, pictures / "01.png", "openvino" if kind == "openvino" else ""]
    done = subprocess.run(
        [sys.executable, "-c", FORKED, *map(str, arguments)],
        env={**environment, "USED": used, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("spawn or forkserver" if kind == "openvino" else "same\n") in done.stdout


def test_an_accelerator_does_not_survive_a_fork(
    written_graphs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = written_graphs["heads"].SerializeToString()
    graph = onnxruntime_graph.OnnxRuntimeGraph("heads", content, 1)
    graph._placement = Placement("CUDAExecutionProvider", "cuda:1")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(JudgeError, match="on cuda:1 can't be used in a process that was forked"):
        graph.run({})
