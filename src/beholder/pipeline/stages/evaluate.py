"""Stage `evaluate`: the judge on held-out pictures against the given opinions."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from beholder.data.files import atomic_path, sha256_file, write_json
from beholder.errors import JudgeError, RecipeError
from beholder.judge import Judge
from beholder.pipeline.context import RunContext
from beholder.pipeline.manifest import path_digest
from beholder.pipeline.recipe import EvaluateStage
from beholder.pipeline.stages.base import Stage, StageResult
from beholder.predict.evaluation import (
    Evaluation,
    evaluate_judge,
    find_requests,
    headline,
    render_metrics,
)
from beholder.predict.explaining import explain_some

log = logging.getLogger("beholder")

FOLDER, EXPLANATIONS = "evaluation", "explanations"


class Evaluate(Stage):
    """Writes `evaluation/`: metrics, predictions, and overlays of a few pictures."""

    def __init__(self, name: str, config: EvaluateStage, context: RunContext) -> None:
        super().__init__(name, context)
        self.config = config

    def rehearse(self) -> None:
        """Make sure that there is something to evaluate on."""
        if len(self.context.data.table.subset(self.config.split)) == 0:
            raise RecipeError(
                f"The {self.config.split} split has no picture.",
                where=f"stages.{self.name}.split",
                fix="Give it a share in data.split, or evaluate on another split.",
            )

    def run(self, folder: Path) -> StageResult:
        context = self.context
        judge = Judge.load(context.output(self.config.judge, "judge"))
        result = evaluate_judge(
            judge,
            context.data.table.subset(self.config.split),
            context.data.root,
            batch_size=self.config.batch_size,
            resamples=self.config.resamples,
            seed=context.recipe.seed,
        )
        result.metrics["score_name"] = context.recipe.data.score_name
        target = context.folder / FOLDER
        write_json(target / "metrics.json", result.metrics)
        with atomic_path(target / "predictions.parquet") as temporary:
            result.predictions.write_parquet(temporary)
        log.info("%s", render_metrics(result.metrics))
        outputs = {
            name: (target / file, sha256_file(target / file))
            for name, file in (("metrics", "metrics.json"), ("predictions", "predictions.parquet"))
        }
        if self._explain(judge, result, target / EXPLANATIONS):
            place = target / EXPLANATIONS
            outputs["explanations"] = (place, path_digest(place))
        return StageResult(outputs, headline(result.metrics), result.metrics["signature"])

    def _explain(self, judge: Judge, result: Evaluation, folder: Path) -> bool:
        """Write the report's overlays; False: none are wanted, or the judge can't be explained."""
        shutil.rmtree(folder, ignore_errors=True)
        if self.config.explain == 0 or not (judge.classes or "score" in result.metrics):
            return False
        data = self.context.data
        judged = set(result.predictions["image"])
        requests, _ = find_requests(data.table.subset(self.config.split), data.root)
        known = [request for request in requests if request.name in judged]
        try:
            explain_some(judge, known, self.config.explain, folder)
        except JudgeError as error:
            log.warning("no overlays: %s", error.what)
            return False
        return True
