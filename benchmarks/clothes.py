"""A small model of clothes with and without a teacher, on drawing styles that it has never seen.

    OMP_NUM_THREADS=1 python benchmarks/clothes.py [--seeds 3] [--split train]

Emoji and avatars labelled with up to four attributes (`clothes_pictures.py`). EfficientNet-Lite2,
fine-tuned, teaches EfficientNet-Lite0, which is trained without it too: the same pictures, epochs,
rates, augmentation and first weights. Everything is a recipe below and runs as a user's would;
weights are those after the last epoch, as no split chooses them. The figures are those of the
styles that are held out: mean top-1 over the attributes, and mean average class-specific accuracy.
Each seed holds out other styles, three seeds every style once: what a model makes of a style that
it has not seen depends on the style more than on its first weights.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from beholder.data.annotations import AnnotationTable
from beholder.errors import BeholderError
from beholder.pipeline.recipe import Recipe, parse_recipe
from beholder.pipeline.runner import fit_recipe
from clothes_pictures import as_table, clothes_pictures
from emoji_pictures import default_cache
from measure import show

HELD_OUT = (
    ("fluent-3d", "lorelei", "miniavs", "personas", "toon-head"),
    ("noto", "adventurer", "big-smile", "micah", "pixel-art"),
    ("twemoji", "avataaars", "notionists", "open-peeps"),
)
"""Styles, by seed modulo three."""
BACKBONES = {
    lite: {"name": f"efficientnet-{lite}", "size": 96, "resize": "squash"}
    for lite in ("lite0", "lite2")
}
MODELS = ("teacher", "student alone", "student taught")
METRICS = ("mean_top1", "mean_acsa")
TRAINING = {
    "epochs": 5,
    "batch_size": 32,
    "optimizer": {"name": "adamw", "weight_decay": 0.01},
    "lr": 1e-3,
    "schedule": {"name": "cosine", "warmup_steps": 15},
    "save_every_minutes": None,
}
TASK = {
    "kind": "attributes",
    "train_backbone": True,
    "label_smoothing": 0.1,
    "class_weight_power": 0.5,
}
SHARED = {
    "kind": "train",
    "augment": {"flip": 0.5, "crop": "resized", "crop_size": (128, 128), "crop_area": (0.6, 1.0)},
    "training": TRAINING,
}
# a teacher that is not better than its student teaches nothing: it has more time
LONGER = {**TRAINING, "epochs": 8, "lr": 5e-4}
TEACHING = {**TASK, "label_smoothing": 0.0}  # smoothed labels hide how alike classes are
DISTILLED = {**TASK, "kind": "distillation", "form": "batchmean", "tau": 2.0, "alpha": 0.5,
             "labelled_only": True}  # fmt: skip
STAGES: dict[str, dict[str, Any]] = {
    "teacher": {**SHARED, "backbone": "lite2", "task": TEACHING, "training": LONGER},
    "student alone": {**SHARED, "backbone": "lite0", "task": TASK},
    "student taught": {
        **SHARED, "backbone": "lite0", "task": DISTILLED, "teacher": {"stages": ["teacher"]},
    },
}  # fmt: skip
Scores = dict[str, float]


def recipe(table: Path, root: Path, model: str, seed: int, split: str) -> Recipe:
    """Trains one of `MODELS`, its teacher before it, and evaluates it."""
    name = model.replace(" ", "-")
    stages = {name: STAGES[model]}
    if "teacher" in STAGES[model]:
        stages = {"teacher": STAGES["teacher"], **stages}
    raw = {
        "name": "clothes",
        "seed": seed,
        "data": {"annotations": str(table), "images": str(root)},
        "backbones": BACKBONES,
        "stages": {
            **stages,
            "judge": {"kind": "assemble", "heads": [name]},
            "evaluation": {
                "kind": "evaluate",
                "judge": "judge",
                "split": split,
                "resamples": 100,
                "explain": 0,
            },
        },
    }
    return parse_recipe(raw)


def learn(table: AnnotationTable, root: Path, seed: int, split: str = "test") -> dict[str, Scores]:
    """Scores of a split, model by model. They share a run, hence the teacher."""
    metrics = {}
    with tempfile.TemporaryDirectory() as scratch:
        annotations = Path(scratch) / "clothes.parquet"
        table.to_parquet(annotations)
        run = Path(scratch) / "run"
        for model in MODELS:
            clock = time.perf_counter()
            fit_recipe(recipe(annotations, root, model, seed, split), run)
            scores = read_scores(json.loads((run / "evaluation" / "metrics.json").read_text()))
            metrics[model] = scores
            print(f"  seed {seed}, {time.perf_counter() - clock:3.0f} s: ", end="")
            show(model, [scores])
    return metrics


def read_scores(metrics: Mapping[str, Any]) -> Scores:
    """The means, and top-1 of each labelled attribute, of an evaluation's metrics."""
    by_attribute = {
        f"top1.{name}": attribute_metrics["top1"]
        for name, attribute_metrics in metrics["attributes"].items()
    }
    means = {name: metrics[name] for name in METRICS}
    return means | {name: value for name, value in by_attribute.items() if value is not None}


def differences(better: Sequence[Scores], worse: Sequence[Scores]) -> list[Scores]:
    """Seed by seed, what the first have more."""
    return [
        {metric: better_run[metric] - worse_run[metric] for metric in better_run}
        for better_run, worse_run in zip(better, worse, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=default_cache(), help="for what is fetched")
    parser.add_argument("--seeds", type=int, default=3, help="how often everything is trained")
    parser.add_argument(
        "--split", choices=("train", "test"), default="test", help="train: what was learnt"
    )
    arguments = parser.parse_args()
    logging.disable(logging.INFO)  # a run tells much, and these runs are thrown away
    root, pictures = clothes_pictures(arguments.cache)
    print(f"{len(pictures)} pictures, {torch.get_num_threads()} threads")
    learnt = []
    for seed in range(arguments.seeds):
        held_out = HELD_OUT[seed % len(HELD_OUT)]
        table = as_table(pictures, held_out)
        sizes = ", ".join(f"{len(table.subset(split))} {split}" for split in ("train", "test"))
        print(f"seed {seed}: {sizes}, held out {' '.join(held_out)}", flush=True)
        learnt.append(learn(table, root, seed, arguments.split))
    print(f"mean over {arguments.seeds} seeds:")
    for model in MODELS:
        show(model, [run[model] for run in learnt])
    alone, taught = ([run[model] for run in learnt] for model in MODELS[1:])
    show("gain by teacher", differences(taught, alone))


if __name__ == "__main__":
    try:
        main()
    except BeholderError as error:
        raise SystemExit(str(error)) from None
