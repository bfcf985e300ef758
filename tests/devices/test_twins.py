"""The tiny twin of every shipped recipe runs whole on the device, with the CPU's results."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from compared import DEVICE, assert_same

from beholder.features.device import using_device
from beholder.pipeline.manifest import load_manifest
from beholder.pipeline.recipe import load_recipe, shipped_recipes
from beholder.pipeline.runner import fit_recipe

TWINS = sorted((next(iter(shipped_recipes().values())).parent / "tiny").glob("*.yaml"))
# Features are stored as float16, whose last bit goes by the size of the batches; a few steps of
# Adam enlarge that, and networks that have hardly been trained tie. What must be equal to the last
# digits is in the other files.
ROOM = {"rtol": 0.02, "atol": 0.05}
CLOCKS = ("seconds", "pictures_per_second")


def results(run: Path) -> dict[str, Any]:
    """The numbers: what the stages have noted, and predictions."""
    manifest = load_manifest(run)
    assert manifest is not None
    found: dict[str, Any] = {
        record.name: {n: v for n, v in record.metrics.items() if not n.startswith(CLOCKS)}
        for record in manifest.stages
    }
    for table in sorted(run.glob("*/**/predictions.parquet")):
        frame = pl.read_parquet(table)
        place = str(table.relative_to(run)).replace(table.parent.name, "") + str(frame.columns)
        found[place] = frame.select(pl.selectors.float()).to_numpy().ravel().tolist()
    return found


@pytest.mark.parametrize("twin", TWINS, ids=[path.stem for path in TWINS])
def test_tiny_twin_of_every_recipe_runs_whole(twin: Path, tmp_path: Path) -> None:
    recipe = load_recipe(twin)
    assert fit_recipe(recipe, tmp_path / "device") == list(recipe.stages)
    if DEVICE == "pretend":  # not twice: a run on the CPU takes its time
        shutil.copytree(tmp_path / "device" / "sample", tmp_path / "cpu" / "sample")
        with using_device("cpu"):
            fit_recipe(recipe, tmp_path / "cpu")
        assert_same(results(tmp_path / "device"), results(tmp_path / "cpu"), room=ROOM)
