"""Trains in forked processes and kills them; run by test_resume.py, not a test itself.

A fork of a process that has torch imported starts at once, so that a dozen real kills take seconds.

    python kill_server.py FOLDER WORKERS KILLS SIGNAL
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from tiny_training import TinySource, TinyTask, config

from beholder.training import train

EPOCHS = 10


def work(folder: Path, workers: int) -> None:
    """One attempt, in a process of its own; leaves by `os._exit`."""
    task = TinyTask(dropout=0.2, norm=True)
    settings = config(
        epochs=EPOCHS,
        batch_size=4,
        accumulate=2,
        ema_decay=0.9,
        clip_norm=1.0,
        optimizer={"name": "radam", "weight_decay": 0.01},
        workers=workers,
        log_every=3,
        save_every_steps=3,
        evaluate_every=2,
    )
    train_data = TinySource(46, noise=0.5, missing=9, seconds=0.002)
    train(task, train_data, TinySource(12), settings, folder, "cpu", "tiny")
    torch.save(task.state_dict(), folder / "final.pt")


def attempt(folder: Path, workers: int) -> int:
    """Start an attempt; its process id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setsid()  # so that its loading processes can be found and ended with it
        sys.stderr = open(folder.with_suffix(".err"), "a")  # noqa: PTH123, SIM115
        work(folder, workers)
        code = 0
    except SystemExit as stop:
        code = int(str(stop.code))
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait_for(log: Path) -> None:
    """Until the attempt has written its first line, its signal handler being there."""
    before = log.read_text() if log.exists() else ""
    while not log.exists() or log.read_text() == before:
        time.sleep(0.005)


def wait_for_checkpoint(home: Path) -> None:
    """Until a checkpoint is there that was not there before."""

    def saved() -> set[str]:
        checkpoints = home / "stages" / "tiny" / "checkpoints"
        paths = list(checkpoints.iterdir()) if checkpoints.is_dir() else []
        return {path.name for path in paths if path.name.startswith("step-")}

    before = saved()
    while not saved() - before:
        time.sleep(0.005)


def main() -> None:
    folder, workers, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    number = signal.Signals[sys.argv[4]]
    torch.set_num_threads(1)
    # what training imports on its way, the forks need not
    train(TinyTask(), TinySource(8), None, config(max_steps=1), folder / "warm", "cpu")
    began = time.monotonic()
    _, status = os.waitpid(attempt(folder / "whole", workers), 0)
    seconds = time.monotonic() - began
    assert status == 0, (folder / "whole.err").read_text()

    chance = random.Random(workers)
    outcomes = []
    while len(outcomes) < kills:
        process = attempt(folder / "killed", workers)
        # every other kill may come while the process starts, and every other one comes after
        # something was saved, however slow the start; a SIGTERM needs its handler there
        window = 0.15
        if number == signal.SIGTERM:
            wait_for(folder / "killed" / "log.txt")
        elif len(outcomes) % 2:
            wait_for_checkpoint(folder / "killed")
            window = 0.03
        time.sleep(chance.uniform(0.0, window) * seconds)
        os.kill(process, number)
        _, status = os.waitpid(process, 0)
        outcomes.append(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
    _, status = os.waitpid(attempt(folder / "killed", workers), 0)
    print(json.dumps({"outcomes": outcomes, "last": status, "seconds": seconds}))


if __name__ == "__main__":
    main()
