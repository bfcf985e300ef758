"""Stage `gate`: the judge's file must be small enough, and hold one model."""

from __future__ import annotations

import logging
from pathlib import Path

from beholder.data.files import sha256_file, write_json
from beholder.deploy.size import MEGABYTE, check_size, measure, state_bytes, too_large
from beholder.errors import RecipeError
from beholder.judge.numbers import stored_as
from beholder.pipeline.context import RunContext
from beholder.pipeline.recipe import ExportStage, GateStage
from beholder.pipeline.stages.base import Stage, StageResult
from beholder.pipeline.stages.shared import stage_backbone

log = logging.getLogger("beholder")

WEIGHTS = "weights.safetensors"


class Gate(Stage):
    """Writes `sizes.json`: the bytes of the file that ships, and of its other number types."""

    def __init__(self, name: str, config: GateStage, context: RunContext) -> None:
        super().__init__(name, context)
        self.config = config

    def rehearse(self) -> None:
        """Make sure that no ensemble is gated, and that the backbone alone is not too large."""
        export = self.context.recipe.stages[self.config.judge]
        assert isinstance(export, ExportStage)
        if export.ensemble > 1:
            raise RecipeError(
                f"{self.config.judge!r} is an ensemble; the gate lets one model pass.",
                where=f"stages.{self.name}.judge",
                fix="Export a soup, or leave the gate out.",
            )
        backbone = stage_backbone(self.context, self.config.judge)
        state = stored_as(backbone.state_dict(), export.dtype)
        size = state_bytes(state)
        if size > self.config.megabytes * MEGABYTE:
            what = f"The backbone alone, {size:,} bytes as {export.dtype},"
            raise too_large(what, f"stages.{self.name}", self.config.megabytes, state)

    def run(self, folder: Path) -> StageResult:
        from safetensors.torch import load_file

        path = self.context.output(self.config.judge, "judge") / WEIGHTS
        state = load_file(path)
        size = check_size(path, self.config.megabytes, state)
        sizes = measure(state).megabytes()
        shown = ", ".join(f"{name[10:]} {value:.2f}" for name, value in sizes.items())
        log.info("%.2f MB of %g ship; as %s", size / MEGABYTE, self.config.megabytes, shown)
        metrics = {"megabytes": size / MEGABYTE, "limit": self.config.megabytes, **sizes}
        write_json(folder / "sizes.json", metrics)
        return StageResult(
            {"sizes": (folder / "sizes.json", sha256_file(folder / "sizes.json"))}, metrics
        )
