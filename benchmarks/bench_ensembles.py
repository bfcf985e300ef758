"""Three checkpoints that write together, and three whose weights are averaged, on the sample.

    python benchmarks/bench_ensembles.py [FOLDER]

Trains a small captioner on the embedded sample (cross-entropy, then self-critical), then exports
its best checkpoint, an ensemble of its newest three and a soup of the same three, and prints
CIDEr-D on held-out photographs and the time of a picture, as ratios to the one checkpoint. FOLDER
keeps the run, to go on with; some minutes on two cores.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beholder import Judge
from beholder.pipeline.recipe import parse_recipe
from beholder.pipeline.runner import fit_recipe

HEAD = {
    "d_model": 128, "enc_layers": 2, "dec_layers": 2, "ff": 256, "heads": 4,
    "enc_expansions": [8, 16, 32], "dec_expansions": 8, "dropout_decoder": 0.0,
}  # fmt: skip
WAYS: dict[str, dict[str, int]] = {
    "best checkpoint": {}, "ensemble of 3": {"ensemble": 3}, "soup of 3": {"soup": 3},
}  # fmt: skip
ROUNDS, PICTURES = 7, 64


def recipe(**export: int) -> dict[str, Any]:
    radam = {"name": "radam", "betas": [0.9, 0.98], "eps": 1e-9}
    training = {"batch_size": 32, "optimizer": radam, "keep": 10}
    task = {"head": HEAD, "beam_sizes": [3]}
    return {
        "name": "ensembles",
        "seed": 7,
        "data": {"annotations": "sample"},
        "backbone": {"name": "efficientnet-lite0", "size": 224, "resize": "native"},
        "stages": {
            "features": {"kind": "extract", "batch_size": 32},
            "words": {
                "kind": "train", "features": "features", "task": {"kind": "caption", **task},
                "training": {**training, "epochs": 6, "lr": 1e-3},
            },
            "reward": {
                "kind": "train", "features": "features", "warm_start": "words",
                "task": {"kind": "self_critical", **task},
                "training": {**training, "epochs": 3, "lr": 2e-4, "save_every_steps": 25},
            },
            "judge": {"kind": "assemble", "heads": ["reward"], **export},
            "evaluation": {"kind": "evaluate", "judge": "judge"},
        },
    }  # fmt: skip


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    judges: dict[str, Judge] = {}
    quality: dict[str, float] = {}
    for name, export in WAYS.items():
        fit_recipe(parse_recipe(recipe(**export)), folder)
        judges[name] = Judge.load(folder / "judge", "cpu")
        metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
        quality[name] = metrics["comments"]["CIDEr-D"]
    paths = sorted((folder / "sample").rglob("*.webp"))[:PICTURES]
    first = judges["best checkpoint"]
    pixels = np.stack([first.prepare(path) for path in paths])
    seconds: dict[str, list[float]] = {name: [] for name in judges}
    for _ in range(ROUNDS):
        for name, judge in judges.items():
            clock = time.perf_counter()
            judge.verdicts([str(path) for path in paths], pixels)
            seconds[name].append(time.perf_counter() - clock)
    base = statistics.median(seconds["best checkpoint"])
    print(f"\n{torch.get_num_threads()} threads, {len(paths)} pictures, median of {ROUNDS} rounds")
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(
            f"{name:<16} CIDEr-D {quality[name]:.4f}   {1e3 * middle / len(paths):6.2f} ms a "
            f"picture, {middle / base:.2f} times one checkpoint"
        )


if __name__ == "__main__":
    main()
