"""A judge on disk: the same verdicts after loading; refused when it is not as it was written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from beholder import Judge
from beholder.data.vocabulary import Vocabulary
from beholder.errors import JudgeError, OutputError, PictureError
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.calibration import Calibration, temperature_scaled
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.judge.store.folder import save_judge
from beholder.metrics.conformal import ConformalInterval
from beholder.models.config import HeadConfig
from beholder.models.expansionnet import ExpansionNetConfig

CLASSES = {"light": ("dark", "bright"), "kind.of": ("a", "b", "c")}


@pytest.fixture(scope="module")
def model() -> JudgeModel:
    backbone = create_backbone(
        BackboneConfig(name="timm/test_efficientnet", weights="random", size=64, pooling="stages")
    )
    vocabulary = Vocabulary.build(["a dark picture with grain", "bright and sharp"])
    torch.manual_seed(0)
    comment = ExpansionNetConfig(
        d_model=16, enc_layers=1, dec_layers=1, ff=16, heads=2, enc_expansions=(2, 3),
        dec_expansions=2, vocab_size=len(vocabulary), max_length=8,
        feature_dim=backbone.token_dim,
    )  # fmt: skip
    config = JudgeConfig(
        backbone=backbone.config,
        pooled_dim=backbone.pooled_dim,
        token_dim=backbone.token_dim,
        score=HeadConfig(),
        attributes=HeadConfig(),
        comment=comment,
        classes=CLASSES,
        vocabulary=vocabulary.to_dict(),
        calibration=Calibration(
            temperatures={"light": 2.0},
            score=ConformalInterval(level=0.9, quantile=0.25, pictures=40),
        ),
    )
    return JudgeModel(config, backbone).eval()


@pytest.fixture
def folder(model: JudgeModel, tmp_path: Path) -> Path:
    save_judge(model, tmp_path / "judge", beam_size=2, provenance={"recipe": "test"})
    return tmp_path / "judge"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    paths = []
    for index in range(5):
        pixels = generator.integers(0, 256, (70, 80, 3), dtype=np.uint8)
        paths.append(root / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def test_loaded_judge_gives_the_opinions_of_the_network(
    model: JudgeModel, folder: Path, pictures: list[Path]
) -> None:
    judge = Judge.load(folder, device="cpu")
    assert judge.beam_size == 2
    assert judge.provenance == {"recipe": "test"}
    verdict = judge(pictures[0])
    assert model.backbone is not None
    pixels = torch.from_numpy(model.backbone.transform.read(pictures[0]))[None]
    with torch.no_grad():
        opinions = model.opinions(model.features({"pixels": pixels}))
    assert opinions.score_B is not None
    assert verdict.score == pytest.approx(float(opinions.score_B[0]), abs=1e-6)
    assert verdict.interval == pytest.approx((verdict.score - 0.25, verdict.score + 0.25))
    for name, labels in CLASSES.items():
        probabilities = opinions.probabilities_BK[name][0].double().numpy()
        if name == "light":
            probabilities = temperature_scaled(probabilities[None], 2.0)[0]
        best = int(probabilities.argmax())
        attribute = verdict.attributes[name]
        assert attribute.label == labels[best]
        assert attribute.probability == pytest.approx(float(probabilities[best]), abs=1e-6)
        assert sum(attribute.probabilities.values()) == pytest.approx(1.0)
    assert verdict.comment is not None


def test_list_gives_what_single_pictures_give_in_order(folder: Path, pictures: list[Path]) -> None:
    judge = Judge.load(folder, device="cpu")
    together = judge(pictures, batch_size=2)
    alone = [judge(path) for path in pictures]
    for in_list, single in zip(together, alone, strict=True):
        assert in_list.image == single.image
        assert in_list.score == pytest.approx(single.score, abs=1e-5)
        assert in_list.comment == single.comment
    with Image.open(pictures[0]) as image:
        assert judge(image).score == pytest.approx(alone[0].score, abs=1e-5)


def test_picture_that_is_none_is_an_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(PictureError):
        Judge.load(folder, device="cpu")(tmp_path / "text.jpg")


def test_judge_is_as_stored_whatever_the_process_drew_before(
    folder: Path, pictures: list[Path]
) -> None:
    torch.manual_seed(123)
    first = Judge.load(folder, device="cpu")(pictures[0])
    torch.manual_seed(321)
    assert Judge.load(folder, device="cpu")(pictures[0]) == first


@pytest.mark.parametrize("name", ["judge.json", "weights.safetensors", "vocabulary.json"])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(JudgeError) as caught:
        Judge.load(folder)
    assert (
        "no judge here" in str(caught.value) if name == "judge.json" else name in str(caught.value)
    )


@pytest.mark.parametrize("name", ["judge.json", "weights.safetensors", "vocabulary.json"])
def test_changed_file_is_named(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    position = content.index(b"0.25") if name == "judge.json" else len(content) // 2
    content[position] = ord("1") if content[position] != ord("1") else ord("2")
    (folder / name).write_bytes(content)
    with pytest.raises(JudgeError, match=name):
        Judge.load(folder)


def test_newer_format_and_nonsense_are_refused(folder: Path) -> None:
    card = json.loads((folder / "judge.json").read_text())
    (folder / "judge.json").write_text(json.dumps({**card, "format": 99}))
    with pytest.raises(JudgeError, match="newer"):
        Judge.load(folder)
    (folder / "judge.json").write_text("[]")
    with pytest.raises(JudgeError, match="can't be read"):
        Judge.load(folder)


def test_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="no judge here"):
        Judge.load(tmp_path / "none")


def test_saving_replaces_as_a_whole_and_fails_without_leaving_anything(
    model: JudgeModel, folder: Path
) -> None:
    (folder / "stray.txt").write_text("of an older judge")
    save_judge(model, folder, beam_size=4)
    assert sorted(path.name for path in folder.iterdir()) == [
        "judge.json", "vocabulary.json", "weights.safetensors",
    ]  # fmt: skip
    assert [path.name for path in folder.parent.iterdir()] == ["judge"]
    with pytest.raises(OutputError):
        save_judge(model, folder / "judge.json" / "inside", beam_size=4)
