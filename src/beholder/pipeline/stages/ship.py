"""Stage `ship`: the judge as one file that needs no PyTorch, small enough, and saying the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from beholder.data.files import sha256_file
from beholder.deploy.export import export_judge
from beholder.deploy.parity import LEAST, Material, sample_material, table_material
from beholder.deploy.size import MEGABYTE
from beholder.errors import MissingExtra, RecipeError
from beholder.pipeline.context import RunContext
from beholder.pipeline.recipe import ShipStage
from beholder.pipeline.stages.base import Stage, StageResult

FILE = "judge.beholder"


class Ship(Stage):
    """Writes `judge.beholder`, as `beholder export` does."""

    def __init__(self, name: str, config: ShipStage, context: RunContext) -> None:
        super().__init__(name, context)
        self.config = config

    def rehearse(self) -> None:
        """Make sure that ONNX can be written, and that there is something to compare on.

        Raises:
            MissingExtra: it can't.
            RecipeError: the split has too few pictures.
        """
        if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript")):
            raise MissingExtra("Writing ONNX", "onnx")
        if self.config.split is None:
            return
        count = len(self.context.data.table.subset(self.config.split))
        if count < LEAST:
            raise RecipeError(
                f"A judge is compared with its file on at least {LEAST} pictures; the "
                f"{self.config.split} split has {count}.",
                where=f"stages.{self.name}.split",
                fix="Name another split, or null for the embedded sample.",
            )

    def run(self, folder: Path) -> StageResult:
        target = self.context.folder / FILE
        if self.config.split is None:
            with sample_material() as pictures:
                return self._export(target, pictures)
        data = self.context.data
        table = data.table.subset(self.config.split)
        return self._export(target, table_material(self.config.split, table, data.root))

    def _export(self, target: Path, pictures: Material) -> StageResult:
        done = export_judge(
            self.context.output(self.config.judge, "judge"),
            target,
            pictures,
            precision=self.config.precision,
            megabytes=self.config.megabytes,
        )
        metrics: dict[str, float] = {
            "megabytes": done.size / MEGABYTE,
            "limit": self.config.megabytes,
        }
        if done.parity.score_difference is not None:
            metrics["score_difference"] = done.parity.score_difference
        if done.parity.same_comments is not None:
            metrics["same_comments"] = done.parity.same_comments
        metrics |= {f"same_labels.{name}": v for name, v in done.parity.same_labels.items()}
        return StageResult({"file": (target, sha256_file(target))}, metrics)
