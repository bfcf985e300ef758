"""Judging on the device, from a folder: verdicts, beams, samples, ensembles, explanations, HTTP."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from compared import assert_same
from fastapi.testclient import TestClient
from PIL import Image
from small_judge import make_model

from beholder import Judge
from beholder.cli import main
from beholder.decoding import beam_search, sample
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.judge.store.folder import save_judge
from beholder.models.config import HeadConfig
from beholder.models.expansionnet import ExpansionNet, ExpansionNetConfig
from beholder.serve.app import create_app
from beholder.serve.config import ServeConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge with every head, whose comments are written by two captioners."""
    judge_folder = tmp_path_factory.mktemp("judges") / "judge"
    save_judge(make_model(ensemble=2), judge_folder, beam_size=3)
    return judge_folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("pictures")
    paths = []
    for row in range(5):
        noise = np.random.default_rng(row).integers(0, 40 + 50 * row, (70, 90, 3))
        paths.append(root / f"{row}.png")
        Image.fromarray(noise.astype(np.uint8)).save(paths[-1])
    return paths


def test_a_folders_verdicts(folder: Path, pictures: list[Path]) -> None:
    here, there = Judge.load(folder, device="cpu"), Judge.load(folder)
    assert_same(
        [verdict.to_dict() for verdict in there(pictures, batch_size=3)],
        [verdict.to_dict() for verdict in here(pictures, batch_size=3)],
    )


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
@pytest.mark.parametrize("index", [None, 0], ids=["score", "attribute"])
def test_explanations(name: str, index: int | None, pictures: list[Path], tmp_path: Path) -> None:
    backbone = create_backbone(BackboneConfig(name=f"timm/{name}", weights="random", size=96))
    torch.manual_seed(0)
    config = JudgeConfig(
        backbone=backbone.config, pooled_dim=backbone.pooled_dim, token_dim=backbone.token_dim,
        score=HeadConfig(), attributes=HeadConfig(), classes={"light": ("dark", "bright")},
    )  # fmt: skip
    save_judge(JudgeModel(config, backbone).eval(), tmp_path / "judge", beam_size=1)
    opinion = "score" if index is None else "light"
    maps = []
    for where in ("cpu", None):
        judge = Judge.load(tmp_path / "judge", device=where)
        heat = judge.engine.heat_map(judge.prepare(pictures[2])[0], opinion, index)
        maps.append(torch.from_numpy(heat))
    assert maps[0].max() > 0
    assert_same(maps[1] / maps[0].max(), maps[0] / maps[0].max())


def captioner(seed: int) -> ExpansionNet:
    torch.manual_seed(seed)
    config = ExpansionNetConfig(
        d_model=16, enc_layers=1, dec_layers=2, ff=16, heads=2, enc_expansions=(2, 3),
        dec_expansions=2, vocab_size=300, max_length=12, feature_dim=8,
    )  # fmt: skip
    model = ExpansionNet(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("lengths", [None, [5, 3, 1]], ids=["whole", "padded"])
def test_beams_samples_and_ensembles(lengths: list[int] | None, device: torch.device) -> None:
    features = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))
    by_device: list[list[object]] = []
    for where in (torch.device("cpu"), device):
        models = [captioner(seed).to(where) for seed in (0, 1)]
        seen = features.to(where)
        torch.manual_seed(7)
        drawn = sample(models[0], seen, n=4, max_length=8, lengths=lengths)
        searched = [
            beam_search(which, seen, beam_size=4, max_length=10, n_best=4, lengths=lengths)
            for which in (models[0], models)
        ]
        by_device.append(
            [
                [
                    (hypothesis.tokens, hypothesis.token_log_probs, hypothesis.score)
                    for beams in hypotheses
                    for hypothesis in beams
                ]
                for hypotheses in (drawn, *searched)
            ]
        )
    assert_same(by_device[1], by_device[0])


def test_a_folder_is_served(folder: Path, pictures: list[Path]) -> None:
    expected = Judge.load(folder, device="cpu")(pictures)
    with TestClient(create_app(Judge.load(folder), ServeConfig())) as client:
        files = [("pictures", (path.name, io.BytesIO(path.read_bytes()))) for path in pictures]
        answer = client.post("/v1/verdicts", files=files)
    assert answer.status_code == 200, answer.text
    verdicts = answer.json()
    rows = next(value for value in verdicts.values() if isinstance(value, list))
    assert [row["comment"] for row in rows] == [verdict.comment for verdict in expected]
    assert_same([row["score"] for row in rows], [verdict.score for verdict in expected])


def test_the_command_judges_on_it(
    folder: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str], device: torch.device
) -> None:
    lines = []
    for where in ("cpu", device.type):
        main_of(["judge", str(folder), str(pictures[3]), "--format", "jsonl", "--device", where])
        lines.append(json.loads(capsys.readouterr().out))
    assert_same(lines[1], lines[0])


def main_of(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert not left.value.code
