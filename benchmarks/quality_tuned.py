"""The fine-tuned head of `quality.py`: the early blocks of a backbone and a score head, end to end.

A recipe as a user would write it: random parts of 128 pixels at native resolution, mirrored by
chance; the layers above the early maps are neither run nor trained. The judge looks at five parts
of every picture. The best of the evaluations during training is kept, as measured on photographs
of the third origin that nothing else is done with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from beholder.evaluation.predictions import read_predictions
from beholder.pipeline.recipe import Recipe, parse_recipe
from beholder.pipeline.runner import fit_recipe
from quality_pictures import Pictures

BATCH = 32
PART = 128
EVALUATIONS = 3  # during a training
TASK = {
    "kind": "score",
    "train_backbone": True,
    "head": {"hidden": [128], "input_dropout": 0.1, "dropout": 0.2},
}
TRAINING = {
    "batch_size": BATCH,
    "lr": 1e-3,
    "backbone_lr_factor": 0.3,
    "optimizer": {"name": "adamw", "weight_decay": 0.02},
    "schedule": {"name": "cosine", "warmup_steps": 20},
    "clip_norm": 5.0,
    "ema_decay": 0.99,
    "save_every_minutes": None,
}


def recipe(table: Path, root: Path, variant: str, epochs: int, steps: int) -> Recipe:
    """Trains on the table's pictures below `root`, and judges those of its test split."""
    augment = {"flip": 0.5, "crop": "native", "crop_size": (PART, PART)}
    often = {"epochs": epochs, "max_steps": steps, "evaluate_every": -(-epochs // EVALUATIONS)}
    training = {**TRAINING, **often}
    raw: dict[str, Any] = {
        "name": "quality",
        "seed": 0,
        "data": {"annotations": str(table), "images": str(root), "score_name": "pseudo-MOS"},
        "backbone": {"name": variant, "size": PART, "resize": "native", "pooling": "early"},
        "stages": {
            "score": {"kind": "train", "augment": augment, "task": TASK, "training": training},
            "judge": {
                "kind": "assemble",
                "heads": ["score"],
                "test_time_augmentation": {"crops": 2},
            },
            "evaluation": {"kind": "evaluate", "judge": "judge", "resamples": 100, "explain": 0},
        },
    }
    return parse_recipe(raw)


def table_of(splits: Mapping[str, Sequence[Pictures]], root: Path) -> pl.DataFrame:
    """One table of all pictures, with keys that start at `root`."""
    parts = [
        pl.DataFrame(
            {
                "image": [keyed(pictures, key, root) for key in pictures.keys],
                "score": pictures.scores,
                "split": [split] * len(pictures),
            }
        )
        for split, sets in splits.items()
        for pictures in sets
    ]
    return pl.concat(parts)


def keyed(pictures: Pictures, key: str, root: Path) -> str:
    return (pictures.root.relative_to(root) / key).as_posix()


def fine_tuned(
    cache: Path,
    name: str,
    variant: str,
    splits: Mapping[str, Sequence[Pictures]],
    steps: int,
) -> list[NDArray[np.float64]]:
    """What a judge that has learnt from `train` and was chosen on `val` says of those in `test`.

    The run is kept in the cache by `name`: one that was stopped goes on, and what has not changed
    is not done again.
    """
    epochs = math.ceil(steps * BATCH / sum(map(len, splits["train"])))
    annotations, run = cache / "runs" / f"{name}.csv", cache / "runs" / name
    annotations.parent.mkdir(exist_ok=True)
    table_of(splits, cache).write_csv(annotations)
    fit_recipe(recipe(annotations, cache, variant, epochs, steps), run)
    predictions = read_predictions(run / "evaluation" / "predictions.parquet")
    scores = dict(predictions.select("image", "score").iter_rows())
    return [
        np.array([scores[keyed(pictures, key, cache)] for key in pictures.keys])
        for pictures in splits["test"]
    ]
