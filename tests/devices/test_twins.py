"""The tiny twin of every shipped recipe runs whole on the device, with the CPU's results."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from compared import DEVICE, assert_same

from beholder.features.device import using_device
from beholder.pipeline import runner
from beholder.pipeline.manifest import load_manifest
from beholder.pipeline.recipe import Recipe, load_recipe, shipped_recipes
from beholder.pipeline.runner import fit_recipe
from beholder.pipeline.stages.export import ExportStage
from beholder.pipeline.stages.train import TrainStage

TWINS = sorted((next(iter(shipped_recipes().values())).parent / "tiny").glob("*.yaml"))
# Training end to end with Adam enlarges the last bits, and networks that have hardly been trained
# tie where a class or a rank is asked for: losses are compared. What must be equal to the last
# digits is in the other files.
ROOM = {"rtol": 0.01, "atol": 0.0}
COMPARED = ("loss", "rmse", "cross_entropy")


def shortened(twin: Path) -> Recipe:
    """The twin with one evaluation per stage, loading in the main process: a
    pretend device is slow. Files are exported on the CPU, whatever the device."""
    changes = []
    for name, stage in load_recipe(twin).stages.items():
        if isinstance(stage, TrainStage):
            field = f"stages.{name}.training"
            changes += [f"{field}.workers=0", f"{field}.evaluate_every=1000"]
        elif isinstance(stage, ExportStage):
            changes.append(f"stages.{name}=null")
    return load_recipe(twin, changes)


def results(run: Path) -> dict[str, float]:
    """What the stages have noted of their losses and errors."""
    manifest = load_manifest(run)
    assert manifest is not None
    return {
        f"{record.name}: {name}": float(value)
        for record in manifest.stages
        for name, value in record.metrics.items()
        if name.endswith(COMPARED)
    }


@pytest.mark.parametrize("twin", TWINS, ids=[path.stem for path in TWINS])
def test_tiny_twin_of_every_recipe_runs_whole(
    twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # that every stage runs on a few rows first is tried with the twins on the CPU
    monkeypatch.setattr(runner, "smoke_run", lambda *_: {})
    recipe = shortened(twin)
    assert fit_recipe(recipe, tmp_path / "device") == list(recipe.stages)
    if DEVICE == "pretend":  # not twice: a run on the CPU takes its time
        shutil.copytree(tmp_path / "device" / "sample", tmp_path / "cpu" / "sample")
        with using_device("cpu"):
            fit_recipe(recipe, tmp_path / "cpu")
        expected = results(tmp_path / "cpu")
        assert expected, "nothing is compared"
        assert_same(results(tmp_path / "device"), expected, room=ROOM)
