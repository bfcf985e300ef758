"""Stage `evaluate`: the judge on held-out pictures against the given opinions."""

from __future__ import annotations

import logging
from pathlib import Path

from beholder.data.files import atomic_path, sha256_file, write_json
from beholder.errors import RecipeError
from beholder.judge import Judge
from beholder.pipeline.context import RunContext
from beholder.pipeline.recipe import EvaluateStage
from beholder.pipeline.stages.base import Stage, StageResult
from beholder.predict.evaluation import evaluate_judge, headline, render_metrics

log = logging.getLogger("beholder")

FOLDER = "evaluation"


class Evaluate(Stage):
    """Writes `evaluation/metrics.json` and `evaluation/predictions.parquet`."""

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
        result = evaluate_judge(
            Judge.load(context.output(self.config.judge, "judge")),
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
        return StageResult(outputs, headline(result.metrics))
