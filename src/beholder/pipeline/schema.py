"""What stages know of a recipe: its data and backbones, and what every stage's configuration says.

No torch: the recipe and all stage files import this.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from beholder.data.formats.options import ReadOptions
from beholder.features.config import BackboneConfig

log = logging.getLogger("beholder")

# stage name -> the kinds that it may be of
Needs = dict[str, tuple[str, ...]]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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
        same = ("format", "columns", "header", "separator", "encoding", "root", "lower_is_better",
                "codebook")  # fmt: skip
        options = {name: getattr(self, name) for name in same}
        return ReadOptions(images=images, score_range=self.scale, **options)


class Origin(NamedTuple):
    """Where a backbone comes from."""

    backbone: str | None = None
    """Its name among the recipe's `backbones`; None: the recipe's `backbone`."""
    tuned_by: str | None = None
    """The train stage that has tuned it; None: as the recipe gives it."""

    def __str__(self) -> str:
        if self.tuned_by:
            return f"the backbone that {self.tuned_by!r} has trained"
        return f"the backbone {self.backbone!r}" if self.backbone else "the recipe's backbone"


class StageConfig(Strict):
    """What the recipe says of one stage; each kind's is in `pipeline/stages/<kind>.py`.

    Attributes:
        writes: the file or folder in the run that only one stage of the kind can write; None:
            a recipe may have several of them.
        keeps_score_name: whether the stage writes down what the scores are called.
        former_kind: the kind's name in older recipes and in the hashes of older runs.
        former_fields: the same of fields, by their names of today.
        unhashed: fields that do not change the result.
        content_fields: the fields that decide, with the backbone, what the stage's folder holds;
            None: all of them, and everything around the stage, do.
    """

    writes: ClassVar[str | None] = None
    keeps_score_name: ClassVar[bool] = False
    former_kind: ClassVar[str | None] = None
    former_fields: ClassVar[Mapping[str, str]] = {}
    unhashed: ClassVar[frozenset[str]] = frozenset()
    content_fields: ClassVar[frozenset[str] | None] = None

    kind: str

    @model_validator(mode="before")
    @classmethod
    def _read_former_fields(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for name, former in cls.former_fields.items():
            if former not in values:
                continue
            if name in values:
                raise ValueError(f"{former} is the old name of {name}: give one")
            log.warning("%s is now called %s; the next version only reads that.", former, name)
            values[name] = values.pop(former)
        return values

    def needs(self) -> Needs:
        """The stages that must have run before it."""
        raise NotImplementedError

    def judges(self) -> list[str]:
        """Folders and files of judges that are not of this run."""
        return []

    def origin(self, recipe: RecipeOutline) -> Origin | None:
        """The backbone that the stage starts with; None: it works on what other stages leave."""
        return None

    def check_origin(self, recipe: RecipeOutline, name: str) -> None:
        """Make sure that the features, weights and backbones that the stage puts together match.

        Raises:
            RecipeError: they do not.
        """

    @property
    def opinions(self) -> tuple[str, ...]:
        """The heads that the stage trains."""
        return ()

    @property
    def trains_backbone(self) -> bool:
        return False

    def checkpoints_of(self, stage: str) -> int:
        """How many of the newest checkpoints of a train stage this one needs; 0: none."""
        return 0


Config = TypeVar("Config", bound=StageConfig)


class RecipeOutline(Strict):
    """A recipe, whatever kinds of stages there are."""

    name: str = Field(pattern=r"^[\w][\w.-]*$", description="also the run folder's: runs/<name>")
    seed: int = Field(0, ge=0, lt=2**31, description="of initial weights, order and augmentation")
    data: DataConfig
    backbone: BackboneConfig | None = Field(
        None, description="of all stages that name none; null: every stage names one"
    )
    backbones: dict[str, BackboneConfig] = Field(
        {}, description="further backbones, by the names that stages use for them"
    )
    stages: Mapping[str, StageConfig]

    def stage(self, name: str, schema: type[Config]) -> Config:
        """A stage that is of this kind: `needs` has made sure of it."""
        config = self.stages[name]
        assert isinstance(config, schema), f"{name} is a {config.kind} stage"
        return config
