"""Stage `gate`: the judge's file must be small enough, and hold one model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from pydantic import Field

from beholder.data.files import sha256_file, write_json
from beholder.errors import RecipeError
from beholder.pipeline.checks import Problems
from beholder.pipeline.schema import Needs, StageConfig
from beholder.pipeline.stages.assemble import AssembleStage
from beholder.pipeline.stages.base import Stage, StageResult
from beholder.pipeline.stages.shared import outlined_backbone

log = logging.getLogger("beholder")

WEIGHTS = "weights.safetensors"


class GateStage(StageConfig):
    """Fail unless the file of weights that ships is small enough, and is of one model."""

    kind: Literal["gate"]
    judge: str = Field(description="assemble stage whose judge is measured")
    megabytes: float = Field(25.0, gt=0, description="most that its weights may have; 1 MB is 10^6")

    def needs(self) -> Needs:
        return {self.judge: ("assemble",)}


class Gate(Stage[GateStage]):
    """Writes `sizes.json`: the bytes of the file that ships, and of its other number types."""

    schema = GateStage

    def check(self, problems: Problems) -> None:
        with problems:
            self._check_one_model()
        with problems:
            self._check_backbone()

    def _check_one_model(self) -> None:
        """Raises:
        RecipeError: an ensemble is gated.
        """
        if self._assembled.ensemble > 1:
            raise RecipeError(
                f"{self.config.judge!r} is an ensemble; the gate lets one model pass.",
                where=f"stages.{self.name}.judge",
                fix="Assemble a soup, or leave the gate out.",
            )

    def _check_backbone(self) -> None:
        """Raises:
        GateError: the backbone alone is too large.
        """
        from beholder.export.size import MEGABYTE, state_bytes, too_large
        from beholder.judge.store.dtypes import narrowed

        dtype = self._assembled.dtype
        state = narrowed(outlined_backbone(self.context, self.config.judge).state_dict(), dtype)
        size = state_bytes(state)
        if size > self.config.megabytes * MEGABYTE:
            what = f"The backbone alone, {size:,} bytes as {dtype},"
            raise too_large(what, f"stages.{self.name}", self.config.megabytes, state)

    @property
    def _assembled(self) -> AssembleStage:
        return self.context.recipe.stage(self.config.judge, AssembleStage)

    def run(self, folder: Path) -> StageResult:
        from safetensors.torch import load_file

        from beholder.export.size import MEGABYTE, check_size, measure

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
