"""Checkpoints on disk: whole or not there, verified, pruned, found by step; and the metric log."""

from __future__ import annotations

import json
import os
import time

import pytest
import torch
from tiny_training import TinySource, TinyTask, checkpoints, config

from beholder.errors import CheckpointError
from beholder.training import train
from beholder.training.checkpoints import (
    Checkpoint,
    CheckpointFolder,
    checkpoint_name,
    load_checkpoint,
    save_checkpoint,
)
from beholder.training.logs import MetricLog


def example(value: float = 1.0) -> Checkpoint:
    tensor = torch.full((2, 3), value)
    return Checkpoint({"note": "ü"}, {"weights": {"a": tensor, "tied": tensor, "t": tensor.T}})


def test_a_checkpoint_goes_round_tied_and_strided_tensors_too(tmp_path):
    save_checkpoint(tmp_path / "step-00000001", example())
    loaded = load_checkpoint(tmp_path / "step-00000001")
    assert loaded.state["note"] == "ü"
    for name, tensor in example().tensors["weights"].items():
        assert torch.equal(loaded.tensors["weights"][name], tensor)


def damage_bytes(path):
    content = bytearray((path / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "weights.safetensors").write_bytes(content)


def damage_cut(path):
    os.truncate(path / "optimizer.safetensors", 40)


def damage_missing(path):
    (path / "random.safetensors").unlink()


def damage_sums(path):
    (path / "checksums.json").write_text("{")


def damage_state(path):
    state = json.loads((path / "state.json").read_text())
    state["position"]["step"] += 1
    (path / "state.json").write_text(json.dumps(state))


def damage_more(path):
    (path / "extra.safetensors").write_bytes(b"")


@pytest.mark.parametrize(
    "damage",
    [damage_bytes, damage_cut, damage_missing, damage_sums, damage_state, damage_more],
)
def test_a_damaged_checkpoint_is_refused_and_the_one_before_named(damage, tmp_path):
    settings = config(save_every_steps=3, max_steps=9)
    train(TinyTask(), TinySource(), None, settings, tmp_path, "cpu")
    home = tmp_path / "checkpoints"
    assert checkpoints(tmp_path) == ["step-00000006", "step-00000009"]
    damage(home / "step-00000009")
    with pytest.raises(CheckpointError, match="damaged") as caught:
        train(TinyTask(), TinySource(), None, settings, tmp_path, "cpu")
    assert caught.value.where.endswith("step-00000009")
    assert caught.value.fix == ("Delete the folder step-00000009 to resume from step-00000006.")
    assert checkpoints(tmp_path) == ["step-00000006", "step-00000009"]


def test_without_an_earlier_one_the_way_out_is_the_beginning(tmp_path):
    save_checkpoint(tmp_path / "step-00000004", example())
    damage_bytes(tmp_path / "step-00000004")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "step-00000004")
    assert "from the beginning" in caught.value.fix
    with pytest.raises(CheckpointError, match="no such"):
        load_checkpoint(tmp_path / "step-00000005")


def test_a_newer_format_is_refused(tmp_path):
    save_checkpoint(tmp_path / "step-00000004", Checkpoint({"format": 99}, {}))
    with pytest.raises(CheckpointError, match="format 99"):
        load_checkpoint(tmp_path / "step-00000004")


def test_pruning_keeps_the_newest_and_the_best(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2)
    best = checkpoint_name(2, evaluation_due=False)
    for step in range(1, 7):
        folder.save(checkpoint_name(step, evaluation_due=False), example(), best=best)
    assert folder.names() == ["step-00000002", "step-00000005", "step-00000006"]
    assert not list(tmp_path.glob(".*"))


def test_the_newest_is_by_step_never_by_clock(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=9)
    names = [checkpoint_name(step, evaluation_due=False) for step in (100_000_000, 9, 99_999_999)]
    names.append(checkpoint_name(9, evaluation_due=True))
    for age, name in enumerate(names):
        folder.save(name, example(), best=None)
        os.utime(tmp_path / name, (time.time() + 1000 * age,) * 2)
    (tmp_path / "step-00000007.bak").mkdir()
    assert folder.names() == [names[3], names[1], names[2], names[0]]
    assert folder.newest() == tmp_path / names[0]
    assert CheckpointFolder(tmp_path / "none", keep=1).newest() is None


def test_what_a_kill_left_is_swept(tmp_path):
    (tmp_path / ".step-00000003.abc" / "step-00000003").mkdir(parents=True)
    (tmp_path / ".step-00000001.removed").mkdir()
    folder = CheckpointFolder(tmp_path, keep=1)
    assert folder.newest() is None
    folder.sweep()
    assert list(tmp_path.iterdir()) == []


def test_metric_lines_after_the_checkpoint_are_dropped_others_stay(tmp_path):
    for stage in ("a", "b"):
        log = MetricLog(tmp_path, stage, 0, 0)
        for step in range(4):
            log.write("train", step, 1, {"loss": step / 2})
        log.close()
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"time": 1, "stage": "b", "st')  # cut short by a kill
    log = MetricLog(tmp_path, "a", lines=2, step=2)
    assert log.lines == 2
    log.write("train", 9, 1, {"loss": float("nan")})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [
        ("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2), ("b", 3), ("a", 9),
    ]  # fmt: skip
    assert lines[-1]["loss"] is None
