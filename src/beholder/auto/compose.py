"""The recipe that a table's opinions are learnt with: complete, and readable by people."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from beholder.auto.search import Standing
from beholder.auto.teachable import OPINIONS, Opinion
from beholder.data.annotations import AnnotationTable
from beholder.pipeline.stages.cross_validate import FEWEST_FOLDS

FEW = 200  # pictures below which heads are linear
MOST_BATCH = 64
MOST_FOLDS = 10
COMPARED_LEAST = 64  # pictures of a split that judge and file are compared on


def compose(
    name: str,
    data: Mapping[str, Any],
    table: AnnotationTable,
    opinions: tuple[Opinion, ...],
    standing: Standing,
    *,
    seed: int,
    megabytes: float,
    groups: int,
    comment_epochs: int,
) -> dict[str, Any]:
    """A recipe as a mapping, see `pipeline.recipe.parse_recipe`.

    Args:
        data: settings of `data`, as a recipe has them.
        table: with every row's split.
        standing: of the features to learn from.
        megabytes: most that the exported file may have.
        groups: in the train and val splits, of pictures that belong together.
        comment_epochs: passes over the comments, as many as there is time for.
    """
    counts = {split: len(table.subset(split)) for split in ("train", "val", "test")}
    stages: dict[str, Any] = {
        "features": {"kind": "extract", "batch_size": 32, "tokens": False},
        **_heads(opinions, standing, counts["train"], groups, comment_epochs),
    }
    heads = [opinion for opinion in OPINIONS if opinion in stages]
    judge: dict[str, Any] = {"kind": "assemble", "heads": heads}
    if counts["val"] and heads != ["comments"]:
        judge["calibrate"] = "val"
        if "errors" in stages:
            judge["intervals"] = "errors"
    stages["judge"] = judge
    if counts["test"]:
        stages["evaluation"] = {"kind": "evaluate", "judge": "judge"}
    if find_spec("onnx") and find_spec("onnxscript"):
        split = "val" if counts["val"] >= COMPARED_LEAST else None
        stages["file"] = {
            "kind": "export", "judge": "judge", "precision": "fp16", "megabytes": megabytes,
            "split": split,
        }  # fmt: skip
    backbone = standing.candidate.backbone.model_dump(mode="json", exclude_defaults=True)
    return {"name": name, "seed": seed, "data": dict(data), "backbone": backbone, "stages": stages}


def _heads(
    opinions: tuple[Opinion, ...],
    standing: Standing,
    pictures: int,
    groups: int,
    comment_epochs: int,
) -> dict[str, Any]:
    """The train stages, each by the name of its opinion, and the cross-validation of scores."""
    training = _head_training(pictures)
    hidden = [128] if pictures >= FEW else []
    head = {"hidden": hidden, "input_dropout": 0.2, "dropout": 0.3 if hidden else 0.0}
    stages: dict[str, Any] = {}
    if "score" in opinions:
        stages["score"] = {
            "kind": "train",
            "features": "features",
            "task": {"kind": "score", "head": head},
            "training": {**training, "monitor": {"metric": "srcc"}},
        }
        if groups >= FEWEST_FOLDS:
            stages["errors"] = {
                "kind": "cross_validate",
                "of": "score",
                "folds": min(MOST_FOLDS, groups),
            }
    if "attributes" in opinions:
        power = standing.class_weight_power
        stages["attributes"] = {
            "kind": "train",
            "features": "features",
            "task": {"kind": "attributes", "head": head, "class_weight_power": power},
            "training": training,
        }
    if "comments" in opinions:
        stages["comments"] = _captioner(pictures, comment_epochs)
    return stages


def _head_training(pictures: int) -> dict[str, Any]:
    """Of a head on frozen features: about 400 steps, whatever the size of the table."""
    batch = max(1, min(MOST_BATCH, pictures // 4))
    steps = max(1, pictures // batch)
    return {
        "epochs": max(5, min(60, round(400 / steps))),
        "batch_size": batch,
        "lr": 1.0e-3,
        "optimizer": {"name": "adamw", "weight_decay": 0.01},
    }


def _captioner(pictures: int, epochs: int) -> dict[str, Any]:
    """A small ExpansionNet v2 on the pooled features, sized by the table."""
    width = 128 if pictures >= FEW else 64
    return {
        "kind": "train",
        "features": "features",
        "task": {
            "kind": "caption",
            "reads": "pooled",
            "label_smoothing": 0.0,
            "head": {
                "d_model": width,
                "enc_layers": 2,
                "dec_layers": 2,
                "ff": 2 * width,
                "heads": 4,
                "enc_expansions": [8, 16, 32],
                "dec_expansions": 8,
                "dropout_encoder_input": 0.2,
            },
        },
        "training": {
            "epochs": epochs,
            "batch_size": max(1, min(16, pictures // 4)),
            "lr": 1.5e-3,
            "optimizer": {"name": "radam", "betas": [0.9, 0.98], "eps": 1.0e-9},
            "evaluate_every": max(1, epochs // 4),
        },
    }
