"""Extracts features, evaluates a task and a judge, alone or with others; not a test itself.

torchrun --nproc_per_node=2 two_sharers.py PICTURES FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from sixteen import ListSource
from small_judge import make_model, small_backbone
from together import make_batch, make_joint

from beholder.data.annotations import AnnotationTable
from beholder.data.sharing import joined_parts
from beholder.evaluation.evaluate import evaluate_judge
from beholder.features.extract import extract
from beholder.judge import Judge
from beholder.training import TrainConfig
from beholder.training.distributed import start
from beholder.training.loader import Loader


def share(pictures: Path, folder: Path) -> None:
    """Leaves store/ and, per rank, what was told."""
    processes = start("cpu")
    table = AnnotationTable.from_parquet(pictures / "table.parquet")
    summary = extract(
        small_backbone(), table, pictures, folder / "store",
        batch_size=2, workers=0, device="cpu", dtype="float32", processes=processes,
    )  # fmt: skip

    task = make_joint(weights={"words": 0.5})
    task.prepare([make_batch()])
    task.eval()
    task.gather_observations = lambda observations: joined_parts(observations, processes)
    loader = Loader(ListSource(make_batch()), TrainConfig(batch_size=3), processes)
    metrics = task.evaluate(loader.in_order(processes))

    judge = Judge.of_model(make_model(), torch.device("cpu"), beam_size=2)
    judged = evaluate_judge(judge, table, pictures, batch_size=2, resamples=20, processes=processes)
    judged.metrics.pop("image_root")
    results = {
        "summary": [summary.written, summary.reused, summary.quarantined],
        "task": metrics,
        "judge": judged.metrics,
        "order": judged.predictions["image"].to_list(),
        "scores": judged.predictions["score"].to_list(),
    }
    (folder / f"{processes.rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    torch.set_num_threads(1)
    shared_folder = Path(sys.argv[2])
    shared_folder.mkdir(exist_ok=True)
    share(Path(sys.argv[1]), shared_folder)
    assert int(os.environ.get("WORLD_SIZE", "1")) == len(start("cpu").all_gather(0))
