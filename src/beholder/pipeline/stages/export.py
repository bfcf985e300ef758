"""Stage `export`: backbone and trained heads become a judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from beholder.data.files import sha256_file
from beholder.features.backbones import Backbone
from beholder.judge.folder import save_judge
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.pipeline.context import RunContext
from beholder.pipeline.recipe import ExportStage
from beholder.pipeline.stages.base import Stage, StageResult
from beholder.pipeline.stages.shared import stage_backbone, trained_by
from beholder.pipeline.stages.trained import Trained

FOLDER = "judge"


class Export(Stage):
    """Puts the heads of several train stages on one backbone and writes `judge/`."""

    def __init__(self, name: str, config: ExportStage, context: RunContext) -> None:
        super().__init__(name, context)
        self.config = config

    def rehearse(self) -> None:
        """Nothing to try: that the heads belong together is known from the recipe."""

    def run(self, folder: Path) -> StageResult:
        context = self.context
        parts = [trained_by(context, name) for name in self.config.heads]
        model = _assemble(parts, stage_backbone(context, self.name))
        provenance: dict[str, Any] = {
            "recipe": context.recipe.name,
            "seed": context.recipe.seed,
            "score_name": context.recipe.data.score_name,
            "stages": {name: dict(self._metrics(name)) for name in self.config.heads},
        }
        target = context.folder / FOLDER
        save_judge(model, target, beam_size=self.config.beam_size, provenance=provenance)
        size = sum(path.stat().st_size for path in target.iterdir())
        outputs = {"judge": (target, sha256_file(target / "judge.json"))}
        return StageResult(outputs, {"megabytes": round(size / 1e6, 2)})

    def _metrics(self, stage: str) -> dict[str, float]:
        record = self.context.manifest.find(stage)
        assert record is not None, f"{stage} has not run"
        return record.metrics


def _assemble(parts: list[Trained], backbone: Backbone) -> JudgeModel:
    """One judge with the heads of all parts on the backbone that they belong to."""
    merged: dict[str, Any] = parts[0].config.model_dump()
    for part in parts[1:]:
        fields = part.config.model_dump()
        for name in ("score", "attributes", "comment", "vocabulary", "score_range"):
            merged[name] = fields[name] if fields[name] is not None else merged[name]
        merged["classes"] = fields["classes"] or merged["classes"]
    model = JudgeModel(JudgeConfig.model_validate(merged), backbone.cpu())
    heads: dict[str, torch.Tensor] = {}
    for part in parts:
        heads |= part.part("heads.")
    model.heads.load_state_dict(heads, strict=True)
    return model.eval()
