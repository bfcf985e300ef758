"""Stage `export`: backbone and trained heads become a judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from beholder.data.files import sha256_file
from beholder.errors import RecipeError
from beholder.features.backbones import create_backbone
from beholder.judge.folder import save_judge
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.pipeline.context import RunContext
from beholder.pipeline.recipe import ExportStage, TrainStage
from beholder.pipeline.stages.base import Stage, StageResult
from beholder.pipeline.stages.shared import recipe_backbone
from beholder.pipeline.stages.trained import Trained, load_trained

FOLDER = "judge"


class Export(Stage):
    """Puts the heads of several train stages on one backbone and writes `judge/`."""

    def __init__(self, name: str, config: ExportStage, context: RunContext) -> None:
        super().__init__(name, context)
        self.config = config

    def rehearse(self) -> None:
        """Make sure that the heads can live on one backbone."""
        stages = self.context.recipe.stages
        kinds: dict[str, str] = {}
        tuned = []
        for name in self.config.heads:
            stage = stages[name]
            assert isinstance(stage, TrainStage)
            if stage.task.kind in kinds:
                raise RecipeError(
                    f"Stages {kinds[stage.task.kind]!r} and {name!r} both give the judge "
                    f"its {stage.task.kind} head.",
                    where=f"stages.{self.name}.heads",
                    fix="Name one of them.",
                )
            kinds[stage.task.kind] = name
            if stage.task.train_backbone:
                tuned.append(name)
        if tuned and len(self.config.heads) > 1:
            raise RecipeError(
                f"Stage {tuned[0]!r} trains the backbone, so its head can't share one with others.",
                where=f"stages.{self.name}.heads",
                fix="Export that stage alone, or train the heads on the same frozen features.",
            )

    def run(self, folder: Path) -> StageResult:
        context = self.context
        parts = [load_trained(context.output(name, "model").parent) for name in self.config.heads]
        model = _assemble(parts, context)
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


def _assemble(parts: list[Trained], context: RunContext) -> JudgeModel:
    """One judge with the heads of all parts; a backbone that was trained replaces the recipe's."""
    merged: dict[str, Any] = parts[0].config.model_dump()
    for part in parts[1:]:
        fields = part.config.model_dump()
        for name in ("score", "attributes", "comment", "vocabulary", "score_range"):
            merged[name] = fields[name] if fields[name] is not None else merged[name]
        merged["classes"] = fields["classes"] or merged["classes"]
    config = JudgeConfig.model_validate(merged)
    state: dict[str, torch.Tensor] = {}
    for part in parts:
        state.update(part.state)
    if any(name.startswith("backbone.") for name in state):
        backbone = create_backbone(config.backbone, load_weights=False)
    else:
        backbone = recipe_backbone(context).cpu()
        state.update({f"backbone.{k}": v for k, v in backbone.state_dict().items()})
    model = JudgeModel(config, backbone)
    model.load_state_dict(state, strict=True)
    return model.eval()
