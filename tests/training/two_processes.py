"""Trains every scenario; started twice by torchrun from test_distributed.py, not a test itself.

torchrun --nproc_per_node=2 two_processes.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from synced_norm import convert
from tiny_training import (
    NORMED,
    SCENARIOS,
    TinySource,
    TinyTask,
    config,
    normed,
    scenario,
    weights,
)

from beholder.errors import TrainingError
from beholder.training import batch_norms, train


def main() -> None:
    folder = Path(sys.argv[1])
    first = os.environ["RANK"] == "0"
    torch.set_num_threads(1)
    for name in SCENARIOS:
        task, source, settings = scenario(name)
        if not first:  # the first process's weights count
            torch.nn.init.zeros_(task.head.weight)
        train(task, source, TinySource(9), settings, folder / name, "cpu")
        torch.save(weights(task), folder / f"{name}.{os.environ['RANK']}.pt")

    # stopped in the middle of an epoch and resumed, dropout and all
    for home, most in (("whole", None), ("resumed", 4), ("resumed", None)):
        task = TinyTask(dropout=0.3, norm=True)
        settings = config(accumulate=2, max_steps=most, schedule={"name": "constant"})
        train(task, TinySource(52, noise=0.2), None, settings, folder / home, "cpu")
        torch.save(weights(task), folder / f"{home}.{os.environ['RANK']}.pt")

    source = TinySource(16)
    source.y[15] = float("inf")
    task = TinyTask()
    task.weight = lambda batch: float(len(batch["score"]))  # type: ignore[method-assign]
    task.loss = lambda p, y: (p - y).square().mean()  # type: ignore[method-assign]
    try:
        train(task, source, None, config(), folder / "broken", "cpu")
    except TrainingError as error:
        (folder / f"error.{os.environ['RANK']}").write_text(str(error))

    synchronised(folder)


def synchronised(folder: Path) -> None:
    """Trainings whose batch norms see all processes, by a norm that works on the CPU."""
    batch_norms.SYNCHRONISED_DEVICES = ("cpu",)
    batch_norms.convert_sync_batchnorm = convert
    for name in NORMED:
        task, source, settings = normed(name)
        train(task, source, TinySource(9), settings, folder / name, "cpu")
        torch.save(weights(task), folder / f"{name}.{os.environ['RANK']}.pt")
        assert type(task.norm) is torch.nn.BatchNorm1d
    # most pictures have no score, so that in most passes a process has nothing to learn from
    task, source, settings = normed("normed")
    source.y[torch.arange(50) % 9 > 0] = float("nan")
    train(task, source, None, settings, folder / "sparse", "cpu")
    torch.save(weights(task), folder / f"sparse.{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main()
