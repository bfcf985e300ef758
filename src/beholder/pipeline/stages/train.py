"""Stage `train`: fit one head or several, on frozen features or end to end on pictures."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import polars as pl
import torch

from beholder.data.annotations import AnnotationTable
from beholder.data.augment import Augmentation
from beholder.data.files import sha256_file
from beholder.data.vocabulary import Vocabulary
from beholder.errors import CheckpointError, RecipeError, VocabularyError
from beholder.features import device as devices
from beholder.features.backbones import Backbone
from beholder.features.store import FeatureStore
from beholder.features.workers import worker_count
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.models.teachers import Teacher
from beholder.pipeline.checks import Problems
from beholder.pipeline.context import RunContext
from beholder.pipeline.cost import Cost, folder_bytes, measured
from beholder.pipeline.recipe import ExportStage, TrainStage
from beholder.pipeline.stages.base import SmokeRun, Stage, StageResult
from beholder.pipeline.stages.learnt import with_comments, with_targets
from beholder.pipeline.stages.shared import (
    QUARANTINE,
    check_backbone,
    outlined_backbone,
    quarantined_keys,
    stage_backbone,
    stage_config,
    stage_fingerprint,
    trained_by,
)
from beholder.pipeline.stages.teachers import (
    CACHED,
    build_teacher,
    check_teacher,
    taught_source,
)
from beholder.pipeline.stages.trained import save_trained
from beholder.pipeline.stages.training_cost import training_cost, training_timings
from beholder.tasks import create_task
from beholder.tasks.base import Task
from beholder.tasks.build import check_task, judge_config
from beholder.tasks.config import AttributesTaskConfig, TaskConfig
from beholder.training import TrainConfig, train
from beholder.training.checkpoints import CHECKPOINTS, put_weights
from beholder.training.distributed import start
from beholder.training.loader import BatchSource
from beholder.training.sources import FeatureSource, PictureSource, Targets

log = logging.getLogger("beholder")

# of a smoke run; those on frozen features take milliseconds, and few of these tell nothing
SMOKE_STEPS, SMOKE_STEPS_OF_HEADS = 3, 12
COMPARED = 100  # rows with an opinion that two heads are compared on


class Train(Stage):
    """Trains the heads of the stage's task."""

    everywhere = True

    def __init__(self, name: str, config: TrainStage, context: RunContext) -> None:
        super().__init__(name, context)
        self.config = config

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
        config = self.config
        check_backbone(self.context, self.name, problems)
        with problems:
            backbone = outlined_backbone(self.context, self.name)
            with problems:
                check_task(config.task, self.context.rows("train"), backbone.pooled_dim)
            with problems:
                self._check_start(backbone)
        with problems:
            self._check_options()
        with problems:
            if self.training.sampling == "balanced":
                Targets(self.context.rows("train")).balanced_shares()
        check_teacher(self.context, self.name, problems)
        scores = "score" in config.task.opinions
        if scores and config.augment and not config.augment.preserves_quality:
            log.warning(
                "stages.%s.augment changes what the scores are of: colours, size or parts of a "
                "picture.",
                self.name,
            )
        if len(ways := _balancing(config.task, self.training)) > 1:
            log.warning(
                "stages.%s counts rare classes for more in several ways: %s. One is enough.",
                *(self.name, ", ".join(ways)),
            )

    def smoke_config(self) -> TrainStage:
        """A few steps, with as many checkpoints as an export stage puts together."""
        config = self.config
        wanted = max(
            [
                max(stage.soup, stage.ensemble)
                for stage in self.context.recipe.stages.values()
                if isinstance(stage, ExportStage) and self.name in stage.heads
            ],
            default=1,
        )
        steps = SMOKE_STEPS_OF_HEADS if config.features else SMOKE_STEPS
        training = config.training.model_copy(
            update={
                "epochs": 1, "max_steps": max(steps, wanted), "early_stop": None,
                "evaluate_every": 1, "evaluate_every_steps": None,
                "save_every_minutes": None, "save_every_epochs": None,
                "save_every_steps": 1 if wanted > 1 else None, "keep": max(1, wanted),
            }
        )  # fmt: skip
        teacher = config.teacher and config.teacher.model_copy(
            update={"epoch": None, "cached_views": config.teacher.cached_views and 1}
        )
        return config.model_copy(update={"training": training, "teacher": teacher})

    def cost(self, smoke: SmokeRun) -> Cost:
        """Steps, evaluations and checkpoints, each as often as there will be."""
        few = Train(self.name, self.config, smoke.context)
        _, (source,) = few.task_and_sources("train")
        assert source is not None, "a smoke run has training rows"
        rows = [row % len(source) for row in range(self.training.batch_size)]
        with measured() as loading:
            source.load(rows, epoch=0)
        teacher_views = (self._views or 0) * len(self.context.rows("train"))
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
            warm_start=self.config.start_from is not None,
            teacher_views=teacher_views,
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
        config = self._judge_config(self._table("train"))
        train_source: BatchSource | None = self._source("train", config)
        val_source = self._source("val", config)
        assert train_source is not None, "load_data has made sure of training rows"
        timings: dict[str, float] = {}
        if self._views:
            assert isinstance(train_source, PictureSource), "a teacher looks at pictures"
            with measured() as asking:
                train_source = taught_source(
                    self.context, self.name, train_source, config.classes, folder, self.training
                )
            asked = len(train_source) * self._views
            timings["teacher_seconds_per_view"] = asking.seconds / asked
            timings["teacher_bytes_per_view"] = folder_bytes(folder / CACHED) / asked
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
        if not start().first:
            return StageResult({})  # the first process writes for all
        weights = save_trained(task.model, folder, with_backbone=self.config.task.train_backbone)
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

    def _check_options(self) -> None:
        """What no single field can say.

        Raises:
            RecipeError: options that contradict each other.
        """
        config, where = self.config, f"stages.{self.name}"
        if config.features and config.task.train_backbone:
            raise RecipeError(
                "A backbone can't be trained on its own frozen features.",
                where=where,
                fix="Leave `features` out, or set task.train_backbone to false.",
            )
        if self.training.layer_decay is not None and not config.task.train_backbone:
            raise RecipeError(
                "There is no layer of a backbone to train at a lower rate.",
                where=f"{where}.training.layer_decay",
                fix="Leave it out, or set task.train_backbone to true.",
            )
        if config.features and config.augment:
            raise RecipeError(
                "Frozen features can't be augmented.",
                where=f"{where}.augment",
                fix="Leave `features` out to train on pictures, or `augment`.",
            )

    def _check_start(self, backbone: Backbone) -> None:
        """Make sure that the head is the one that the weights to start from belong to, as far as a
        few rows tell: both have the same.

        Raises:
            VocabularyError, CheckpointError: as `_check_same_head`.
        """
        if self.config.start_from is None:
            return
        start = self.context.recipe.stages[self.config.start_from]
        assert isinstance(start, TrainStage), "the recipe has made sure of it"
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
        _check_same_head(then, now, self._where_start)

    @property
    def _where_start(self) -> str:
        return f"stages.{self.name}.start_from"

    def _table(self, split: str) -> AnnotationTable:
        """The rows of a split; those to train on with what large judges say of them."""
        context, config = self.context, self.config
        table = context.data.table
        if split != "train":
            return table.subset(split)
        if config.targets:
            predictions = pl.read_parquet(context.output(config.targets, "predictions"))
            table = with_targets(table, predictions)
        if config.comments_from:
            written = pl.read_parquet(context.output(config.comments_from, "comments"))
            table = with_comments(table, written, instead=config.written == "instead")
        return table.subset(split)

    def _judge_config(
        self, table: AnnotationTable, task: TaskConfig | None = None, of: Backbone | None = None
    ) -> JudgeConfig:
        """The judge that a task trains, by default the stage's own, on the stage's backbone."""
        backbone = of or stage_backbone(self.context, self.name)
        return judge_config(
            task or self.config.task,
            table,
            backbone=stage_config(self.context, self.name),
            pooled_dim=backbone.pooled_dim,
            token_dim=backbone.token_dim,
        )

    def _teacher(self, config: JudgeConfig) -> Teacher | None:
        """The teacher, if the stage has one."""
        if self.config.teacher is None:
            return None
        seen = stage_backbone(self.context, self.name).transform
        teacher = build_teacher(self.context, self.name, seen, config.classes)
        return teacher.to(devices.choose_device())

    def _task(self, config: JudgeConfig, teacher: Teacher | None) -> Task:
        """The task over a judge with fresh weights, or those of `start_from`."""
        torch.manual_seed(self.training.seed)
        backbone = None
        if not self.config.features:
            shared = stage_backbone(self.context, self.name)
            backbone = copy.deepcopy(shared) if self.config.task.train_backbone else shared
        model = JudgeModel(config, backbone)
        start = self.config.start_from
        if start is not None:
            trained = trained_by(self.context, start)
            _check_same_head(trained.config, config, self._where_start)
            # the backbone, if the start has tuned one, is what `stage_backbone` has given
            own = {n: t for n, t in trained.state.items() if not n.startswith("backbone.")}
            put_weights(model, own, where=self._where_start)
        task = create_task(self.config.task, model, self._table("train"), teacher)
        task.warm_start = start is not None
        # after it is made: a task has buffers of its own
        task.to(devices.choose_device())
        return task

    def _source(self, split: str, config: JudgeConfig) -> FeatureSource | PictureSource | None:
        """Pictures of a split with what the task learns; None if the split has none."""
        table = self.context.chosen(self._table(split))
        if len(table) == 0:
            return None
        context, task = self.context, self.config.task
        common = _comment_options(config)
        if self.config.features:
            place = context.output(self.config.features, "store")
            common["quarantined"] = quarantined_keys(place / QUARANTINE)
            expected = stage_fingerprint(context, self.name)
            store = FeatureStore.open(place, expect_fingerprint=expected)
            return FeatureSource(store, table, tokens="comment" in task.opinions, **common)
        # what an extract stage has found unusable, also for the stages on pictures after it
        common["quarantined"] = quarantined_keys(context.folder / QUARANTINE)
        augmentation = None
        if split == "train" and self.config.augment:
            augmentation = Augmentation(self.config.augment)
        seed = self.training.seed
        return PictureSource(
            context.data.root,
            table,
            stage_backbone(context, self.name).transform,
            augmentation,
            seed=seed,
            **common,
        )


def _check_same_head(trained: JudgeConfig, config: JudgeConfig, where: str) -> None:
    """Make sure that a head's weights mean here what they meant where they were trained.

    Raises:
        VocabularyError: words have other ids here.
        CheckpointError: another head; names the first value that differs.
    """
    then, now = (one.model_dump(exclude={"score_range"}) for one in (trained, config))
    if then.pop("vocabulary") != now.pop("vocabulary"):
        raise VocabularyError(
            "The vocabulary is not the one that the weights were trained with.",
            where=where,
            fix="Give both stages the same training rows, task and min_count.",
        )
    for name in now:
        if then[name] == now[name]:
            continue
        old, new, inner = then[name], now[name], name
        if isinstance(old, dict) and isinstance(new, dict):
            inner = next(key for key in new if old.get(key) != new[key])
            old, new, inner = old.get(inner), new[inner], f"{name}.{inner}"
        raise CheckpointError(
            f"The weights are of another head: {inner} was {old}, here it is {new}.",
            where=where,
            fix="Give both stages the same task and head.",
        )


def _balancing(task: TaskConfig, training: TrainConfig) -> list[str]:
    """By which options rare classes count for more than they are frequent."""
    ways = ["training.sampling"] if training.sampling == "balanced" else []
    for part in task.parts.values():
        if isinstance(part, AttributesTaskConfig):
            ways += ["task.class_weights"] if part.weighs_classes else []
            ways += ["task.logit_adjustment"] if part.logit_adjustment else []
    return ways


def _comment_options(config: JudgeConfig) -> dict[str, Any]:
    """What a source needs to give comments; nothing for heads that learn none."""
    if config.comment is None:
        return {}
    assert config.vocabulary is not None, "a comment head always comes with a vocabulary"
    vocabulary = Vocabulary.from_dict(config.vocabulary)
    return {"vocabulary": vocabulary, "max_length": config.comment.max_length}
