"""Judges sent to and fetched from a stand-in of the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_exported import write_brightness_judge
from stand_in_hub import SHA, TOKEN, Hub, running_hub

from beholder.data.files import sha256_file
from beholder.data.transforms import EvalTransform
from beholder.errors import JudgeError
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge import Judge
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.judge.store.folder import save_judge
from beholder.judge.store.hub import CARD, FILE, FOLDER
from beholder.models.config import HeadConfig

NAME = "me/sharpness"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    backbone = create_backbone(
        BackboneConfig(name="timm/test_efficientnet", weights="random", size=64)
    )
    config = JudgeConfig(
        backbone=backbone.config,
        pooled_dim=backbone.pooled_dim,
        token_dim=backbone.token_dim,
        score=HeadConfig(),
        score_range=(1.0, 5.0),
        attributes=HeadConfig(),
        classes={"light": ("dark", "bright")},
    )
    model = JudgeModel(config, backbone).eval()
    path = tmp_path_factory.mktemp("judges") / "judge"
    save_judge(model, path, beam_size=1, provenance={"recipe": "test"})
    return path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with running_hub() as running:
        yield running


def test_what_is_sent_comes_back(hub: Hub, folder: Path, picture: Path) -> None:
    judge = Judge.load(folder, "cpu")
    address = judge.push_to_hub(NAME, token=TOKEN, endpoint=hub.address)
    assert address == f"{hub.address}/{NAME}/commit/{SHA}"
    there = hub.repositories[NAME]
    for name in FOLDER:
        if (folder / name).exists():
            assert there[name] == (folder / name).read_bytes()
    card = there[CARD].decode()
    assert card.startswith("---\nlibrary_name: beholder\n")
    for part in ("from 1 to 5", "light: dark, bright", f'Judge.from_hub("{NAME}")', "`test`"):
        assert part in card
    back = Judge.from_hub(NAME, device="cpu", endpoint=hub.address)
    assert replace(back(picture), judge=None) == replace(judge(picture), judge=None)
    assert back.identity == f"{NAME}@{sha256_file(folder / 'judge.json')[:12]}"
    fetched = len(hub.downloads)
    Judge.from_hub(NAME, device="cpu", endpoint=hub.address)
    assert len(hub.downloads) == fetched  # from the cache


def test_a_card_of_ones_own_and_a_private_place(hub: Hub, folder: Path) -> None:
    judge = Judge.load(folder, "cpu")
    judge.push_to_hub(NAME, card="# Mine", private=True, token=TOKEN, endpoint=hub.address)
    assert hub.repositories[NAME][CARD] == b"# Mine"
    with pytest.raises(JudgeError, match="could not be fetched"):
        Judge.from_hub(NAME, token=False, endpoint=hub.address)  # type: ignore[arg-type]
    assert Judge.from_hub(NAME, device="cpu", token=TOKEN, endpoint=hub.address).source


def test_no_old_judge_of_the_other_kind_stays(hub: Hub, folder: Path, tmp_path: Path) -> None:
    write_brightness_judge(tmp_path / "bright.beholder")
    file, whole = Judge.load(tmp_path / "bright.beholder"), Judge.load(folder, "cpu")
    of_folder = {CARD, "judge.json", "weights.safetensors"}
    for judge, names in ((whole, of_folder), (file, {CARD, FILE}), (whole, of_folder)):
        judge.push_to_hub(NAME, token=TOKEN, endpoint=hub.address)
        hub.repositories[NAME]["notes.txt"] = b"mine"
        assert set(hub.repositories[NAME]) == {*names, "notes.txt"}
        back = Judge.from_hub(NAME, device="cpu", endpoint=hub.address)
        assert list(back.classes) == list(judge.classes)


def test_a_vocabulary_that_is_no_more_goes_too(hub: Hub, folder: Path) -> None:
    judge = Judge.load(folder, "cpu")
    judge.push_to_hub(NAME, token=TOKEN, endpoint=hub.address)
    hub.repositories[NAME]["vocabulary.json"] = b"of an earlier judge"
    judge.push_to_hub(NAME, token=TOKEN, endpoint=hub.address)
    assert "vocabulary.json" not in hub.repositories[NAME]


def test_a_judge_that_was_changed_on_the_way_is_refused(hub: Hub, folder: Path) -> None:
    Judge.load(folder, "cpu").push_to_hub(NAME, token=TOKEN, endpoint=hub.address)
    card = json.loads(hub.repositories[NAME]["judge.json"])
    card["config"]["score_range"] = [0.0, 9.0]
    hub.repositories[NAME]["judge.json"] = json.dumps(card).encode()
    with pytest.raises(JudgeError, match="changed"):
        Judge.from_hub(NAME, device="cpu", endpoint=hub.address)


def test_what_is_wrong_is_told(hub: Hub, folder: Path) -> None:
    judge = Judge.load(folder, "cpu")
    with pytest.raises(JudgeError, match="could not be sent"):
        judge.push_to_hub(NAME, token="wrong", endpoint=hub.address)
    with pytest.raises(JudgeError, match="could not be fetched"):
        Judge.from_hub("me/nothing", endpoint=hub.address)
    with pytest.raises(JudgeError, match="not a valid repository name"):
        Judge.from_hub("../../etc", endpoint=hub.address)
    hub.repositories["me/other"] = {"model.bin": b"x"}
    with pytest.raises(JudgeError, match="no judge in this repository"):
        Judge.from_hub("me/other", endpoint=hub.address)
    with pytest.raises(JudgeError, match="could not be fetched"):
        Judge.from_hub("me/unreached", endpoint="http://127.0.0.1:9")
    unsaved = Judge(judge.engine, EvalTransform(), classes={})
    with pytest.raises(JudgeError, match="not loaded from"):
        unsaved.push_to_hub(NAME, endpoint=hub.address)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "picture.png"
    Image.effect_noise((40, 40), 60).convert("RGB").save(path)
    return path
