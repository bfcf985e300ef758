"""What is not a number never becomes a verdict: not in the library, the commands or the server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hand_made import heads, picture, write_judge
from onnx import helper

from beholder import Judge
from beholder.cli import main
from beholder.errors import OpinionError
from beholder.judge.runtime.backends import BACKENDS
from beholder.judge.runtime.engine import HeadOutputs
from beholder.judge.sanity import check_opinions
from beholder.serve.app import create_app
from beholder.serve.config import ServeConfig


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return picture(tmp_path / "photo.png")


@pytest.fixture(params=[np.nan, np.inf, 1e30])
def absurd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    content = heads(request.param).SerializeToString()
    return write_judge(tmp_path / "judge", {"heads": content})


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_library_tells_picture_and_opinion(absurd: Path, photo: Path, backend: str) -> None:
    with pytest.raises(OpinionError, match="no usable score") as refused:
        Judge.load(absurd, "cpu", backend=backend)(photo)  # type: ignore[arg-type]
    assert refused.value.where == str(photo)


@pytest.mark.parametrize("form", ["jsonl", "table", "csv"])
def test_the_command_leaves_with_an_error_and_prints_no_nan(
    absurd: Path, photo: Path, form: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["judge", str(absurd), str(photo), "--format", form])
    assert leave.value.code == 2
    printed = capfd.readouterr()
    assert "nan" not in printed.out.lower()
    assert printed.err.startswith("error: The judge gives no usable score")


def test_the_server_answers_500_in_the_form_of_its_errors(absurd: Path, photo: Path) -> None:
    with TestClient(
        create_app(Judge.load(absurd), ServeConfig()), raise_server_exceptions=False
    ) as client:
        for _ in range(2):  # and goes on
            answer = client.post("/v1/verdicts", files={"pictures": photo.read_bytes()})
            assert answer.status_code == 500, answer.text
            assert answer.json()["error"]["code"] == "opinion"
        assert client.get("/health").status_code == 200


def test_a_graph_that_fails_on_a_picture_is_told(photo: Path, tmp_path: Path) -> None:
    model = heads()
    model.graph.initializer[1].raw_data = np.array([7]).tobytes()  # no such axis to squeeze
    for output in model.graph.output:
        del output.type.tensor_type.shape.dim[:]
    model.graph.node.append(helper.make_node("Relu", ["score"], ["unused"]))
    path = write_judge(
        tmp_path / "judge",
        {"heads": model.SerializeToString()},
        classes={"light": ("dark", "bright")},
    )
    with pytest.raises(Exception, match="judge") as refused:
        Judge.load(path)(photo)
    assert type(refused.value).__module__ == "beholder.errors"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (HeadOutputs(np.zeros(1)), "shape"),
        (HeadOutputs(np.zeros((2, 1))), "shape"),
        (HeadOutputs(np.array([0.0, np.nan])), "score"),
        (HeadOutputs(np.array([0.0, -1e13])), "score"),
        (HeadOutputs(np.zeros(2), {"a": np.zeros((2, 3))}), "shape"),
        (HeadOutputs(np.zeros(2), {"a": np.array([[0, 1], [0, np.nan]])}), "a of a picture"),
        (HeadOutputs(np.zeros(2), {"a": np.array([[0, 1], [0, 7.0]])}), "a of a picture"),
        (HeadOutputs(np.zeros(2), {"a": np.array([[0, 1], [0, -0.5]])}), "a of a picture"),
    ],
)
def test_what_is_no_opinion(raw: HeadOutputs, message: str) -> None:
    classes = dict.fromkeys(raw.probabilities_BK, ("x", "y"))
    with pytest.raises(OpinionError, match=message) as refused:
        check_opinions(raw, classes, ["first", "second"])
    assert refused.value.where in (None, "second")


def test_the_greatest_and_least_that_are_opinions() -> None:
    raw = HeadOutputs(np.array([1e11, -3.0]), {"a": np.array([[0, 1], [1.0005, 0]])})
    check_opinions(raw, {"a": ("x", "y")}, ["first", "second"])
