"""One judge with three opinions against three judges with one each, on photographs never seen.

    OMP_NUM_THREADS=1 python benchmarks/joint.py [--seeds 1] [--epochs 2] [--forms frozen whole]
                                                 [--into FOLDER]

The embedded sample and EfficientNet-Lite0, as in `recipes/demo.yaml`. `frozen`: heads on features
that stay as they are. `whole`: from those heads on, the trunk is trained too. A separate judge is
trained as the joint one: the same pictures, epochs, batches, optimiser, rates and head; it has a
trunk of its own, which only its own opinion trains. Weights are those after the last epoch, as no
split chooses them. Figures are of the held-out photographs.
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

from beholder.errors import BeholderError
from beholder.pipeline.recipe import Recipe, parse_recipe
from beholder.pipeline.runner import fit_recipe
from measure import conditions, show

FORMS = ("frozen", "whole")
HEAD = {"hidden": [128], "input_dropout": 0.2, "dropout": 0.3}
BODY = {
    "d_model": 128, "enc_layers": 2, "dec_layers": 2, "ff": 256, "heads": 4,
    "enc_expansions": [8, 16, 32], "dec_expansions": 8, "dropout_encoder_input": 0.2,
}  # fmt: skip
TASKS: dict[str, dict[str, Any]] = {
    "score": {"kind": "score", "head": HEAD},
    "attributes": {
        "kind": "attributes", "head": HEAD, "inputs": {"brightness": 112, "colourfulness": 112},
    },
    "comments": {
        "kind": "caption", "reads": "pooled", "label_smoothing": 0.0, "head": BODY,
        "beam_sizes": [1],
    },
}  # fmt: skip
JOINT: dict[str, Any] = {"kind": "joint", "tasks": TASKS}
HEAD_EPOCHS = 12
TRAINING = {
    "optimizer": {"name": "adamw", "weight_decay": 0.01},
    "schedule": {"name": "cosine", "warmup_steps": 20},
    "save_every_minutes": None,
}
FROZEN = {"batch_size": 32, "lr": 1.5e-3}
WHOLE = {"batch_size": 16, "lr": 3e-4, "backbone_lr_factor": 0.3}
# the statistics of small batches of eight photographs' crops would cost more than tuning gains
TUNED = {"train_backbone": True, "freeze_bn_stats": True}
# a part of the picture, not resampled: quality stays what it is, and a step costs less
AUGMENT = {"flip": 0.5, "crop": "native", "crop_size": [128, 128]}
BARS = {"srcc": 0.02, "top1": 0.02, "cider": 0.05}  # the last as a part of the separate judges'
Scores = dict[str, float]


def recipe(forms: Sequence[str], seed: int, epochs: int, heads: Sequence[str]) -> Recipe:
    """Trains all judges, and evaluates the one with these `heads`."""
    frozen = {**TRAINING, "epochs": HEAD_EPOCHS, "evaluate_every": HEAD_EPOCHS, **FROZEN}
    whole = {**TRAINING, "epochs": epochs, "evaluate_every": epochs, **WHOLE}
    trained: dict[str, dict[str, Any]] = {}
    for name, task in {"joint": JOINT, **TASKS}.items():
        trained[f"{name}-frozen"] = {
            "kind": "train", "features": "features", "task": task, "training": frozen,
        }  # fmt: skip
        if "whole" in forms:
            trained[f"{name}-whole"] = {
                "kind": "train", "warm_start": f"{name}-frozen",
                "task": {**task, **TUNED}, "augment": AUGMENT, "training": whole,
            }  # fmt: skip
    raw = {
        "name": "joint",
        "seed": seed,
        "data": {"annotations": "sample"},
        "backbone": {
            "name": "efficientnet-lite0", "size": 256, "resize": "native", "pooling": "early",
        },
        "stages": {
            "features": {"kind": "extract", "tokens": False, "batch_size": 16, "workers": 0},
            **trained,
            "judge": {"kind": "assemble", "heads": list(heads), "beam_size": 1},
            "evaluation": {"kind": "evaluate", "judge": "judge", "resamples": 100, "explain": 0},
        },
    }  # fmt: skip
    return parse_recipe(raw)


def learn(forms: Sequence[str], seed: int, epochs: int, into: Path | None) -> dict[str, Scores]:
    """Scores of the held-out photographs: `joint`, `separate` of each form."""
    metrics: dict[str, Scores] = {}
    with tempfile.TemporaryDirectory() as scratch:
        run = (into or Path(scratch)) / f"seed-{seed}"
        for form in forms:
            separate = [(f"{name}-{form}",) for name in TASKS]
            if form == "frozen":  # heads on one trunk, whose features they don't change
                separate = [tuple(head for (head,) in separate)]
            for whose, judges in (("joint", [(f"joint-{form}",)]), ("separate", separate)):
                scores: Scores = {}
                clock = time.perf_counter()
                for heads in judges:
                    fit_recipe(recipe(forms, seed, epochs, heads), run)
                    scores |= read_scores(json.loads((run / "evaluation/metrics.json").read_text()))
                metrics[f"{form}: {whose}"] = scores
                print(f"  seed {seed}, {time.perf_counter() - clock:4.0f} s: ", end="")
                show(f"{form}: {whose}", [scores])
    return metrics


def read_scores(metrics: Mapping[str, Any]) -> Scores:
    """The opinions that an evaluation has compared, one figure each."""
    values = {}
    if "score" in metrics:
        values["srcc"] = metrics["score"]["srcc"]["value"]
    if metrics.get("mean_top1") is not None:
        values["top1"] = metrics["mean_top1"]
    if "comments" in metrics:
        values["cider"] = metrics["comments"]["CIDEr-D"]
    return values


def losses(joint: Scores, separate: Scores) -> Scores:
    """What the joint judge has less; of CIDEr-D as a part of what the separate judges have."""
    lost = {name: separate[name] - joint[name] for name in BARS}
    return {**lost, "cider": lost["cider"] / separate["cider"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1, help="how often everything is trained")
    parser.add_argument("--epochs", type=int, default=2, help="of the trunk")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--into", type=Path, help="keep the runs here, and go on with them")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)  # a run tells much, and these runs are thrown away
    print(f"{arguments.epochs} epochs of the trunk; {conditions()}")
    learnt = [
        learn(arguments.forms, seed, arguments.epochs, arguments.into)
        for seed in range(arguments.seeds)
    ]
    print(f"mean over {arguments.seeds} seeds:")
    for form in arguments.forms:
        pairs = [(run[f"{form}: joint"], run[f"{form}: separate"]) for run in learnt]
        show(f"{form}: joint", [joint for joint, _ in pairs])
        show(f"{form}: separate", [separate for _, separate in pairs])
        show(f"{form}: lost by joining", [losses(*pair) for pair in pairs])
    show("bars", [BARS])


if __name__ == "__main__":
    try:
        main()
    except BeholderError as error:
        raise SystemExit(str(error)) from None
