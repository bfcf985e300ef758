"""A joint training; alone from test_joint.py, or twice by torchrun, not a test itself.

torchrun --nproc_per_node=2 two_joint.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from sixteen import ListSource
from together import make_batch, make_joint

from beholder.training import TrainConfig, train


def learn(folder: Path, **options: object) -> dict[str, torch.Tensor]:
    """Weights after two epochs on sixteen pictures that lack much."""
    task = make_joint(weights={"words": 0.5})
    values = {
        "epochs": 2, "batch_size": 4, "accumulate": 2, "lr": 0.05, "log_every": 1,
        "optimizer": {"name": "sgd"}, "schedule": {"name": "constant"}, "keep": 9, **options,
    }  # fmt: skip
    source = ListSource(make_batch())
    train(task, source, source, TrainConfig.model_validate(values), folder, "cpu")
    return task.state_dict()


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_folder = Path(sys.argv[1])
    torch.save(learn(run_folder / "run"), run_folder / f"{os.environ['RANK']}.pt")
