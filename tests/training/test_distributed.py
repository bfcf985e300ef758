"""Two processes under torchrun do what one process does at the same global batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_training import NORMED, SCENARIOS, TinySource, checkpoints, normed, scenario, weights
from torchrun import torchrun

from beholder.training import train

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    torchrun(Path(__file__).parent / "two_processes.py", folder)
    return folder


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_processes_are_one(name, folder, tmp_path):
    task, source, settings = scenario(name)
    before = weights(task)
    result = train(task, source, TinySource(9), settings, tmp_path, "cpu")
    alone = weights(task)
    both = [torch.load(folder / f"{name}.{rank}.pt") for rank in range(2)]
    moved = 0.0
    for key, tensor in alone.items():
        assert torch.equal(both[0][key], both[1][key])
        torch.testing.assert_close(both[0][key], tensor, rtol=0, atol=1e-5)
        moved = max(moved, float((tensor - before[key]).abs().max()))
    assert moved > 0.01, "the training did nothing that could differ"

    lines = [
        [json.loads(line) for line in (home / "metrics.jsonl").read_text().splitlines()]
        for home in (folder / name, tmp_path)
    ]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]
    for mine, theirs in zip(*lines, strict=True):
        for key in mine.keys() - {"time", "throughput", "stage", "split"}:
            assert mine[key] == pytest.approx(theirs[key], abs=1e-4), key
    assert checkpoints(folder / name)
    assert result.checkpoint.name in checkpoints(folder / name)


@pytest.mark.parametrize("name", NORMED)
def test_two_processes_are_one_with_synchronised_batch_norms(name, folder, tmp_path):
    task, source, settings = normed(name)
    before = weights(task)
    train(task, source, TinySource(9), settings, tmp_path, "cpu")
    both = [torch.load(folder / f"{name}.{rank}.pt") for rank in range(2)]
    for key, tensor in weights(task).items():
        assert torch.equal(both[0][key], both[1][key])
        torch.testing.assert_close(both[0][key], tensor, rtol=1e-4, atol=1e-5)
    assert (task.head.weight - before["head.weight"]).abs().max() > 0.01
    assert "batch norms" not in (folder / name / "log.txt").read_text()


def test_a_process_without_anything_to_learn_from_does_not_keep_the_others_waiting(folder):
    both = [torch.load(folder / f"sparse.{rank}.pt") for rank in range(2)]
    assert all(torch.equal(both[0][key], both[1][key]) for key in both[0])
    assert all(tensor.isfinite().all() for tensor in both[0].values())


def test_the_log_says_what_batch_norms_do_not_see(folder):
    log = (folder / "whole" / "log.txt").read_text()
    assert "1 batch norms see each process's part of 8 pictures, not all of them" in log
    assert "1 batch norms see 8 pictures at a time, not the 16 of a step" in log
    assert "batch norms" not in (folder / "plain" / "log.txt").read_text()


def test_resumed_in_two_processes(folder):
    for rank in range(2):
        whole, resumed = (torch.load(folder / f"{name}.{rank}.pt") for name in ("whole", "resumed"))
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    log = (folder / "resumed" / "log.txt").read_text()
    assert "resuming from step-00000004" in log


def test_every_process_names_the_broken_picture(folder):
    errors = [(folder / f"error.{rank}").read_text() for rank in range(2)]
    assert errors[0] == errors[1]
    assert "folder/15.jpg" in errors[0]
    assert "step" in errors[0]
