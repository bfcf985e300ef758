"""A submission runs by itself, without torch or the package, and says what the judge says."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from beholder import Judge
from beholder.challenges.fascode import write_submission
from beholder.cli import main
from beholder.data.test_time_augmentation import ViewConfig
from beholder.errors import GateError, JudgeError
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.judge.store.folder import save_judge
from beholder.models.config import HeadConfig

pytest.importorskip("onnxscript")

CLASSES = {
    "daily": ("formal", "sport", "home"),
    "gender": ("1", "4"),
}  # names; numbers that skip some
FORBIDDEN = ("torch", "timm", "torchvision", "safetensors", "pydantic", "polars", "scipy")


def make_model(opinion: str) -> JudgeModel:
    backbone = create_backbone(
        BackboneConfig(name="timm/test_efficientnet", weights="random", size=64, resize="pad")
    )
    torch.manual_seed(0)
    heads = {"score": HeadConfig()}
    if opinion == "attributes":
        heads["attributes"] = HeadConfig(hidden=(16,))
    config = JudgeConfig(
        backbone=backbone.config, pooled_dim=backbone.pooled_dim, token_dim=backbone.token_dim,
        classes=CLASSES, **heads,
    )  # fmt: skip
    model = JudgeModel(config, backbone)
    if opinion == "attributes":  # features as pictures of noise have them, so that classes differ
        with torch.no_grad():
            seen = backbone(torch.randn(64, 3, 64, 64)).pooled_BP
        model.heads["attributes"].fit_input(seen)
        for layers in model.heads["attributes"].layers:
            torch.nn.init.normal_(layers[-1].weight)
    return model.eval()


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge") / "judge"
    save_judge(make_model("attributes"), folder, beam_size=1)
    return folder


@pytest.fixture(scope="module")
def submissions(judge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of submissions, `float32` and `float16`."""
    folder = tmp_path_factory.mktemp("submissions")
    for dtype in ("float32", "float16"):
        arguments = [
            "submit",
            str(judge),
            "--form",
            "fascode",
            "--into",
            str(folder / dtype),
            "--dtype",
            dtype,
        ]
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert not left.value.code
    return folder


@pytest.fixture(params=["float32", "float16"])
def submission(submissions: Path, request: pytest.FixtureRequest) -> Path:
    return submissions / request.param


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures with boxes; one is broken, one box lies outside, one reaches out."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(5)
    rows = ["image_name,BBox_xmin,BBox_ymin,BBox_xmax,BBox_ymax,Daily,Gender"]
    for index in range(20):
        noise = generator.normal(
            generator.uniform(40, 220, 3), generator.uniform(5, 90), (70, 50, 3)
        )
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(root / f"{index}.png")
        box = ["10,5,48,60", ",,,", "-20,30,500,90"][index % 3]
        rows.append(f"{index}.png,{box},,")
    (root / "3.png").write_bytes(b"no picture")
    rows[8] = "7.png,400,400,500,500,,"
    (root / "table.csv").write_bytes("\n".join(rows).encode("utf-8-sig"))
    return root


def run(submission: Path, data: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """The program where nothing of the training stack can be imported."""
    for name in FORBIDDEN:
        (tmp_path / f"{name}.py").write_text("raise ImportError('not here')")
    return subprocess.run(
        [sys.executable, submission / "predict.py", data / "table.csv", "--images", data,
         "--output", tmp_path / "out.csv", "--threads", "1"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_it_says_what_the_judge_says(
    judge: Path, submission: Path, data: Path, tmp_path: Path
) -> None:
    done = run(submission, data, tmp_path)
    assert done.returncode == 1
    assert "3.png" in done.stderr
    assert "7.png: Nothing of the box" in done.stderr
    assert "2 pictures could not be used" in done.stderr
    loaded = Judge.load(judge, device="cpu")
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [row["image_name"] for row in rows] == [f"{index}.png" for index in range(20)]
    labels = set()
    for row in rows:
        if row["image_name"] in ("3.png", "7.png"):
            assert row["Daily"] == row["Gender"] == ""
            continue
        corners = [row[name] for name in row if name.startswith("BBox")]
        box = tuple(map(float, corners)) if all(corners) else None
        pixels = loaded.prepare(data / row["image_name"], box)
        (verdict,) = loaded.verdicts(["x"], [pixels])
        for column, name in (("Daily", "daily"), ("Gender", "gender")):
            label = verdict.attributes[name].label
            expected = int(label) if name == "gender" else CLASSES[name].index(label)
            probabilities = sorted(verdict.attributes[name].probabilities.values())
            if probabilities[-1] - probabilities[-2] > 0.02:  # half precision may turn a draw
                assert int(row[column]) == expected
            labels.add((column, row[column]))
    assert len(labels) > 2  # the judge does not say the same of all


def test_one_file_of_weights_and_nothing_of_training(submission: Path) -> None:
    files = {path.relative_to(submission).as_posix() for path in submission.rglob("*.*")}
    assert {"model.onnx", "predict.py", "beholder/data/transforms.py"} <= files
    assert all(file.endswith((".py", ".onnx")) for file in files)
    content = (submission / "model.onnx").read_bytes()
    assert b"site-packages" not in content
    assert b".py" not in content


def test_float16_has_half_the_bytes(submissions: Path) -> None:
    files = [submissions / dtype / "model.onnx" for dtype in ("float32", "float16")]
    full, half = (file.stat().st_size for file in files)
    weights = sum(p.numel() * 2 for p in make_model("attributes").parameters() if p.ndim > 1)
    assert full - half > 0.8 * weights
    first, second = (onnxruntime.InferenceSession(file) for file in files)
    pixels = np.random.default_rng(1).normal(size=(3, 3, 64, 64)).astype(np.float32)
    for ours, theirs in zip(
        *(s.run(None, {"pixels": pixels}) for s in (first, second)), strict=True
    ):
        assert np.abs(ours - theirs).max() < 0.03 * np.ptp(ours)


def test_too_large_or_without_attributes_is_refused(judge: Path, tmp_path: Path) -> None:
    with pytest.raises(GateError, match="over the limit"):
        write_submission(judge, tmp_path / "no", megabytes=0.1)
    save_judge(make_model("score"), tmp_path / "scores", beam_size=1)
    with pytest.raises(JudgeError, match="no attributes"):
        write_submission(tmp_path / "scores", tmp_path / "no")
    model = make_model("attributes")
    model.config = model.config.model_copy(update={"views": ViewConfig(flip=True)})
    save_judge(model, tmp_path / "views", beam_size=1)
    with pytest.raises(JudgeError, match="several views"):
        write_submission(tmp_path / "views", tmp_path / "no")
    assert not (tmp_path / "no").exists()
