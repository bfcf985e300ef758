"""What a stage is given to work with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beholder.pipeline.data import RunData
from beholder.pipeline.manifest import Manifest
from beholder.pipeline.recipe import Recipe


@dataclass
class RunContext:
    """The recipe, its data, and what the stages before have made.

    `live` keeps things that are costly to build and shared by stages in one process, such as the
    backbone with its weights. While `rehearsing`, what earlier runs have left is no measure:
    the stages that made it may be about to run again.
    """

    folder: Path
    recipe: Recipe
    data: RunData
    manifest: Manifest
    rehearsing: bool = False
    live: dict[str, Any] = field(default_factory=dict)

    def output(self, stage: str, name: str) -> Path:
        """Where an output of a finished stage is."""
        record = self.manifest.find(stage)
        assert record is not None, f"stage {stage} has not run"
        return self.folder / record.outputs[name].path
