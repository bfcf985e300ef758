"""Stage `train`: fit one head or several, on frozen features or end to end on pictures."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from beholder.data.annotations import AnnotationTable
from beholder.data.augment import AugmentConfig
from beholder.data.files import sha256_file
from beholder.errors import RecipeError
from beholder.features import device as devices
from beholder.pipeline.checks import Problems
from beholder.pipeline.cost import Cost, measured
from beholder.pipeline.origins import backbone_after, backbone_of, check_named, check_tuned
from beholder.pipeline.schema import Needs, Origin, RecipeOutline, StageConfig
from beholder.pipeline.stages.base import SmokeRun, Stage, StageResult
from beholder.pipeline.stages.pseudo_labels import with_comments, with_targets
from beholder.pipeline.stages.shared import (
    check_backbone,
    outlined_backbone,
    stage_backbone,
    stage_config,
    stage_weights,
)
from beholder.pipeline.stages.teacher_config import TeacherConfig
from beholder.pipeline.stages.training_checks import balancing_options, check_options
from beholder.pipeline.stages.training_cost import smoke_training, training_cost, training_timings
from beholder.tasks.config import TaskConfig
from beholder.training.config import TrainConfig

if TYPE_CHECKING:
    from beholder.features.backbones import Backbone
    from beholder.judge.model import JudgeConfig
    from beholder.models.teachers import Teacher
    from beholder.tasks.base import Task
    from beholder.training.loader import BatchSource
    from beholder.training.sources import FeatureSource, PictureSource

log = logging.getLogger("beholder")

# of a smoke run; those on frozen features take milliseconds, and few of these tell nothing
SMOKE_STEPS, SMOKE_STEPS_OF_HEADS = 3, 12
COMPARED = 100  # rows with an opinion that two heads are compared on


class TrainStage(StageConfig):
    """Fit a head, or several, on frozen features or, without `features`, end to end on pictures."""

    former_fields: ClassVar[Mapping[str, str]] = {"warm_start": "start_from"}

    kind: Literal["train"]
    backbone: str | None = Field(
        None,
        description="one of the recipe's `backbones`; null: that of `features` or `warm_start`, or "
        "without them the recipe's `backbone`",
    )
    backbone_from: str | None = Field(
        None,
        description="train stage whose tuned backbone to use, with heads of this stage's own",
    )
    features: str | None = Field(None, description="extract stage whose features to train on")
    warm_start: str | None = Field(
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
        if (self.backbone or self.backbone_from) and (self.features or self.warm_start):
            raise ValueError("features and warm_start bring their own backbone: name none")
        if self.backbone and self.backbone_from:
            raise ValueError("backbone and backbone_from: choose one")
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
    def _pseudo_labels_are_learnt(self) -> TrainStage:
        if self.targets and "score" not in self.task.opinions:
            raise ValueError("targets are scores: they are for tasks that learn scores")
        if self.comments_from and "comment" not in self.task.opinions:
            raise ValueError("comments_from is for tasks that learn comments")
        if self.written == "instead" and not self.comments_from:
            raise ValueError("written: instead of what? name a write stage as comments_from")
        return self

    def needs(self) -> Needs:
        needed: Needs = {}
        if self.targets:
            needed[self.targets] = ("average",)
        if self.comments_from:
            needed[self.comments_from] = ("write",)
        if self.features:
            needed[self.features] = ("extract",)
        needed |= {start: ("train",) for start in (self.warm_start, self.backbone_from) if start}
        if self.teacher:
            needed |= dict.fromkeys(self.teacher.stages, ("train",))
        return needed

    def judges(self) -> list[str]:
        return self.teacher.judges if self.teacher else []

    @property
    def opinions(self) -> tuple[str, ...]:
        return self.task.opinions

    @property
    def trains_backbone(self) -> bool:
        return self.task.train_backbone

    def origin(self, recipe: RecipeOutline) -> Origin:
        if self.features:
            return backbone_of(recipe, self.features)
        if start := self.warm_start or self.backbone_from:
            return backbone_after(recipe, start)
        return Origin(self.backbone)

    def check_origin(self, recipe: RecipeOutline, name: str) -> None:
        check_named(recipe, name, self.backbone)
        check_tuned(recipe, name, self.backbone_from)
        if not self.features or not self.warm_start:
            return
        extracted = backbone_of(recipe, self.features)
        trained = backbone_after(recipe, self.warm_start)
        if extracted != trained:
            raise RecipeError(
                f"The features of {self.features!r} are of {extracted}, but the weights of "
                f"{self.warm_start!r} belong to {trained}.",
                where=f"stages.{name}.warm_start",
                fix="Extract features with the backbone that the weights were trained with "
                "(backbone_from), and train on those.",
            )


class Train(Stage[TrainStage]):
    """Trains the heads of the stage's task."""

    schema = TrainStage
    everywhere = True

    @property
    def training(self) -> TrainConfig:
        """The stage's training; its seed is the recipe's unless the stage has its own."""
        training = self.config.training
        if "seed" in training.model_fields_set:
            return training
        return training.model_copy(update={"seed": self.context.recipe.seed})

    @property
    def _views(self) -> int | None:
        """Views of a picture that a teacher is asked about beforehand; None: it is asked live."""
        return self.config.teacher.cached_views if self.config.teacher else None

    def check(self, problems: Problems) -> None:
        from beholder.tasks.build import check_task
        from beholder.training.sources import Targets

        config = self.config
        check_backbone(self.context, self.name, problems)
        with problems:
            backbone = outlined_backbone(self.context, self.name)
            with problems:
                check_task(config.task, self.context.rows("train"), backbone.pooled_dim)
            with problems:
                self._check_start(backbone)
        with problems:
            check_options(
                f"stages.{self.name}", config.task, config.features, config.augment, self.training
            )
        with problems:
            if self.training.sampling == "balanced":
                Targets(self.context.rows("train")).balanced_shares()
        if config.teacher:
            self._check_teacher(config.teacher, problems)
        scores = "score" in config.task.opinions
        if scores and config.augment and not config.augment.preserves_quality:
            log.warning(
                "stages.%s.augment changes what the scores are of: colours, size or parts of a "
                "picture.",
                self.name,
            )
        if len(ways := balancing_options(config.task, self.training)) > 1:
            log.warning(
                "stages.%s counts rare classes for more in several ways: %s. One is enough.",
                *(self.name, ", ".join(ways)),
            )

    def smoke_config(self) -> TrainStage:
        """A few steps, with as many checkpoints as other stages put together."""
        config = self.config
        wanted = max(
            stage.checkpoints_of(self.name) for stage in self.context.recipe.stages.values()
        )
        steps = SMOKE_STEPS_OF_HEADS if config.features else SMOKE_STEPS
        training = smoke_training(config.training, max(steps, wanted), checkpoints=wanted)
        teacher = config.teacher and config.teacher.model_copy(
            update={"epoch": None, "cached_views": config.teacher.cached_views and 1}
        )
        return config.model_copy(update={"training": training, "teacher": teacher})

    def cost(self, smoke: SmokeRun) -> Cost:
        """Steps, evaluations and checkpoints, each as often as there will be."""
        from beholder.features.workers import worker_count

        few = Train(self.name, self.config, smoke.context)
        _, (source,) = few.task_and_sources("train")
        assert source is not None, "a smoke run has training rows"
        rows = [row % len(source) for row in range(self.training.batch_size)]
        with measured() as loading:
            source.load(rows, epoch=0)
        return training_cost(
            smoke,
            self.training,
            trained=len(self.context.rows("train")),
            validated=len(self.context.rows("val")),
            loading=loading.seconds * self.training.accumulate,
            workers=worker_count(
                self.training.workers,
                devices.choose_device(),
                decodes=self.config.features is None,
            ),
            warm_start=self.config.warm_start is not None,
            teacher_views=(self._views or 0) * len(self.context.rows("train")),
        )

    def task_and_sources(
        self, *splits: str
    ) -> tuple[Task, list[FeatureSource | PictureSource | None]]:
        """The task with fresh weights, and the pictures of splits; None: the split has none."""
        config = self._judge_config(self._table("train"))
        task = self._task(config, self._teacher(config))
        return task, [self._source(split, config) for split in splits]

    def full_sized(self, source: BatchSource) -> BatchSource:
        """The pictures to train on; in a smoke run so many that its steps are as large as they
        will be."""
        pictures = len(self._table("train"))
        per_step = min(pictures, self.training.batch_size * self.training.accumulate)
        steps = min(pictures // per_step, self.training.max_steps or 1)
        return self.context.full_sized(source, steps * per_step)

    def full_sized_validation(self, source: BatchSource | None) -> BatchSource | None:
        """The pictures to validate with; in a smoke run a batch of them, if there will be as
        many: what an evaluation takes by itself is not to be taken for what each picture takes."""
        if source is None:
            return None
        pictures = len(self._table("val"))
        return self.context.full_sized(
            source, max(len(source), min(pictures, self.training.batch_size))
        )

    def run(self, folder: Path) -> StageResult:
        from beholder.pipeline.stages.stage_weights import save_weights
        from beholder.pipeline.stages.teachers import cached_teacher_source
        from beholder.training import train
        from beholder.training.checkpoints import CHECKPOINTS
        from beholder.training.distributed import start
        from beholder.training.sources import PictureSource

        config = self._judge_config(self._table("train"))
        train_source: BatchSource | None = self._source("train", config)
        val_source = self._source("val", config)
        assert train_source is not None, "load_data has made sure of training rows"
        timings: dict[str, float] = {}
        if self._views:
            assert self.config.teacher and isinstance(train_source, PictureSource)
            train_source, timings = cached_teacher_source(
                self.context, self.name, self.config.teacher,
                train_source, config.classes, folder, self.training,
            )  # fmt: skip
        task = self._task(config, None if self._views else self._teacher(config))
        train_source = self.full_sized(train_source)
        result = train(
            task,
            train_source,
            self.full_sized_validation(val_source),
            self.training,
            self.context.folder,
            stage=self.name,
            checkpoint_dir=folder / CHECKPOINTS,
        )
        if not start().is_main:
            return StageResult({})  # the first process writes for all
        weights = save_weights(task.model, folder, with_backbone=self.config.trains_backbone)
        metrics: dict[str, float] = {
            "steps": result.steps, "steps_per_epoch": result.steps_per_epoch
        }  # fmt: skip
        if result.best:
            metrics |= {name: round(v, 6) for name, v in result.best.metrics.items()}
        return StageResult(
            {"model": (weights, sha256_file(weights))},
            metrics,
            timings=timings | training_timings(result),
        )

    def _check_teacher(self, teacher: TeacherConfig, problems: Problems) -> None:
        from beholder.pipeline.stages.teachers import check_teacher

        recipe = self.context.recipe
        trainings = {name: recipe.stage(name, TrainStage).training for name in teacher.stages}
        check_teacher(self.context, self.name, teacher, trainings, problems)

    def _check_start(self, backbone: Backbone) -> None:
        """Make sure that the head is the one that the weights to start from belong to, as far as a
        few rows tell: both have the same.

        Raises:
            VocabularyError, CheckpointError: as `check_same_head`.
        """
        from beholder.pipeline.stages.training_sources import check_same_head

        if self.config.warm_start is None:
            return
        start = self.context.recipe.stage(self.config.warm_start, TrainStage)
        table = self.context.rows("train")
        keys = [
            key
            for opinion in self.config.task.opinions
            for key in table.with_opinion(opinion).keys[:COMPARED]
        ]
        few = table.with_frame(table.frame.filter(pl.col("image").is_in(keys)))
        then, now = (
            self._judge_config(few, task, backbone) for task in (start.task, self.config.task)
        )
        check_same_head(then, now, f"stages.{self.name}.warm_start")

    def _table(self, split: str) -> AnnotationTable:
        """The rows of a split; those to train on with what large judges say of them."""
        context, config = self.context, self.config
        table = context.data.table
        if split == "train" and config.targets:
            targets = pl.read_parquet(context.output(config.targets, "predictions"))
            table = with_targets(table, targets)
        if split == "train" and config.comments_from:
            written = pl.read_parquet(context.output(config.comments_from, "comments"))
            table = with_comments(table, written, instead=config.written == "instead")
        return table.subset(split)

    def _judge_config(
        self, table: AnnotationTable, task: TaskConfig | None = None, of: Backbone | None = None
    ) -> JudgeConfig:
        """The judge that a task trains, by default the stage's own, on the stage's backbone."""
        from beholder.tasks.build import judge_config

        backbone = of or stage_backbone(self.context, self.name)
        return judge_config(
            task or self.config.task,
            table,
            backbone=stage_config(self.context, self.name),
            pooled_dim=backbone.pooled_dim,
            token_dim=backbone.token_dim,
            score_range=self.context.score_range,
        )

    def _teacher(self, config: JudgeConfig) -> Teacher | None:
        """The teacher, if the stage has one."""
        if self.config.teacher is None:
            return None
        from beholder.pipeline.stages.teachers import build_teacher

        transform = stage_backbone(self.context, self.name).transform
        teacher = build_teacher(
            self.context, self.name, self.config.teacher, transform, config.classes
        )
        return teacher.to(devices.choose_device())

    def _task(self, config: JudgeConfig, teacher: Teacher | None) -> Task:
        """The task over a judge with fresh weights, or those of `warm_start`."""
        import torch

        from beholder.judge.model import JudgeModel
        from beholder.pipeline.stages.training_sources import check_same_head
        from beholder.tasks import create_task
        from beholder.training.checkpoints import put_weights

        torch.manual_seed(self.training.seed)
        backbone = None
        if not self.config.features:
            shared = stage_backbone(self.context, self.name)
            backbone = copy.deepcopy(shared) if self.config.task.train_backbone else shared
        model = JudgeModel(config, backbone)
        start = self.config.warm_start
        if start is not None:
            trained = stage_weights(self.context, start)
            check_same_head(trained.config, config, f"stages.{self.name}.warm_start")
            # the backbone, if the start has tuned one, is what `stage_backbone` has given
            heads = {n: t for n, t in trained.state.items() if not n.startswith("backbone.")}
            put_weights(model, heads, where=f"stages.{self.name}.warm_start")
        task = create_task(self.config.task, model, self._table("train"), teacher)
        task.warm_start = start is not None
        # after it is made: a task has buffers of its own
        task.to(devices.choose_device())
        return task

    def _source(self, split: str, config: JudgeConfig) -> FeatureSource | PictureSource | None:
        """Pictures of a split with what the task learns; None if the split has none."""
        from beholder.pipeline.stages.training_sources import feature_source, picture_source

        table = self.context.chosen(self._table(split))
        if len(table) == 0:
            return None
        if self.config.features:
            return feature_source(self.context, self.name, self.config.features, table, config)
        augment = self.config.augment if split == "train" else None
        seed = self.training.seed
        return picture_source(self.context, self.name, table, config, augment=augment, seed=seed)
