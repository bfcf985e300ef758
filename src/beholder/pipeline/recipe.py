"""The schema of a recipe: data, backbone, stages. Strict: an unknown key is an error.

Importing this loads no torch, so that an unchanged recipe is recognised at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from beholder.data.augment import AugmentConfig
from beholder.data.formats.options import ReadOptions
from beholder.data.views import ViewConfig
from beholder.errors import RecipeError
from beholder.features.config import BackboneConfig
from beholder.judge.store.limits import MOST_WRITERS
from beholder.models.regressors.config import EnsembleConfig, RegressorConfig
from beholder.pipeline.overrides import apply_overrides, read_yaml, validate
from beholder.tasks.config import TaskConfig
from beholder.training.config import TrainConfig

# what a run has one of, and the only stage kind that makes it
_ALONE = {"export": "judge/", "evaluate": "evaluation/", "ship": "judge.beholder"}

FEWEST_FOLDS = 3  # of a cross stage: to learn from, to choose by, to predict

# stage name -> the kinds it may be of
Needs = dict[str, tuple[str, ...]]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Stage(Strict):
    def needs(self) -> Needs:
        """The stages that must have run before it."""
        raise NotImplementedError

    def judges(self) -> list[str]:
        """Folders and files of judges that are not of this run."""
        return []


class SplitConfig(Strict):
    """How rows without a split are divided: by content and group, see `data.splits`."""

    train: float = Field(0.8, ge=0, le=1, description="share of pictures to train on")
    val: float = Field(0.1, ge=0, le=1, description="share to choose checkpoints with")
    test: float = Field(0.1, ge=0, le=1, description="share held out for the evaluation")
    seed: int = Field(0, description="another seed, another division")


class DataConfig(Strict):
    """The table of opinions and the folder of pictures. Paths start at the current folder."""

    annotations: str = Field(description="path of the table, or `sample` for the embedded sample")
    images: str | None = Field(None, description="folder that the image keys start from")
    unlabelled: str | None = Field(
        None,
        description="folder in that of the pictures whose further pictures have no opinions, e.g. "
        "a challenge's test set: they are predicted, and only `targets` and `comments_from` of a "
        "train stage make it learn from them",
    )
    format: str = Field("auto", description="format of the table, see `beholder check --help`")
    columns: dict[str, str] = Field(
        {}, description="which column is what, e.g. score: mos_quality; the others are found"
    )
    header: bool | None = Field(
        None, description="whether the first line names the columns; null: found out"
    )
    separator: str | None = Field(
        None, description="between fields: a sign, or tab, comma, semicolon, pipe, blank"
    )
    encoding: str | None = Field(None, description="of a text file; null: found out")
    root: str | None = Field(
        None, description="what absolute names of pictures start with; null: `images`"
    )
    scale: tuple[float, float] | None = Field(
        None, description="lowest and highest score that raters could give"
    )
    lower_is_better: bool = Field(
        False, description="scores say how bad pictures are (a DMOS); they are turned over"
    )
    codebook: str | None = Field(
        None,
        description="file that names the attributes' values: JSON, YAML, or a CSV of attribute, "
        "value, name",
    )
    ratings: Literal["mean", "corrected"] = Field(
        "mean",
        description="what the score is where the table says who gave which: the ratings' mean, or "
        "the quality that is left when raters' biases are taken off and consistent raters count "
        "more, see docs/raters.md",
    )
    score_name: str = Field("MOS", description="what the scores are called in reports")
    split: SplitConfig = SplitConfig()
    near_duplicates: Literal["group", "warn", "ignore"] = Field(
        "group",
        description="pictures that look alike, where the split is made here: `group` keeps them in "
        "one split, `warn` only tells how many are in several, `ignore` does not look for them",
    )
    sample_photos: list[str] | None = Field(
        None, min_length=3, description="photographs of the embedded sample; null: all of them"
    )

    def read_options(self, images: Path) -> ReadOptions:
        """How the table is read."""
        return ReadOptions(
            format=self.format,
            columns=self.columns,
            header=self.header,
            separator=self.separator,
            encoding=self.encoding,
            root=self.root,
            images=images,
            score_range=self.scale,
            lower_is_better=self.lower_is_better,
            codebook=self.codebook,
        )


def _is_auto(value: str) -> bool:
    """Such a field is left out where a stage is written: hashes of stages stay as they were."""
    return value == "auto"


class ExtractStage(_Stage):
    """Run the backbone over all pictures once and keep its features."""

    kind: Literal["extract"]
    backbone: str | None = Field(
        None, description="one of the recipe's `backbones`; null: its `backbone`"
    )
    backbone_from: str | None = Field(
        None, description="train stage whose tuned backbone to use; null: one of the recipe's"
    )
    batch_size: int = Field(32, ge=1, description="pictures per forward pass")
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description="decoding processes; 0: none beside the main one; auto: by cores and device",
    )
    dtype: Literal["float16", "float32"] = "float16"
    flip: bool = Field(False, description="mirror every picture left to right")
    tokens: bool = Field(True, description="keep the tokens too, which only comments need")
    amp: Literal["auto", "off", "bf16", "fp16"] = Field(
        "auto",
        exclude_if=_is_auto,
        description="arithmetic of the forward pass; auto: bf16 or fp16 on accelerators, off on "
        "the CPU",
    )

    @model_validator(mode="after")
    def _one_backbone(self) -> ExtractStage:
        if self.backbone and self.backbone_from:
            raise ValueError("backbone and backbone_from: choose one")
        return self

    def needs(self) -> Needs:
        return {self.backbone_from: ("train",)} if self.backbone_from else {}


class TeacherConfig(Strict):
    """Whose opinions a student learns: several are averaged in probability."""

    stages: list[str] = Field([], description="earlier train stages")
    judges: list[str] = Field([], description="folders of judges")
    epoch: int | None = Field(
        None, ge=1, description="of the stages' training; null: each one's best weights"
    )
    cached_views: int | None = Field(
        None,
        ge=1,
        description="ask the teacher once, about so many augmented views of each picture, which "
        "come again after as many epochs; as many as epochs: the same as null, which asks it in "
        "every step",
    )

    @model_validator(mode="after")
    def _somebody(self) -> TeacherConfig:
        if not self.stages and not self.judges:
            raise ValueError("a teacher needs stages or judges")
        return self


class TrainStage(_Stage):
    """Fit a head, or several at once, on frozen features or, without `features`, end to end on
    pictures."""

    kind: Literal["train"]
    backbone: str | None = Field(
        None,
        description="one of the recipe's `backbones`; null: that of `features` or `start_from`, or "
        "without them the recipe's `backbone`",
    )
    features: str | None = Field(None, description="extract stage whose features to train on")
    start_from: str | None = Field(
        None,
        description="train stage whose weights to start from: its head's, and without `features` "
        "also the backbone that they belong to",
    )
    teacher: TeacherConfig | None = Field(None, description="of distillation alone")
    targets: str | None = Field(
        None,
        description="average stage whose predictions are learnt as scores where a picture has "
        "no score, also of `data.unlabelled`; null: only scored pictures count",
    )
    comments_from: str | None = Field(
        None,
        description="write stage whose comments are learnt too, also of `data.unlabelled`; null: "
        "people's alone",
    )
    written: Literal["beside", "instead"] = Field(
        "beside", description="of `comments_from`: one more comment of each picture, or the only"
    )
    task: TaskConfig
    augment: AugmentConfig | None = Field(None, description="only end to end")
    training: TrainConfig

    @model_validator(mode="after")
    def _one_backbone(self) -> TrainStage:
        if self.backbone and (self.features or self.start_from):
            raise ValueError("features and start_from bring their own backbone: name none")
        return self

    @model_validator(mode="after")
    def _teacher_teaches(self) -> TrainStage:
        if ("distillation" in self.task.kinds) != (self.teacher is not None):
            raise ValueError("the distillation task needs a teacher, and no other task takes one")
        if self.teacher and self.features:
            raise ValueError("a teacher looks at pictures: leave features out")
        if self.teacher and (self.teacher.cached_views or 1) > 1 and self.augment is None:
            raise ValueError("without `augment` all views are the same: set cached_views to 1")
        return self

    @model_validator(mode="after")
    def _mixing_has_labels(self) -> TrainStage:
        if self.augment is None or not self.augment.mixes:
            return self
        if set(self.task.opinions) != {"attributes"}:
            raise ValueError("mixup and cutmix blend labels: they are for attributes alone")
        if self.teacher and self.teacher.cached_views:
            raise ValueError("a teacher of mixed pictures must be asked live: no cached_views")
        return self

    @model_validator(mode="after")
    def _targets_are_scores(self) -> TrainStage:
        if self.targets and "score" not in self.task.opinions:
            raise ValueError("targets are scores: they are for tasks that learn scores")
        return self

    @model_validator(mode="after")
    def _comments_are_learnt(self) -> TrainStage:
        if self.comments_from and "comment" not in self.task.opinions:
            raise ValueError("comments_from is for tasks that learn comments")
        if self.written == "instead" and not self.comments_from:
            raise ValueError("written: instead of what? name a write stage as comments_from")
        return self

    def needs(self) -> Needs:
        wanted: Needs = {}
        if self.targets:
            wanted[self.targets] = ("average",)
        if self.comments_from:
            wanted[self.comments_from] = ("write",)
        if self.features:
            wanted[self.features] = ("extract",)
        if self.start_from:
            wanted[self.start_from] = ("train",)
        if self.teacher:
            wanted |= dict.fromkeys(self.teacher.stages, ("train",))
        return wanted

    def judges(self) -> list[str]:
        return self.teacher.judges if self.teacher else []


class WriteStage(_Stage):
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


class ExportStage(_Stage):
    """Put backbone and trained heads together as a judge."""

    kind: Literal["export"]
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
    views: ViewConfig = ViewConfig()
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
        description="cross stage whose errors tell how wide the scores' intervals are, where the "
        "split of `calibrate` holds few groups; null: the errors on that split",
    )
    level: float = Field(
        0.9, gt=0, lt=1, description="share of pictures that a score's interval covers"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> ExportStage:
        if self.soup > 1 and self.ensemble > 1:
            raise ValueError("soup and ensemble: choose one")
        if self.intervals and (self.soup > 1 or self.views != ViewConfig()):
            raise ValueError(
                "intervals: a cross stage's errors are those of one look with the best weights; "
                "leave soup and views out"
            )
        return self

    def needs(self) -> Needs:
        wanted: Needs = dict.fromkeys(self.heads, ("train",))
        return wanted | ({self.intervals: ("cross",)} if self.intervals else {})


class EvaluateStage(_Stage):
    """Judge a split and compare with the given opinions."""

    kind: Literal["evaluate"]
    judge: str = Field(description="export stage whose judge to evaluate")
    split: Literal["train", "val", "test"] = "test"
    batch_size: int = Field(32, ge=1, description="pictures judged at a time")
    resamples: int = Field(2000, ge=100, description="bootstrap resamples of the intervals")
    explain: int = Field(
        4, ge=0, description="pictures of the report with overlays of where opinions come from"
    )

    def needs(self) -> Needs:
        return {self.judge: ("export",)}


class GateStage(_Stage):
    """Fail unless the file of weights that ships is small enough, and is of one model."""

    kind: Literal["gate"]
    judge: str = Field(description="export stage whose judge is measured")
    megabytes: float = Field(25.0, gt=0, description="most that its weights may have; 1 MB is 10^6")

    def needs(self) -> Needs:
        return {self.judge: ("export",)}


class ShipStage(_Stage):
    """Write the judge as one file that needs no PyTorch, with all that it takes; fail unless it is
    small enough and says what the judge says."""

    kind: Literal["ship"]
    judge: str = Field(description="export stage whose judge ships")
    precision: Literal["fp32", "fp16", "int8"] = Field(
        "fp16", description="of the weights; the smaller, the more the opinions may change"
    )
    megabytes: float = Field(25.0, gt=0, description="most that the file may have; 1 MB is 10^6")
    split: Literal["train", "val", "test"] | None = Field(
        "val", description="whose pictures judge and file are compared on; null: the sample's"
    )

    def needs(self) -> Needs:
        return {self.judge: ("export",)}


class RegressStage(_Stage):
    """Fit a regressor of scores on the features of each store, and predict every store with every
    regressor of the same backbone, e.g. the plain and the mirrored pictures both ways."""

    kind: Literal["regress"]
    features: list[str] = Field(
        min_length=1, description="extract stages; a regressor is fitted on each"
    )
    regressor: RegressorConfig = EnsembleConfig()

    def needs(self) -> Needs:
        return dict.fromkeys(self.features, ("extract",))


class AverageStage(_Stage):
    """Average the predictions of regress stages; write them, with intervals."""

    kind: Literal["average"]
    of: list[str] = Field(min_length=1, description="regress stages")
    calibrate: Literal["val", "test"] | None = Field(
        None,
        description="split whose errors tell how wide the intervals are; null: no intervals",
    )
    level: float = Field(0.9, gt=0, lt=1, description="share of pictures that intervals cover")
    normalised: bool = Field(
        True,
        description="intervals are wider where the predictions that are averaged disagree; false: "
        "all of one width",
    )

    def needs(self) -> Needs:
        return dict.fromkeys(self.of, ("regress",))


class CrossStage(_Stage):
    """Train a stage anew without each of several parts of its pictures, and predict the part: what
    its scores are worth on pictures of other groups. Of heads on frozen features."""

    kind: Literal["cross"]
    of: str = Field(description="train stage with `features` that learns scores")
    folds: int = Field(
        5,
        ge=FEWEST_FOLDS,
        description="parts of the train and val splits, of whole groups, and as many trainings; "
        "fewer where there are fewer groups",
    )

    def needs(self) -> Needs:
        return {self.of: ("train",)}


StageConfig = Annotated[
    ExtractStage
    | TrainStage
    | ExportStage
    | EvaluateStage
    | GateStage
    | ShipStage
    | RegressStage
    | AverageStage
    | WriteStage
    | CrossStage,
    Field(discriminator="kind"),
]


class Recipe(Strict):
    """A whole recipe, see `recipes/demo.yaml`."""

    name: str = Field(pattern=r"^[\w][\w.-]*$", description="also the run folder's: runs/<name>")
    seed: int = Field(0, ge=0, lt=2**31, description="of initial weights, order and augmentation")
    data: DataConfig
    backbone: BackboneConfig | None = Field(
        None, description="of all stages that name none; null: every stage names one"
    )
    backbones: dict[str, BackboneConfig] = Field(
        {}, description="further backbones, by the names that stages use for them"
    )
    stages: dict[str, StageConfig] = Field(min_length=1)

    @field_validator("stages")
    @classmethod
    def _one_judge(cls, stages: dict[str, StageConfig]) -> dict[str, StageConfig]:
        for kind, folder in _ALONE.items():
            several = [name for name, stage in stages.items() if stage.kind == kind]
            if len(several) > 1:
                raise ValueError(
                    f"stages {', '.join(several)} all write {folder}: a run has one {kind} stage; "
                    "a train stage can be a teacher without one"
                )
        return stages

    @field_validator("stages")
    @classmethod
    def _names_are_folders(cls, stages: dict[str, Any]) -> dict[str, Any]:
        for name in stages:
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"stage name {name!r}: use letters, digits, - and _")
        return stages


def shipped_recipes() -> dict[str, Path]:
    """Recipes that come with Beholder, by name."""
    folder = Path(__file__).parents[1] / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """The recipe file of that path, or the shipped recipe of that name.

    Raises:
        RecipeError: neither exists; names the shipped ones.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if name not in shipped:
        raise RecipeError(
            "There is no such recipe file.",
            where=name,
            fix=f"Name a file, or one of the shipped recipes: {', '.join(shipped)}.",
        )
    return shipped[name]


def load_recipe(
    path: Path, overrides: Sequence[str] = (), *, data: Mapping[str, Any] | None = None
) -> Recipe:
    """Read a recipe file, apply `key=value` overrides, validate. A stage that an override sets to
    null is left out.

    Args:
        data: settings of `data`, which go over all others.

    Raises:
        RecipeError: with every mistake, unknown keys with the nearest known one.
    """
    raw = read_yaml(path)
    stages = raw.get("stages")
    written = {name for name, stage in stages.items() if stage} if isinstance(stages, dict) else ()
    raw = apply_overrides(raw, overrides, Recipe)
    if data and isinstance(raw.get("data"), dict):
        raw["data"] = {**raw["data"], **data}
    if isinstance(raw.get("stages"), dict):
        kept = {n: s for n, s in raw["stages"].items() if s is not None or n not in written}
        raw = {**raw, "stages": kept}
    return parse_recipe(raw, where=str(path))


def parse_recipe(raw: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate a recipe that is a mapping already."""
    return validate(Recipe, dict(raw), where)
