"""Checkpoints and pickles of strangers: bombs, odd keys and torn files are sentences."""

from __future__ import annotations

import contextlib
import pickle
import random
import struct
import time
from pathlib import Path

import pytest
import torch
from mutants import mutated

from beholder.errors import BackboneError, CheckpointError, VocabularyError
from beholder.features.weights import read_weights
from beholder.models.reference import read_reference_checkpoint, read_reference_vocabulary

STATES = [
    {7: torch.zeros(2)}, {"vocab_linear.weight": torch.zeros(2), 7: torch.zeros(2)}, [1, 2], 7,
    None, {}, {"vocab_linear.weight": 7}, {"model_state_dict": {7: 8}}, torch.zeros(3),
    {"vocab_linear.weight": {"a": torch.zeros(2)}}, {("a", "b"): torch.zeros(2)},
]  # fmt: skip


@pytest.mark.parametrize("state", STATES, ids=lambda state: repr(state)[:30])
def test_states_of_other_kinds(state: object, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError):
        content = read_reference_checkpoint(path)
        raise CheckpointError(str(content))  # tensors by name: what they are is looked at later
    with contextlib.suppress(BackboneError):  # what is not a tensor by name may be left out
        assert all(isinstance(name, str) for name in read_weights(path))


def test_mutated_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    for newer in (True, False):
        torch.save(
            {"vocab_linear.weight": torch.zeros(4, 4)}, path,
            _use_new_zipfile_serialization=newer,
        )  # fmt: skip
        content, refused = path.read_bytes(), 0
        for seed in range(100):
            path.write_bytes(mutated(content, random.Random(seed)))
            for read, kind in (
                (read_reference_checkpoint, CheckpointError), (read_weights, BackboneError),
            ):  # fmt: skip
                try:
                    read(path)
                except kind:
                    refused += 1
        assert refused > 40


MEMO_BOMB = b"\x80\x02}r\xff\xff\xff\x7f."
TEXT_MEMO_BOMB = b"(dp99999999999\n."
LONG_STRING = b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"x."
LONG_BYTES = b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x."
NESTED = b"\x80\x02" + b"]" * 1000 + b"a" * 999 + b"."


@pytest.mark.parametrize(
    "content", [MEMO_BOMB, TEXT_MEMO_BOMB, LONG_STRING, LONG_BYTES, NESTED, b"", b"\x80", b"I1\n."]
)
def test_bombs_in_a_vocabulary(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.pickle"
    path.write_bytes(content)
    begin = time.process_time()
    with pytest.raises(VocabularyError):
        read_reference_vocabulary(path)
    assert time.process_time() - begin < 5


def test_mutated_vocabularies(tmp_path: Path) -> None:
    words = ["<eos>", "<pad>", "<sos>", "<unk>", "a", "cat"]
    known = {
        "word2idx_dict": {word: index for index, word in enumerate(words)}, "idx2word_list": words,
    }  # fmt: skip
    path = tmp_path / "vocabulary.pickle"
    refused = 0
    for protocol in range(5):
        content = pickle.dumps(known, protocol)
        for seed in range(60):
            path.write_bytes(mutated(content, random.Random(seed)))
            try:
                read_reference_vocabulary(path)
            except VocabularyError:
                refused += 1
    assert refused > 200
