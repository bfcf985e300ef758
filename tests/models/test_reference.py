"""Import of published checkpoints and vocabularies, end to end, and what is refused."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from beholder.decoding import beam_search
from beholder.errors import BackboneError, CheckpointError, VocabularyError
from beholder.models.expansionnet import ExpansionNet
from beholder.models.reference import (
    infer_config,
    read_reference_checkpoint,
    read_reference_vocabulary,
    reference_backbone,
    swin_config,
)

GOLDEN = Path(__file__).parents[1] / "golden"
EXPECTED = json.loads((GOLDEN / "end_to_end.json").read_text())
WORDS = ["EOS", "PAD", "SOS", "UNK", "a", "cat"]
PUBLISHED = {
    "word2idx_dict": {word: index for index, word in enumerate(WORDS)},
    "idx2word_list": WORDS,
    "sos_str": "SOS",
    "eos_str": "EOS",
}


def test_pixels_to_comments_as_published() -> None:
    checkpoint = read_reference_checkpoint(GOLDEN / "reference_checkpoint.pth")
    tensors = load_file(GOLDEN / "end_to_end_tensors.safetensors")
    backbone = reference_backbone(checkpoint.swin, "reference_checkpoint.pth")
    assert backbone.config.size == EXPECTED["swin"]["img_size"]
    with torch.no_grad():
        tokens = backbone(tensors["pixels"]).tokens_BNC
    assert float((tokens - tensors["backbone_tokens"]).abs().max()) < 1e-5

    config = infer_config(checkpoint.body, heads=4, enc_expansions=(4, 8))
    for name, value in EXPECTED["config"].items():
        if name in type(config).model_fields:
            assert json.loads(config.model_dump_json())[name] == value
    model = ExpansionNet(config).eval()
    model.load_reference_state_dict(checkpoint.body)
    actual = beam_search(
        model, tokens, beam_size=EXPECTED["beam_size"], max_length=EXPECTED["max_length"]
    )
    assert [hypotheses[0].tokens for hypotheses in actual] == EXPECTED["tokens"]


def test_expansions_that_do_not_add_up_are_named() -> None:
    body = read_reference_checkpoint(GOLDEN / "reference_checkpoint.pth").body
    with pytest.raises(CheckpointError, match=r"12 expansion vectors.*992"):
        infer_config(body)


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"model_state_dict": {"vocab_linear.weight": torch.zeros(1), "x": print}}, path)
    with pytest.raises(CheckpointError, match="more than tensors"):
        read_reference_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        read_reference_checkpoint(path)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "truncated.pth"
    whole = (GOLDEN / "reference_checkpoint.pth").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        read_reference_checkpoint(path)


def test_a_missing_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such"):
        read_reference_checkpoint(tmp_path / "none.pth")
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="vocab_linear"):
        read_reference_checkpoint(tmp_path / "other.pth")


def test_a_backbone_that_does_not_fit_names_its_tensor() -> None:
    swin = dict(read_reference_checkpoint(GOLDEN / "reference_checkpoint.pth").swin)
    swin["norm.bias"] = torch.zeros(5)
    with pytest.raises(BackboneError, match=r"norm\.bias.*\(5,\).*\(32,\)"):
        reference_backbone(swin, "file")
    del swin["patch_embed.proj.weight"]
    with pytest.raises(CheckpointError, match=r"patch_embed\.proj\.weight"):
        reference_backbone(swin, "file")


def test_a_swin_that_timm_has_a_name_for_gets_it() -> None:
    with torch.device("meta"):
        swin = timm.create_model("swin_large_patch4_window12_384", num_classes=0)
    state = {
        re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name): t
        for name, t in swin.state_dict().items()
    }
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 144, 144, device="meta")
    config = swin_config(state)
    assert config.name == "timm/swin_large_patch4_window12_384"
    assert (config.size, config.resize, config.options) == (384, "squash", {})


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    body = read_reference_checkpoint(GOLDEN / "reference_checkpoint.pth").body
    with pytest.raises(CheckpointError, match="5 heads"):
        infer_config(body, heads=5, enc_expansions=(4, 8))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_published_vocabulary_is_read(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "tokens.pickle"
    path.write_bytes(pickle.dumps(PUBLISHED, protocol=protocol))
    vocabulary = read_reference_vocabulary(path)
    assert list(vocabulary.tokens) == WORDS
    assert (vocabulary.bos, vocabulary.eos) == (2, 0)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("open('harm', 'w')",)


def test_a_vocabulary_that_runs_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pickle"
    path.write_bytes(pickle.dumps({**PUBLISHED, "extra": Evil()}))
    with pytest.raises(VocabularyError, match=r"builtins\.eval"):
        read_reference_vocabulary(path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"plain text",
        pickle.dumps(PUBLISHED)[:40],
        pickle.dumps(WORDS),
        pickle.dumps({"idx2word_list": [1, 2]}),
        pickle.dumps({**PUBLISHED, "idx2word_list": [*WORDS[:4], "cat", "a"]}),
        pickle.dumps({"idx2word_list": ["a"], "word2idx_dict": {"a": 0}}),
    ],
)
def test_a_damaged_vocabulary_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.pickle"
    path.write_bytes(content)
    with pytest.raises(VocabularyError):
        read_reference_vocabulary(path)


def test_a_missing_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="can't be read"):
        read_reference_vocabulary(tmp_path / "none.pickle")
