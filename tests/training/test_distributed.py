"""Two processes under torchrun do what one process does at the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import SCENARIOS, TinySource, checkpoints, scenario, weights

from beholder.training import train

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node=2", str(HERE / "two_processes.py"), str(folder)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
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


def test_resumed_in_two_processes(folder):
    for rank in range(2):
        whole, resumed = (torch.load(folder / f"{name}.{rank}.pt") for name in ("whole", "resumed"))
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    log = (folder / "resumed" / "log.txt").read_text()
    assert "going on from step-00000004" in log


def test_every_process_names_the_broken_picture(folder):
    errors = [(folder / f"error.{rank}").read_text() for rank in range(2)]
    assert errors[0] == errors[1]
    assert "folder/15.jpg" in errors[0]
    assert "step" in errors[0]
