"""What helps rare classes: weights, sampling, logit adjustment, each alone, on thinned digits.

scikit-learn's digits, 64 pixels as frozen features; of class k in an order drawn per seed the first
120 f^(-k / 9) pictures are trained on, f the imbalance; 50 further pictures of every class are held
out. The attribute head (one hidden layer of 64) is trained by the real loop. Shown are the mean
class accuracy and that of the three rarest classes: means over seeds with the lowest and the
highest.

    python benchmarks/imbalance.py [--seeds 3] [--imbalance 100] [--epochs 60]
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from beholder.data.annotations import AnnotationTable
from beholder.features.config import BackboneConfig
from beholder.features.store import FeatureStore, FeatureWriter, StoreCard
from beholder.judge.model import JudgeModel
from beholder.models.config import HeadConfig
from beholder.tasks.attributes import AttributesTask
from beholder.tasks.build import judge_config
from beholder.tasks.config import AttributesTaskConfig
from beholder.training import TrainConfig, train
from beholder.training.sources import FeatureSource

CLASSES, MOST, HELD_OUT = 10, 120, 50
NONE = {"class_weight_power": 0.0}
FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "none": (NONE, "shuffled"),
    "inverse root (power 0.5)": ({"class_weight_power": 0.5}, "shuffled"),
    "inverse (power 1)": ({"class_weight_power": 1.0}, "shuffled"),
    "effective, beta 0.9": ({"class_weights": "effective", "effective_beta": 0.9}, "shuffled"),
    "effective, beta 0.99": ({"class_weights": "effective", "effective_beta": 0.99}, "shuffled"),
    "effective, beta 0.999": ({"class_weights": "effective", "effective_beta": 0.999}, "shuffled"),
    "balanced sampling": (NONE, "balanced"),
    "logit adjustment, tau 1": ({**NONE, "logit_adjustment": 1.0}, "shuffled"),
    "logit adjustment, tau 1.5": ({**NONE, "logit_adjustment": 1.5}, "shuffled"),
}


def thinned(seed: int, imbalance: float) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Rows of the digits to train on and to hold out, and the classes, most frequent first."""
    generator = np.random.default_rng(seed)
    order = [int(label) for label in generator.permutation(CLASSES)]
    labels = load_digits().target
    kept, held_out = [], []
    for position, label in enumerate(order):
        rows = generator.permutation(np.flatnonzero(labels == label))
        held_out.append(rows[:HELD_OUT])
        count = round(MOST * imbalance ** (-position / (CLASSES - 1)))
        kept.append(rows[HELD_OUT : HELD_OUT + count])
    return np.concatenate(kept), np.concatenate(held_out), order


def table_of(rows: np.ndarray) -> AnnotationTable:
    labels = load_digits().target[rows]
    return AnnotationTable.from_columns(
        [str(row) for row in rows],
        attributes={"digit": [str(label) for label in labels]},
        classes={"digit": [str(label) for label in range(CLASSES)]},
    )


def write_store(folder: Path) -> FeatureStore:
    """All digits as pooled features."""
    pixels = load_digits().data.astype(np.float32)
    writer = FeatureWriter(folder, StoreCard("digits", "digits", "float32", None, pixels.shape[1]))
    for row, values in enumerate(pixels):
        writer.add(str(row), "", None, values)
    writer.close(map(str, range(len(pixels))))
    return FeatureStore.open(folder)


def accuracies(
    store: FeatureStore, run_folder: Path, form: str, seed: int, imbalance: float, epochs: int
) -> tuple[float, float]:
    """Mean accuracy of all classes, and of the three rarest."""
    options, sampling = FORMS[form]
    kept, held_out, order = thinned(seed, imbalance)
    table = table_of(kept)
    learnt = FeatureSource(store, table, tokens=False)
    unseen = FeatureSource(store, table_of(held_out), tokens=False)
    settings = AttributesTaskConfig(head=HeadConfig(hidden=(64,)), label_smoothing=0.0, **options)
    torch.manual_seed(seed)
    config = judge_config(
        settings,
        table,
        backbone=BackboneConfig(name="efficientnet-lite0"),
        pooled_dim=64,
        token_dim=64,
    )
    task = AttributesTask(JudgeModel.from_config(config, with_backbone=False), settings)
    training = TrainConfig(epochs=epochs, sampling=sampling, lr=3e-3, seed=seed)  # type: ignore[arg-type]
    train(task, learnt, None, training, run_folder / f"{form} {seed}", "cpu")
    batch = unseen.load(range(len(unseen)), 0)
    with torch.no_grad():
        guessed = task.attribute_heads(batch["pooled"])["digit"].argmax(-1).numpy()
    labels = batch["attributes"]["digit"].numpy()
    right = [float((guessed[labels == label] == label).mean()) for label in order]
    return float(np.mean(right)), float(np.mean(right[-3:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--imbalance", type=float, default=100.0)
    parser.add_argument("--epochs", type=int, default=60)
    arguments = parser.parse_args()
    logging.getLogger("beholder").setLevel(logging.ERROR)
    counts = len(thinned(0, arguments.imbalance)[0])
    print(f"{counts} pictures, imbalance {arguments.imbalance:g}, {arguments.seeds} seeds")
    with tempfile.TemporaryDirectory() as folder:
        run_folder = Path(folder)
        store = write_store(run_folder / "store")
        for form in FORMS:
            per_seed = np.array(
                [
                    accuracies(store, run_folder, form, seed, arguments.imbalance, arguments.epochs)
                    for seed in range(arguments.seeds)
                ]
            )
            every, rare = (
                f"{column.mean():.3f} ({column.min():.3f} to {column.max():.3f})"
                for column in per_seed.T
            )
            print(f"{form:<26} all {every}   rarest three {rare}", flush=True)


if __name__ == "__main__":
    main()
