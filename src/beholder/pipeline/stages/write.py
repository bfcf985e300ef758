"""Stage `write`: a comment for every training picture, and every one without a split, by a judge.

What a train stage learns with `comments_from`. The verdicts grow in the stage's folder, so that a
stopped one goes on; `comments/<stage>/comments.parquet` has `image` and `written`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field, model_validator

from beholder.batch.local import judge_to_file
from beholder.batch.output import identity_of
from beholder.data.files import atomic_path, sha256_file
from beholder.data.images import resolve_key
from beholder.errors import PictureError, RecipeError
from beholder.features import device as devices
from beholder.judge import Judge
from beholder.judge.runner import Request
from beholder.pipeline.checks import Problems
from beholder.pipeline.cost import Cost
from beholder.pipeline.origins import backbone_after
from beholder.pipeline.schema import Needs, Origin, RecipeOutline, StageConfig
from beholder.pipeline.stages.base import SmokeRun, Stage, StageResult
from beholder.pipeline.stages.pseudo_labels import taught_rows
from beholder.pipeline.stages.shared import (
    stage_backbone,
    stage_weights,
    with_verdicts,
)

log = logging.getLogger("beholder")

FOLDER, FILE = "comments", "comments.parquet"


class WriteStage(StageConfig):
    """Let a judge write about the training pictures, and those without opinions."""

    kind: Literal["write"]
    stage: str | None = Field(None, description="train stage whose comment head writes")
    judge: str | None = Field(None, description="or the judge that does: its folder or its file")
    beam_size: int = Field(5, ge=1, le=32, description="beams; the best comment is kept")
    batch_size: int = Field(32, ge=1, description="pictures judged at a time")

    @model_validator(mode="after")
    def _one_writer(self) -> WriteStage:
        if (self.stage is None) == (self.judge is None):
            raise ValueError("stage or judge: name one that writes")
        return self

    def needs(self) -> Needs:
        return {self.stage: ("train",)} if self.stage else {}

    def judges(self) -> list[str]:
        return [self.judge] if self.judge else []

    def origin(self, recipe: RecipeOutline) -> Origin | None:
        return backbone_after(recipe, self.stage) if self.stage else None


class Write(Stage[WriteStage]):
    """Writes `comments/<stage>/`."""

    schema = WriteStage

    def check(self, problems: Problems) -> None:
        with problems:
            self._check_writer()

    def _check_writer(self) -> None:
        """Raises:
        RecipeError: what is to write has no comment head.
        JudgeError: there is no such judge.
        """
        from beholder.judge.store.headers import read_header

        config, where = self.config, f"stages.{self.name}"
        if config.judge is not None:
            if not read_header(Path(config.judge)).comments:
                raise _no_comments(f"The judge {config.judge}", f"{where}.judge")
            return
        assert config.stage is not None
        writer = self.context.recipe.stages[config.stage]
        if "comment" not in writer.opinions:
            raise _no_comments(f"Stage {config.stage!r}", f"{where}.stage")

    def cost(self, smoke: SmokeRun) -> Cost:
        """Every picture as a second look of the same judge takes."""
        context = smoke.context
        few, many = (
            here.data.table.with_frame(taught_rows(here.chosen(here.data.table)))
            for here in (context, self.context)
        )
        judge, _ = Write(self.name, self.config, context)._judge()
        return with_verdicts(smoke.cost, [judge], few, context.data.root, len(many))

    def run(self, folder: Path) -> StageResult:
        judge, identity = self._judge()
        verdicts = folder / "verdicts.jsonl"
        summary = judge_to_file(
            judge,
            self._requests(),
            verdicts,
            identity=identity,
            batch_size=self.config.batch_size,
        )
        log.info("[%s] %s", self.name, summary)
        judged = pl.read_ndjson(verdicts, schema={"image": pl.String, "comment": pl.String})
        written = judged.select("image", written=pl.col("comment").replace("", None))
        target = self.context.folder / FOLDER / self.name
        with atomic_path(target) as temporary:
            temporary.mkdir()
            written.write_parquet(temporary / FILE)
        count = written["written"].drop_nulls().len()
        return StageResult(
            {"comments": (target / FILE, sha256_file(target / FILE))},
            {"pictures": summary.pictures, "written": count, "failed": summary.failed},
        )

    def _judge(self) -> tuple[Judge, str]:
        """Who writes, and what tells it from all others."""
        from beholder.judge.model import JudgeModel

        config = self.config
        if config.judge is not None:
            judge = Judge.load(config.judge)
            judge.beam_size = config.beam_size
            return judge, identity_of(config.judge)
        assert config.stage is not None
        trained = stage_weights(self.context, config.stage)
        backbone = stage_backbone(self.context, self.name)
        model = JudgeModel(trained.config, backbone)
        frozen = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
        model.load_state_dict(frozen | trained.state, strict=True)
        judge = Judge.of_model(model.eval(), devices.choose_device(), beam_size=config.beam_size)
        return judge, self.context.record(config.stage).outputs_hash()

    def _requests(self) -> list[Request]:
        """The pictures to write about; those whose file is not there are told and left out."""
        data = self.context.data
        requests = []
        for key, box in (
            taught_rows(self.context.chosen(data.table)).select("image", "box").iter_rows()
        ):
            try:
                path = resolve_key(data.root, key)
            except PictureError as error:
                log.warning("[%s] no comment of %s: %s", self.name, key, error.what)
                continue
            requests.append(Request(key, path, None if box is None else tuple(box)))
        return requests


def _no_comments(what: str, where: str) -> RecipeError:
    return RecipeError(
        f"{what} writes no comments.",
        where=where,
        fix="Name a train stage of comments, or a judge with a comment head.",
    )
