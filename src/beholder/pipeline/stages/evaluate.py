"""Stage `evaluate`: the judge on held-out pictures against the given opinions."""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from beholder.data.files import atomic_path, sha256_file, write_json
from beholder.errors import JudgeError, RecipeError
from beholder.evaluation.evaluate import (
    CORRELATIONS,
    Evaluation,
    evaluate_judge,
    find_requests,
    headline,
    render_metrics,
)
from beholder.evaluation.overlays import explain_some
from beholder.evaluation.robustness import measure_robustness
from beholder.judge import Judge
from beholder.judge.runner import Request
from beholder.metrics.correlation import bootstrap
from beholder.pipeline.checks import Problems
from beholder.pipeline.cost import Cost, folder_bytes, measured
from beholder.pipeline.manifest import path_digest
from beholder.pipeline.processes import current_processes
from beholder.pipeline.schema import Needs, StageConfig
from beholder.pipeline.stages.base import SmokeRun, Stage, StageResult
from beholder.pipeline.stages.shared import with_verdicts

log = logging.getLogger("beholder")

FOLDER, EXPLANATIONS = "evaluation", "explanations"


class EvaluateStage(StageConfig):
    """Judge a split and compare with the given opinions."""

    writes: ClassVar[str | None] = "evaluation/"
    keeps_score_name: ClassVar[bool] = True

    kind: Literal["evaluate"]
    judge: str = Field(description="assemble stage whose judge to evaluate")
    split: Literal["train", "val", "test"] = "test"
    batch_size: int = Field(32, ge=1, description="pictures judged at a time")
    resamples: int = Field(2000, ge=100, description="bootstrap resamples of the intervals")
    explain: int = Field(
        4, ge=0, description="pictures of the report with overlays of where opinions come from"
    )

    robust: int = Field(
        30,
        ge=0,
        le=100,
        description="pictures on which it is measured how scores and labels move under harmless "
        "changes (JPEG of 95 %, 2 % cropped, a pixel shifted, mirrored, half size); each is judged "
        "six times, without a comment",
    )

    def needs(self) -> Needs:
        return {self.judge: ("assemble",)}


class Evaluate(Stage[EvaluateStage]):
    """Writes `evaluation/`: metrics, predictions, and overlays of a few pictures. Judging is shared
    out over all processes."""

    schema = EvaluateStage
    everywhere = True

    def check(self, problems: Problems) -> None:
        with problems:
            if len(self.context.rows(self.config.split)) == 0:
                raise RecipeError(
                    f"The {self.config.split} split has no picture.",
                    where=f"stages.{self.name}.split",
                    fix="Give it a share in data.split, or evaluate on another split.",
                )

    def smoke_config(self) -> EvaluateStage:
        """One overlay, and one changed picture, tell what each of them takes."""
        config = self.config
        few = {"explain": min(1, config.explain), "robust": min(1, config.robust)}
        return config.model_copy(update=few)

    def cost(self, smoke: SmokeRun) -> Cost:
        """Every picture, changed picture and overlay as a second look of the smoke run's judge
        takes, the bootstrap of so many pictures, and the rest as it was."""
        context, split = smoke.context, self.config.split
        judge = Judge.load(context.output(self.config.judge, "judge"))
        few, pictures = context.rows(split), len(self.context.rows(split))
        size = current_processes().world_size
        root = context.data.root
        cost = with_verdicts(smoke.cost, [judge], few, root, pictures, processes=size)
        further = 0.0
        table = smoke.result.outputs["predictions"][0]
        disk = cost.disk_bytes + (pictures - len(few)) * _row_bytes(pl.read_parquet(table))
        if judge.score_range is not None:
            targets, predicted = np.random.default_rng(0).random((2, pictures))
            with measured() as resampling:
                bootstrap(targets, predicted, CORRELATIONS, n=self.config.resamples)
            further += resampling.seconds
        overlays = min(pictures, self.config.explain) - min(1, self.config.explain)
        requests, _ = find_requests(few, context.data.root)
        changed = min(pictures, self.config.robust) - min(1, self.config.robust)
        if changed > 0 and requests:
            with measured() as changing:
                measure_robustness(judge, requests, 1)
            further += changed * changing.seconds
        if overlays > 0 and requests and judge.explainable():
            with tempfile.TemporaryDirectory(dir=context.folder) as folder, measured() as drawing:
                explain_some(judge, requests, 1, Path(folder))
                drawn = folder_bytes(Path(folder))
            further += overlays * drawing.seconds
            disk += overlays * drawn
        return replace(cost, seconds=cost.seconds + further, disk_bytes=disk)

    def run(self, folder: Path) -> StageResult:
        context = self.context
        processes = current_processes()
        judge = Judge.load(context.output(self.config.judge, "judge"))
        result = evaluate_judge(
            judge,
            context.rows(self.config.split),
            context.data.root,
            batch_size=self.config.batch_size,
            resamples=self.config.resamples,
            seed=context.recipe.seed,
            groups=context.data.units,
            processes=processes,
        )
        if not processes.is_main:
            return StageResult({})  # the first process writes for all
        result.metrics["score_name"] = context.recipe.data.score_name
        requests = self._judged(result)
        if self.config.robust:
            result.metrics["robustness"] = measure_robustness(judge, requests, self.config.robust)
        target = context.folder / FOLDER
        write_json(target / "metrics.json", result.metrics)
        with atomic_path(target / "predictions.parquet") as temporary:
            result.predictions.write_parquet(temporary)
        log.info("%s", render_metrics(result.metrics))
        outputs = {
            name: (target / file, sha256_file(target / file))
            for name, file in (("metrics", "metrics.json"), ("predictions", "predictions.parquet"))
        }
        if self._explain(judge, requests, result.metrics, target / EXPLANATIONS):
            explanations = target / EXPLANATIONS
            outputs["explanations"] = (explanations, path_digest(explanations))
        return StageResult(outputs, headline(result.metrics), result.metrics["signature"])

    def _judged(self, result: Evaluation) -> list[Request]:
        """The pictures that there is a verdict on."""
        data = self.context.data
        judged = set(result.predictions["image"])
        requests, _ = find_requests(data.table.subset(self.config.split), data.root)
        return [request for request in requests if request.name in judged]

    def _explain(
        self, judge: Judge, requests: list[Request], metrics: dict[str, Any], folder: Path
    ) -> bool:
        """Write the report's overlays; False: none are wanted, or the judge can't be explained."""
        shutil.rmtree(folder, ignore_errors=True)
        if self.config.explain == 0 or not (judge.classes or "score" in metrics):
            return False
        try:
            explain_some(judge, requests, self.config.explain, folder)
        except JudgeError as error:
            log.warning("no overlays: %s", error.what)
            return False
        return True


def _row_bytes(frame: pl.DataFrame) -> int:
    """Bytes that a further row takes in a Parquet file, most of which is its schema at first."""
    half, sizes = frame.height // 2, []
    for rows in (frame.head(half), frame):
        file = io.BytesIO()
        rows.write_parquet(file)
        sizes.append(len(file.getvalue()))
    return max(0, sizes[1] - sizes[0]) // max(1, frame.height - half)
