"""An exported file says what the judge says, without PyTorch; what does not is not written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from small_judge import load_uncut, make_model

from beholder import Judge
from beholder.cli import main
from beholder.errors import GateError, JudgeError
from beholder.export import judge_file as export
from beholder.export.judge_file import export_judge
from beholder.export.parity import material
from beholder.judge.runtime import backends
from beholder.judge.runtime.backends import BACKENDS, Backend
from beholder.judge.runtime.graph_engine import GraphEngine
from beholder.judge.store.folder import save_judge
from beholder.judge.store.packed import read_packed

FORBIDDEN = ("torch", "timm", "torchvision", "transformers", "safetensors", "onnx", "onnxscript")


def run(*arguments: object) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def exported(
    judge: Path,
    pictures: Path,
    written_graphs: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    path = tmp_path_factory.mktemp("exported") / "out" / "judge.beholder"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "judge_graphs", lambda model: written_graphs)
        assert run("export", judge, "--to", path, "--pictures", pictures, "--max-mb", 1) == 0
    return path


@pytest.mark.parametrize("backend", BACKENDS)
def test_file_says_what_the_folder_says(
    judge: Path, exported: Path, pictures: Path, backend: Backend
) -> None:
    first, second = Judge.load(judge, device="cpu"), Judge.load(exported, backend=backend)
    assert isinstance(second.engine, GraphEngine)
    assert second.beam_size == first.beam_size == 3
    assert second.provenance == first.provenance
    assert second.views == first.views
    assert second.score_range == first.score_range
    paths = sorted(pictures.iterdir())[1:]
    for beams, batch in ((3, 16), (1, 64), (5, 7)):
        first.beam_size = second.beam_size = beams
        for by_folder, by_file in zip(first(paths, batch_size=batch), second(paths), strict=True):
            assert by_file.image == by_folder.image
            assert by_file.score == pytest.approx(by_folder.score, abs=1e-5)
            assert by_file.interval == pytest.approx(by_folder.interval, abs=1e-5)
            assert by_file.comment == by_folder.comment
            assert by_file.alternatives == by_folder.alternatives
            for name, attribute in by_folder.attributes.items():
                assert by_file.attributes[name].label == attribute.label
                assert by_file.attributes[name].probabilities == pytest.approx(
                    attribute.probabilities, abs=1e-5
                )
    by_the_file = second(paths)
    assert (
        len({verdict.comment for verdict in by_the_file}) > 2
    )  # the judge does not say one thing of all
    assert len({verdict.attributes["kind.of"].label for verdict in by_the_file}) > 1
    assert second(paths[0]) == second([paths[0]])[0]


def judged(
    python: Path | str, model: Path, pictures: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`beholder judge` in an interpreter of its own."""
    command = [python, "-m", "beholder", "judge", model, pictures, "--format", "jsonl"]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def check_lines(done: subprocess.CompletedProcess[str], judge: Path) -> None:
    """What was printed is what the judge's folder says here."""
    assert done.returncode == 1, done.stderr  # for the picture that is none
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 66
    assert lines[0]["error"]["code"] == "not_a_picture"
    expected = Judge.load(judge, device="cpu")([line["image"] for line in lines[1:]])
    for line, verdict in zip(lines[1:], expected, strict=True):
        assert line["score"] == pytest.approx(verdict.score, abs=1e-5)
        assert line["comment"] == verdict.comment
        labels = {name: attribute["label"] for name, attribute in line["attributes"].items()}
        assert labels == {name: attribute.label for name, attribute in verdict.attributes.items()}


def test_it_needs_nothing_of_training(
    judge: Path, exported: Path, pictures: Path, tmp_path: Path
) -> None:
    for name in FORBIDDEN:
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError(name={name!r})")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    check_lines(judged(sys.executable, exported, pictures, PYTHONPATH=path), judge)
    refused = judged(sys.executable, judge, pictures, PYTHONPATH=path)
    assert refused.returncode == 2
    assert "`train` extra" in refused.stderr


@pytest.mark.slow
def test_the_light_install_runs_it(
    judge: Path, exported: Path, pictures: Path, tmp_path: Path
) -> None:
    """In an environment that `pip install 'beholder[cpu]'` makes; needs a package index."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    home = Path(__file__).parents[2]
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{home}[cpu]"], check=True)
    program = f"import importlib.util as u; print([n for n in {FORBIDDEN!r} if u.find_spec(n)])"
    shown = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
    check_lines(judged(python, exported, pictures, PYTHONPATH=""), judge)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"ensemble": 2}, {"comment_reads": "pooled", "score": None}])
def test_other_judges_too(changes: dict[str, Any], pictures: Path, tmp_path: Path) -> None:
    """Captioners with backbones of their own; one that reads pooled features."""
    save_judge(make_model(**changes), tmp_path / "judge", beam_size=3)
    with material(pictures) as chosen:
        done = export_judge(tmp_path / "judge", tmp_path / "judge.beholder", chosen)
    assert done.parity.same_comments == 1.0
    heads = read_packed(tmp_path / "judge.beholder").manifest.heads
    assert ("score" in heads) == ("score" not in changes)


def test_a_file_can_be_evaluated_but_not_explained(
    exported: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{path.name},{index}" for index, path in enumerate(sorted(pictures.iterdir()))]
    (tmp_path / "scores.csv").write_text("\n".join(["image,score", *rows]) + "\n")
    assert run("evaluate", exported, tmp_path / "scores.csv", "--images", pictures) == 0
    assert "65 pictures judged, 1 could not be" in capsys.readouterr().out
    picture = pictures / "01.png"
    assert run("judge", exported, picture, "--explain", "score", "--into", tmp_path / "no") == 2
    assert "folder of weights" in capsys.readouterr().err


def test_backends_are_of_files_and_told_if_they_are_not_there(
    judge: Path, exported: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    picture = pictures / "01.png"
    assert run("judge", exported, picture, "--backend", "openvino", "--format", "jsonl") == 0
    assert json.loads(capsys.readouterr().out)["score"] is not None
    assert run("judge", judge, picture, "--backend", "openvino") == 2
    assert "run by PyTorch" in capsys.readouterr().err
    with pytest.raises(JudgeError, match="one of: onnxruntime, openvino"):
        Judge.load(exported, backend="tflite")  # type: ignore[arg-type]
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert run("judge", exported, picture, "--backend", "openvino") == 2
    assert "pip install 'beholder[openvino]'" in capsys.readouterr().err


def test_threads_do_not_disturb_each_other(exported: Path, pictures: Path) -> None:
    paths = sorted(pictures.iterdir())[1:13]
    for backend in BACKENDS:
        judge = Judge.load(exported, backend=backend)
        alone = [judge(path) for path in paths]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(judge, paths * 4)) == alone * 4


def test_the_same_judge_gives_the_same_bytes(
    exported: Path, judge: Path, pictures: Path, graphs: dict[str, Any], tmp_path: Path
) -> None:
    again = tmp_path / "judge.beholder"
    assert run("export", judge, "--to", again, "--pictures", pictures) == 0
    assert again.read_bytes() == exported.read_bytes()
    with zipfile.ZipFile(exported) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b"site-packages" not in content


def test_float16_has_half_the_bytes_and_says_nearly_the_same(
    judge: Path, exported: Path, pictures: Path, graphs: dict[str, Any], tmp_path: Path
) -> None:
    half = tmp_path / "half.beholder"
    arguments = ("--to", half, "--pictures", pictures, "--precision", "fp16")
    assert run("export", judge, *arguments) == 0
    assert half.stat().st_size < 0.6 * exported.stat().st_size
    packed = read_packed(half)
    assert packed.manifest.precision == "fp16"
    paths = sorted(pictures.iterdir())[1:]
    scores = [[v.score for v in load_uncut(path)(paths)] for path in (exported, half)]
    difference = np.abs(np.subtract(*scores)).max()
    assert 0 < difference < 0.01
    assert packed.manifest.parity["score_difference"] == pytest.approx(difference, rel=0.3)


def test_too_large_is_not_written(
    judge: Path, pictures: Path, graphs: dict[str, Any], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "out" / "judge.beholder"
    arguments = ("--to", path, "--pictures", pictures, "--max-mb", 0.1)
    assert run("export", judge, *arguments) == 1
    shown = capsys.readouterr().err
    assert "over the limit of 0.1 MB" in shown
    assert "trunk.onnx" in shown
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("graph", "initializer", "factor", "message"),
    [
        ("heads", "heads.score.output_std", 1.01, "a score differs by"),
        ("heads", "heads.attributes.layers.1.0.weight", -1.0, "of the labels of kind.of differ"),
        ("step", "writer.output.bias", -3.0, "of the comments differ"),
    ],
)
def test_what_says_something_else_is_not_written(
    judge: Path, pictures: Path, graphs: dict[str, Any], tmp_path: Path,
    graph: str, initializer: str, factor: float, message: str,
) -> None:  # fmt: skip
    (tensor,) = (
        tensor_of_graph
        for tensor_of_graph in graphs[graph].graph.initializer
        if tensor_of_graph.name == initializer
    )
    changed = numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(changed, initializer))
    old = tmp_path / "judge.beholder"
    old.write_text("of yesterday")
    with material(pictures) as chosen, pytest.raises(GateError, match=message) as caught:
        export_judge(judge, old, chosen)
    assert caught.value.exit_code == 1
    assert old.read_text() == "of yesterday"
    assert list(tmp_path.iterdir()) == [old]


def test_bad_arguments_are_refused(
    judge: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    (few / "1.png").write_bytes((pictures / "01.png").read_bytes())
    to = ("--to", tmp_path / "judge.beholder")
    assert run("export", judge, *to, "--pictures", few) == 2
    assert "at least 64 pictures; 1 can" in capsys.readouterr().err
    assert run("export", judge, *to, "--pictures", few, "--table", few) == 2
    assert run("export", judge, *to, "--images", few) == 2
    assert run("export", tmp_path / "none", *to, "--pictures", pictures) == 2
    assert run("export", judge, "--to", tmp_path, "--pictures", pictures) == 2
    assert "This is a folder" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few"]


def test_the_card_tells_what_is_known(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("card", exported) == 0
    card = capsys.readouterr().out
    with zipfile.ZipFile(exported) as archive:
        assert archive.read("README.md").decode() in card
    for sentence in (
        "# Model card: test", "- kind.of: a, b, c", "90% coverage, calibrated on 40 pictures",
        "Compared on 65 pictures", "100.0% are the same", "Trained from random weights",
        "Probabilities of kind.of are not calibrated", "exported apart from the run",
    ):  # fmt: skip
        assert sentence in card
    assert run("card", exported.parent) == 2
