"""`beholder import`: published checkpoints become judges that write what was published."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from beholder import Judge
from beholder.cli import main
from beholder.judge.runtime.torch_engine import TorchEngine

GOLDEN = Path(__file__).parents[1] / "golden"
CHECKPOINT = GOLDEN / "reference_checkpoint.pth"
EXPECTED = json.loads((GOLDEN / "end_to_end.json").read_text())
BODY = ("--heads", "4", "--enc-expansions", "4,8", "--beam-size", "3")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main(["import", *(str(argument) for argument in arguments)])
    return int(left.value.code or 0)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    return vocabulary(tmp_path / "tokens.pickle", EXPECTED["config"]["vocab"])


def vocabulary(path: Path, count: int) -> Path:
    tokens = ["EOS", "PAD", "SOS", "UNK", *(f"word{index}" for index in range(4, count))]
    content = {
        "word2idx_dict": {word: index for index, word in enumerate(tokens)},
        "idx2word_list": tokens,
        "sos_str": "SOS",
        "eos_str": "EOS",
    }
    path.write_bytes(pickle.dumps(content))
    return path


def without_backbone(folder: Path) -> Path:
    content = torch.load(CHECKPOINT, weights_only=True)
    body = {n: t for n, t in content["model_state_dict"].items() if not n.startswith("swin")}
    torch.save({"model_state_dict": body}, folder / "body.pth")
    return folder / "body.pth"


def written(judge: Judge) -> list[list[int]]:
    pixels = load_file(GOLDEN / "end_to_end_tensors.safetensors")["pixels"]
    assert isinstance(judge.engine, TorchEngine)
    comments = judge.engine.opinions(pixels.numpy(), judge.generation).comments_B
    assert comments is not None
    return [of_picture[0] for of_picture in comments]


def test_the_judge_writes_as_published(
    tmp_path: Path, words: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "judge"
    assert run(CHECKPOINT, "--vocabulary", words, "--into", target, *BODY) == 0
    printed = capsys.readouterr().out
    assert "64 pixels" in printed
    assert "photograph of the embedded sample: 'Word" in printed
    judge = Judge.load(target, "cpu")
    assert written(judge) == EXPECTED["tokens"]
    picture = Image.fromarray(np.full((90, 70, 3), 200, np.uint8))
    comment = judge(picture).comment
    assert comment
    assert comment.startswith("Word")


def test_a_device_that_is_not_there_is_told_first(
    tmp_path: Path, words: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (CHECKPOINT, "--vocabulary", words, "--into", tmp_path / "judge", *BODY)
    assert run(*arguments, "--device", "cuda:99") == 2
    assert "no device 'cuda:99' here" in capsys.readouterr().err
    assert not (tmp_path / "judge").exists()


def test_a_body_of_features_gets_the_backbone_it_is_told(tmp_path: Path, words: Path) -> None:
    body, target = without_backbone(tmp_path), tmp_path / "judge"
    arguments = (body, "--vocabulary", words, "--into", target, *BODY)
    assert run(*arguments, "--backbone", CHECKPOINT) == 0
    assert written(Judge.load(target, "cpu")) == EXPECTED["tokens"]


def test_several_checkpoints_write_together(tmp_path: Path, words: Path) -> None:
    target = tmp_path / "judge"
    three = [CHECKPOINT] * 3
    assert run(*three, "--vocabulary", words, "--into", target, *BODY) == 0
    judge = Judge.load(target, "cpu")
    assert isinstance(judge.engine, TorchEngine)
    assert len(judge.engine.model.others) == 2
    assert written(judge) == EXPECTED["tokens"]  # the mean of three equal probabilities


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no backbone", "--backbone"),
        ("other words", "12 words"),
        ("other expansions", "12 expansion vectors"),
        ("other configuration", "encoders.1.norm_1.weight"),
        ("something there", "something else"),
        ("no list", "not a list"),
    ],
)
def test_bad_input_is_told_and_leaves_nothing(
    tmp_path: Path, words: Path, capsys: pytest.CaptureFixture[str], case: str, message: str
) -> None:
    checkpoint, target, body = CHECKPOINT, tmp_path / "judge", BODY
    if case == "no backbone":
        checkpoint = without_backbone(tmp_path)
    elif case == "other words":
        words = vocabulary(tmp_path / "few.pickle", 12)
    elif case == "other expansions":
        body = ("--heads", "4")
    elif case == "other configuration":
        content = torch.load(CHECKPOINT, weights_only=True)
        content["model_state_dict"]["encoders.1.norm_1.weight"] = torch.zeros(7)
        checkpoint = tmp_path / "other.pth"
        torch.save(content, checkpoint)
    elif case == "something there":
        target.mkdir()
        (target / "work.txt").write_text("mine")
    else:
        body = ("--enc-expansions", "4;8")
    before = sorted(tmp_path.rglob("*"))
    assert run(checkpoint, "--vocabulary", words, "--into", target, *body) == 2
    shown = capsys.readouterr()
    assert message in shown.err + shown.out
    assert "Traceback" not in shown.err
    assert sorted(tmp_path.rglob("*")) == before
