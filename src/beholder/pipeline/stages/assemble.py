"""Stage `assemble`: backbone and trained heads become a judge."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from beholder.data.files import sha256_file
from beholder.data.test_time_augmentation import ViewConfig
from beholder.errors import RecipeError
from beholder.evaluation.calibrate import Compared, calibrate_judge, fit_interval
from beholder.features import device as devices
from beholder.judge import Judge
from beholder.judge.store.limits import MOST_WRITERS
from beholder.metrics.conformal import enough_for
from beholder.pipeline.checks import Problems
from beholder.pipeline.cost import Cost
from beholder.pipeline.origins import backbone_after
from beholder.pipeline.schema import Needs, Origin, RecipeOutline, StageConfig
from beholder.pipeline.stages.base import SmokeRun, Stage, StageResult
from beholder.pipeline.stages.cross_validate import CrossValidateStage
from beholder.pipeline.stages.shared import (
    outlined_backbone,
    stage_backbone,
    stage_weights,
    with_verdicts,
)
from beholder.pipeline.stages.train import TrainStage

if TYPE_CHECKING:
    from beholder.judge.model import JudgeModel
    from beholder.pipeline.stages.checkpoint_averaging import State
    from beholder.pipeline.stages.stage_weights import StageWeights

log = logging.getLogger("beholder")

FOLDER = "judge"

# what of a judge's config comes with each head
_FIELDS = {
    "score": ("score", "score_grades", "score_range"),
    "attributes": ("attributes", "attribute_inputs", "classes", "multi_label"),
    "comment": ("comment", "comment_reads", "vocabulary"),
}


class AssembleStage(StageConfig):
    """Put backbone and trained heads together as a judge."""

    writes: ClassVar[str | None] = "judge/"
    keeps_score_name: ClassVar[bool] = True
    former_kind: ClassVar[str | None] = "export"
    former_fields: ClassVar[Mapping[str, str]] = {"test_time_augmentation": "views"}

    kind: Literal["assemble"]
    heads: list[str] = Field(min_length=1, description="train stages, each gives its heads")
    soup: int = Field(
        1,
        ge=1,
        description="newest checkpoints of every train stage whose weights are averaged; 1: none, "
        "each stage's best weights are taken",
    )
    ensemble: int = Field(
        1,
        ge=1,
        le=MOST_WRITERS,
        description="newest checkpoints of the comment stage that write together, their "
        "probabilities averaged at every word; 1: none",
    )
    beam_size: int = Field(3, ge=1, le=32, description="beams when the judge writes a comment")
    test_time_augmentation: ViewConfig = ViewConfig()
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="of the weights in the judge's file; it computes in float32"
    )
    calibrate: Literal["val"] | None = Field(
        None,
        description="split that the attributes' temperatures and the scores' intervals are fitted "
        "on; null: none are",
    )
    intervals: str | None = Field(
        None,
        description="cross_validate stage whose errors tell how wide the scores' intervals are, "
        "where the split of `calibrate` holds few groups; null: the errors on that split",
    )
    level: float = Field(
        0.9, gt=0, lt=1, description="share of pictures that a score's interval covers"
    )

    familiarity: bool = Field(
        True,
        exclude_if=bool,  # hashes of stages stay as they were
        description="whether the judge keeps, in a few KB, what its training pictures look like to "
        "its backbone, to tell pictures that are unlike them",
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> AssembleStage:
        if self.soup > 1 and self.ensemble > 1:
            raise ValueError("soup and ensemble: choose one")
        if self.intervals and (self.soup > 1 or self.test_time_augmentation != ViewConfig()):
            raise ValueError(
                "intervals: a cross_validate stage's errors are those of one look with the best "
                "weights; leave soup and test_time_augmentation out"
            )
        return self

    def needs(self) -> Needs:
        needed: Needs = dict.fromkeys(self.heads, ("train",))
        return needed | ({self.intervals: ("cross_validate",)} if self.intervals else {})

    def origin(self, recipe: RecipeOutline) -> Origin:
        return backbone_after(recipe, self.heads[0])

    def check_origin(self, recipe: RecipeOutline, name: str) -> None:
        head_of: dict[str, str] = {}
        expected = self.origin(recipe)
        for head in self.heads:
            for opinion in recipe.stages[head].opinions:
                if opinion in head_of:
                    raise RecipeError(
                        f"Stages {head_of[opinion]!r} and {head!r} both give the judge "
                        f"its {opinion} head.",
                        where=f"stages.{name}.heads",
                        fix="Name one of them.",
                    )
                head_of[opinion] = head
            origin = backbone_after(recipe, head)
            if origin != expected:
                raise RecipeError(
                    f"Heads of one judge share its backbone, but {self.heads[0]!r} belongs to "
                    f"{expected} and {head!r} to {origin}.",
                    where=f"stages.{name}.heads",
                    fix="Train the other heads on features extracted with the same backbone "
                    "(backbone, backbone_from), or assemble them apart.",
                )

    def checkpoints_of(self, stage: str) -> int:
        return max(self.soup, self.ensemble) if stage in self.heads else 0


class Assemble(Stage[AssembleStage]):
    """Puts the heads of several train stages on one backbone and writes `judge/`."""

    schema = AssembleStage

    def check(self, problems: Problems) -> None:
        """That the heads belong together is known from the recipe."""
        from beholder.pipeline.stages.checkpoint_averaging import check_enough

        config, where = self.config, f"stages.{self.name}"
        several = max(config.soup, config.ensemble)
        with problems:
            for name in config.heads if config.soup > 1 else self._comment_stages():
                pictures = len(self.context.rows("train"))
                with problems:
                    check_enough(self._stage(name).training, name, pictures, several, where)
        with problems:
            config.test_time_augmentation.check(
                outlined_backbone(self.context, self.name).transform
            )
        with problems:
            if config.calibrate:
                self._check_calibration(config.calibrate)
        with problems:
            if config.intervals:
                self._check_intervals(config.intervals)

    def cost(self, smoke: SmokeRun) -> Cost:
        """The judge as it took, and a look at every picture that it is calibrated on, or learns
        from what is familiar."""
        from beholder.pipeline.stages.familiarity import looks

        context, split = smoke.context, self.config.calibrate
        pictures = 0 if split is None else len(self.context.rows(split))
        if self.config.familiarity:
            pictures += looks(self.context, self.config.heads)
        if pictures == 0:
            return smoke.cost
        folder, _ = smoke.result.outputs["judge"]
        judge, few = Judge.load(folder), context.rows(split or "train")
        judge.beam_size = None  # comments are not calibrated
        return with_verdicts(smoke.cost, [judge], few, context.data.root, pictures)

    def run(self, folder: Path) -> StageResult:
        from beholder.judge.store.folder import save_judge

        context = self.context
        model, metrics = self._calibrated(self._model())
        if self.config.familiarity:
            self._learn_familiarity(model)
        provenance: dict[str, Any] = {
            "recipe": context.recipe.name,
            "seed": context.recipe.seed,
            "score_name": context.recipe.data.score_name,
            "stages": {name: dict(context.record(name).metrics) for name in self.config.heads},
        }
        target = context.folder / FOLDER
        save_judge(
            model,
            target,
            beam_size=self.config.beam_size,
            provenance=provenance,
            dtype=self.config.dtype,
        )
        size = sum(path.stat().st_size for path in target.iterdir())
        outputs = {"judge": (target, sha256_file(target / "judge.json"))}
        return StageResult(outputs, {"megabytes": round(size / 1e6, 2), **metrics})

    def _check_calibration(self, split: str) -> None:
        """Make sure that there is something to calibrate, and to calibrate on.

        Raises:
            RecipeError: no attribute or score head, or no picture in the split.
        """
        where = f"stages.{self.name}.calibrate"
        opinions = {o for name in self.config.heads for o in self._stage(name).opinions}
        if not opinions & {"attributes", "score"}:
            raise RecipeError(
                "Only attributes and scores are calibrated; no such head is among them.",
                where=where,
                fix="Leave `calibrate` out.",
            )
        rows = self.context.rows(split)
        if len(rows) == 0:
            raise RecipeError(
                f"The {split} split has no picture to calibrate on.",
                where=where,
                fix="Give it a share in data.split, or leave `calibrate` out.",
            )
        scored = rows.frame["score"].drop_nulls().len()
        enough = enough_for(self.config.level)
        if "score" in opinions and not self.config.intervals and scored < enough:
            log.warning(
                "%s: the %s split has %d pictures with a score, %.0f%% intervals need %d: the "
                "judge will have none",
                where, split, scored, 100 * self.config.level, enough,
            )  # fmt: skip

    def _check_intervals(self, crossed: str) -> None:
        """Make sure that the errors are those of the head that gives the scores.

        Raises:
            RecipeError: they are another's.
        """
        stage = self.context.recipe.stage(crossed, CrossValidateStage)
        if stage.of not in self.config.heads:
            raise RecipeError(
                f"{crossed} has the errors of {stage.of}, whose head is not among them.",
                where=f"stages.{self.name}.intervals",
                fix=f"Name a cross_validate stage of one of: {', '.join(self.config.heads)}.",
            )

    def _compared(self) -> list[Compared] | None:
        """Target and predicted scores of a cross_validate stage, if one tells the intervals."""
        if self.config.intervals is None:
            return None
        frame = pl.read_parquet(self.context.output(self.config.intervals, "predictions"))
        units = self.context.data.units
        return [
            Compared(target, predicted, units[key])
            for key, target, predicted in frame.select("image", "score", "predicted").iter_rows()
        ]

    def _calibrated(self, model: JudgeModel) -> tuple[JudgeModel, dict[str, float]]:
        """The judge with its calibration, as the stage asks for, and what that did."""
        data, level, compared = self.context.data, self.config.level, self._compared()
        if self.config.calibrate:
            judge = Judge.of_model(model, devices.choose_device(), beam_size=None)
            table = self.context.rows(self.config.calibrate)
            fitted = calibrate_judge(judge, table, data.root, level=level, compared=compared)
        elif compared:
            fitted = fit_interval(compared, level, model.score_range)
        else:
            return model, {}
        model.config = model.config.model_copy(update={"calibration": fitted.calibration})
        return model, fitted.metrics

    def _learn_familiarity(self, model: JudgeModel) -> None:
        from beholder.pipeline.stages.familiarity import learn_familiarity

        assert model.backbone is not None, "a judge without a backbone can't see"
        known = learn_familiarity(self.context, self.config.heads, model.backbone)
        calibration = model.config.calibration.model_copy(update={"familiarity": known})
        model.config = model.config.model_copy(update={"calibration": calibration})

    def _model(self) -> JudgeModel:
        """One judge with the heads of all stages on the backbone that they belong to."""
        from beholder.judge.model import JudgeConfig, JudgeModel
        from beholder.judge.store.dtypes import stored_as
        from beholder.pipeline.stages.stage_weights import StageWeights

        config, context = self.config, self.context
        parts = [self._part(name) for name in config.heads]
        merged = _merge(parts) | {"views": config.test_time_augmentation}
        further: list[State] = []
        for name in self._comment_stages():
            first, *further = self._states(name, config.ensemble)
            parts.append(StageWeights(parts[0].config, first))
            merged |= {
                "ensemble": config.ensemble,
                "own_backbones": self._stage(name).trains_backbone,
            }
        state: State = {}
        for part in parts:
            state |= part.state
        for index, other in enumerate(further):
            for name, tensor in other.items():
                if name.startswith(("heads.comment.", "backbone.")):
                    state[f"others.{index}.{name.removeprefix('heads.')}"] = tensor
        backbone = stage_backbone(context, self.name).cpu()
        model = JudgeModel.from_config(JudgeConfig.model_validate(merged))
        frozen = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
        # what is calibrated is what ships: with weights as they are stored
        model.load_state_dict(stored_as(frozen | state, config.dtype), strict=True)
        return model.eval()

    def _part(self, name: str) -> StageWeights:
        from beholder.pipeline.stages.checkpoint_averaging import mean_state
        from beholder.pipeline.stages.stage_weights import StageWeights

        trained = stage_weights(self.context, name)
        if self.config.soup == 1:
            return trained
        return StageWeights(trained.config, mean_state(self._states(name, self.config.soup)))

    def _states(self, name: str, count: int) -> list[State]:
        from beholder.pipeline.stages.checkpoint_averaging import newest_states

        stage_folder = self.context.output(name, "model").parent
        return newest_states(stage_folder, count, with_backbone=self._stage(name).trains_backbone)

    def _comment_stages(self) -> list[str]:
        """The stage whose checkpoints write together; none without an ensemble."""
        if self.config.ensemble == 1:
            return []
        names = [n for n in self.config.heads if "comment" in self._stage(n).opinions]
        if not names:
            raise RecipeError(
                "An ensemble needs a comment head; there is none.",
                where=f"stages.{self.name}.ensemble",
                fix="Leave `ensemble` out, or use `soup`.",
            )
        return names

    def _stage(self, name: str) -> TrainStage:
        return self.context.recipe.stage(name, TrainStage)


def _merge(parts: list[StageWeights]) -> dict[str, Any]:
    """The config of one judge with the heads of all parts."""
    merged: dict[str, Any] = parts[0].config.model_dump()
    for part in parts[1:]:
        fields = part.config.model_dump()
        owned = [names for head, names in _FIELDS.items() if fields[head] is not None]
        merged |= {name: fields[name] for names in owned for name in names}
    return merged
