"""Killed and resumed as often as one likes, a training ends as if it had never stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kill_server import EPOCHS
from safetensors.torch import load_file

HERE = Path(__file__).parent


def run_server(folder: Path, workers: int, kills: int, signal: str) -> dict:
    done = subprocess.run(
        [
            sys.executable,
            str(HERE / "kill_server.py"),
            str(folder),
            str(workers),
            str(kills),
            signal,
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_same_end(folder: Path, *, stopped: bool = False) -> None:
    """Final weights, every checkpoint's every tensor and the metrics are the same, bit for bit."""
    final = [torch.load(folder / name / "final.pt") for name in ("whole", "killed")]
    assert final[0].keys() == final[1].keys()
    for name in final[0]:
        assert torch.equal(final[0][name], final[1][name]), name

    homes = [folder / name / "stages/tiny/checkpoints" for name in ("whole", "killed")]
    names = [{path.name for path in home.iterdir()} for home in homes]
    # a SIGTERM's own checkpoints may still be among those kept
    assert names[0] == names[1] or stopped
    assert f"step-{EPOCHS * 6:08d}" in names[0] & names[1]
    for name in names[0] & names[1]:
        files = sorted(path.name for path in (homes[0] / name).glob("*.safetensors"))
        assert files == [
            f"{part}.safetensors" for part in ("ema", "interval", "optimizer", "random", "weights")
        ]
        for file in files:
            resumed, unbroken = (load_file(home / name / file) for home in homes)
            assert resumed.keys() == unbroken.keys()
            for key in resumed:
                assert torch.equal(resumed[key], unbroken[key]), (name, file, key)
        states = [json.loads((home / name / "state.json").read_text()) for home in homes]
        assert states[0] == states[1]

    lines = []
    for name in ("whole", "killed"):
        text = (folder / name / "metrics.jsonl").read_text()
        lines.append([json.loads(line) for line in text.splitlines()])
        for line in lines[-1]:
            assert line.pop("time") > 0
            assert (line["split"] == "train") == ("throughput" in line)
            line.pop("throughput", None)  # of the clock
    assert lines[0] == lines[1]
    steps, evaluations = EPOCHS * 6, EPOCHS // 2
    assert len(lines[0]) == steps // 3 + evaluations


@pytest.mark.alone
@pytest.mark.parametrize("workers", [0, 2])
def test_ten_kills_at_random_instants_change_nothing(workers, tmp_path):
    report = run_server(tmp_path, workers, 10, "SIGKILL")
    assert report["outcomes"] == [-9] * 10
    assert report["last"] == 0
    assert_same_end(tmp_path)
    # more than one attempt got somewhere: the kills did not all come before the first checkpoint
    log = (tmp_path / "killed" / "log.txt").read_text()
    assert log.count("resuming from") >= 3


@pytest.mark.parametrize(
    "method", ["fork", "spawn", pytest.param("forkserver", marks=pytest.mark.slow)]
)
def test_loading_processes_do_not_outlive_a_killed_training(method, tmp_path):
    """Their inherited output stays open as long as one of them lives: reading it to its end is
    the proof."""
    code = f"""
import multiprocessing, os, signal, threading, time
multiprocessing.set_start_method("{method}")
from tiny_training import TinySource, TinyTask, config
from beholder.training import train
def die():
    while not os.path.exists("run/log.txt") or "step 100/" not in open("run/log.txt").read():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=die).start()
source = TinySource(50, seconds=0.001)
train(TinyTask(), source, None, config(epochs=10**6, workers=2), "run", "cpu")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        timeout=600,
    )
    assert done.returncode == -9


def test_sigterm_saves_leaves_with_143_and_goes_on(tmp_path):
    report = run_server(tmp_path, 2, 3, "SIGTERM")
    log = (tmp_path / "killed" / "log.txt").read_text()
    assert report["outcomes"] == [143] * 3
    assert log.count("stopped by SIGTERM") == 3
    assert report["last"] == 0
    assert_same_end(tmp_path, stopped=True)
