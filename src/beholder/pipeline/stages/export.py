"""Stage `export`: the judge as one small file that needs no PyTorch and gives the same verdicts."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from beholder.data.files import sha256_file
from beholder.errors import MissingExtra, RecipeError
from beholder.export.parity import (
    CALIBRATION_LEAST,
    ENOUGH,
    LEAST,
    MOST,
    Fewest,
    Material,
    sample_material,
    table_material,
)
from beholder.judge import Judge
from beholder.pipeline.checks import Problems
from beholder.pipeline.cost import Cost
from beholder.pipeline.schema import Needs, StageConfig
from beholder.pipeline.stages.base import SmokeRun, Stage, StageResult
from beholder.pipeline.stages.shared import with_verdicts

FILE = "judge.beholder"


class ExportStage(StageConfig):
    """Write the judge as one file that needs no PyTorch, with all that it takes; fail unless it is
    small enough and says what the judge says."""

    writes: ClassVar[str | None] = "judge.beholder"
    former_kind: ClassVar[str | None] = "ship"

    kind: Literal["export"]
    judge: str = Field(description="assemble stage whose judge is written")
    precision: Literal["fp32", "fp16", "int8"] = Field(
        "fp16", description="of the weights; the smaller, the more the opinions may change"
    )
    megabytes: float = Field(25.0, gt=0, description="most that the file may have; 1 MB is 10^6")
    split: Literal["train", "val", "test"] | None = Field(
        "val", description="whose pictures judge and file are compared on; null: the sample's"
    )

    def needs(self) -> Needs:
        return {self.judge: ("assemble",)}


class Export(Stage[ExportStage]):
    """Writes `judge.beholder`, as `beholder export` does."""

    schema = ExportStage

    def check(self, problems: Problems) -> None:
        with problems:
            if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript")):
                raise MissingExtra("Writing ONNX", "onnx")
        with problems:
            self._check_pictures()

    def _check_pictures(self) -> None:
        """Raises:
        RecipeError: the split has too few pictures to compare on.
        """
        split, precision = self.config.split, self.config.precision
        if split is None:
            return
        least = LEAST + (CALIBRATION_LEAST if precision == "int8" else 0)
        count = len(self.context.rows(split))
        if count < least:
            raise RecipeError(
                f"A judge is compared with its {precision} file on at least {least} pictures; the "
                f"{split} split has {count}.",
                where=f"stages.{self.name}.split",
                fix="Name another split, or null for the embedded sample.",
            )

    def run(self, folder: Path) -> StageResult:
        target = self.context.folder / FILE
        if self.config.split is None:
            with sample_material() as pictures:
                return self._export(target, pictures)
        table, root = self.context.rows(self.config.split), self.context.data.root
        fewest = ENOUGH if self.context.has_to_be_good else Fewest(1, 1)
        return self._export(target, table_material(self.config.split, table, root, fewest))

    def cost(self, smoke: SmokeRun) -> Cost:
        """The file as it took, and a look of both, judge and file, at every picture."""
        context, split = smoke.context, self.config.split
        if split is None:
            return smoke.cost  # the smoke run has compared on the sample too
        file, _ = smoke.result.outputs["file"]
        folder = context.output(self.config.judge, "judge")
        judges = [Judge.load(path, device="cpu") for path in (folder, file)]
        pictures = min(MOST, len(self.context.rows(split)))
        few = context.rows(split)
        return with_verdicts(smoke.cost, judges, few, context.data.root, pictures)

    def _export(self, target: Path, pictures: Material) -> StageResult:
        from beholder.export.judge_file import export_judge
        from beholder.export.size import MEGABYTE

        done = export_judge(
            self.context.output(self.config.judge, "judge"),
            target,
            pictures,
            precision=self.config.precision,
            megabytes=self.config.megabytes,
            has_to_agree=self.context.has_to_be_good,
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
