"""Loading processes: the same batches by every start method; how many there are by default."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from beholder.features import workers
from beholder.features.workers import available_cores, pins_memory, worker_count

CPU, ACCELERATOR = torch.device("cpu"), torch.device("cuda", 0)
TRAINING = Path(__file__).parents[1] / "training"


@pytest.mark.parametrize(
    "method", ["fork", "spawn", pytest.param("forkserver", marks=pytest.mark.slow)]
)
def test_every_start_method_gives_the_same_batches(method: str, tmp_path: Path) -> None:
    """Also where the main process has computed in several threads before."""
    code = f"""
import multiprocessing, torch
multiprocessing.set_start_method({method!r})
torch.set_num_threads(2)
torch.randn(500, 500) @ torch.randn(500, 500)
from tiny_training import TinySource, TinyTask, config, weights
from beholder.training import train
ends = []
for count in (0, 2):
    task = TinyTask()
    train(task, TinySource(20, noise=0.3), TinySource(9), config(epochs=1, workers=count),
          f"run{{count}}", "cpu")
    ends.append(weights(task))
assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(TRAINING)])},
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_what_is_asked_for_is_had() -> None:
    assert worker_count(0, ACCELERATOR, decodes=True) == 0
    assert worker_count(5, CPU, decodes=False) == 5


@pytest.mark.parametrize(
    ("device", "decodes", "cores", "expected"),
    [
        (CPU, False, 16, 0),
        (CPU, True, 16, 1),
        (CPU, True, 1, 0),
        (ACCELERATOR, True, 4, 3),
        (ACCELERATOR, True, 64, 8),
        (ACCELERATOR, True, 1, 0),
        (ACCELERATOR, False, 64, 1),
    ],
)
def test_auto_goes_by_cores_and_device(
    monkeypatch: pytest.MonkeyPatch,
    device: torch.device,
    decodes: bool,
    cores: int,
    expected: int,
) -> None:
    monkeypatch.setattr(workers, "available_cores", lambda: cores)
    assert worker_count("auto", device, decodes=decodes) == expected


def test_processes_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert available_cores() == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert available_cores() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert available_cores() == 1


def test_nothing_is_pinned_for_a_device_that_is_not_the_accelerator_here() -> None:
    assert not pins_memory(CPU)
    if torch.accelerator.current_accelerator() is None:
        assert not pins_memory(ACCELERATOR)
