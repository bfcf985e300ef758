"""The teacher of a train stage: put together from earlier stages and from judges' folders."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from torch import Tensor

from beholder.data.files import atomic_path
from beholder.data.transforms import EvalTransform
from beholder.errors import RecipeError
from beholder.features.backbones import Backbone, create_backbone
from beholder.features.precision import amp_dtype
from beholder.features.store import FeatureStore, StoreCard, is_store_of
from beholder.judge.model import JudgeConfig
from beholder.judge.store.folder import load_judge
from beholder.judge.store.headers import read_header
from beholder.models.heads import AttributeHeads
from beholder.models.teachers import Member, Teacher, check_classes, check_multi_label
from beholder.pipeline.checks import Problems
from beholder.pipeline.context import RunContext
from beholder.pipeline.cost import folder_bytes, measured
from beholder.pipeline.origins import backbone_after, config_of
from beholder.pipeline.schema import Origin
from beholder.pipeline.stages.checkpoint_averaging import State, epoch_state
from beholder.pipeline.stages.shared import stage_backbone, stage_weights
from beholder.pipeline.stages.stage_weights import part_of
from beholder.pipeline.stages.teacher_config import TeacherConfig
from beholder.training.cached_teacher_logits import (
    CachedTeacherSource,
    teacher_store_card,
    write_teacher_logits,
)
from beholder.training.config import TrainConfig
from beholder.training.distributed import start
from beholder.training.sources import PictureSource

Classes = Mapping[str, Sequence[str]]

CACHED = "teacher"  # in the stage's folder: the teacher's logits for the cached views


def build_teacher(
    context: RunContext,
    stage: str,
    teacher: TeacherConfig,
    transform: EvalTransform,
    classes: Classes,
) -> Teacher:
    """The teacher that a stage names.

    Args:
        transform: how the student sees pictures.
        classes: the student's.

    Raises:
        RecipeError: a teacher has no attributes, or other classes.
        CheckpointError: there is no checkpoint of the epoch asked for.
        JudgeError: a folder holds no judge.
    """
    members = []
    for name in teacher.stages:
        backbone, heads = _from_stage(context, stage, name, teacher.epoch, classes)
        members.append(Member(backbone, heads, transform))
    for folder in teacher.judges:
        backbone, heads = _from_judge(folder, f"stages.{stage}.teacher.judges", classes)
        members.append(Member(backbone, heads, transform))
    several = context.data.table.multi_label & classes.keys()
    return Teacher(members, classes, several)


def check_teacher(
    context: RunContext,
    stage: str,
    teacher: TeacherConfig,
    trainings: Mapping[str, TrainConfig],
    problems: Problems,
) -> None:
    """Note what recipe, table and judges' folders tell against the teacher that a stage names.

    That there are no attributes, that a judge has others, or that the checkpoint of the epoch asked
    for will not be there.

    Args:
        trainings: of the stages that the teacher names.
    """
    where = f"stages.{stage}.teacher"
    for name, training in trainings.items():
        with problems:
            if "attributes" not in context.recipe.stages[name].opinions:
                raise _no_attributes(f"Stage {name!r}", f"{where}.stages")
        with problems:
            _check_epoch(context, name, training, teacher.epoch, f"{where}.epoch")
    for folder in teacher.judges:
        with problems:
            header = read_header(Path(folder))
            if not header.classes:
                raise _no_attributes(f"The judge {folder}", f"{where}.judges")
            table, place = context.data.table, f"{where}.judges: {folder}"
            check_classes(header.classes, table.classes, place)
            several = table.multi_label & header.classes.keys()
            check_multi_label(header.multi_label, several, place)


def cached_teacher_source(
    context: RunContext,
    stage: str,
    config: TeacherConfig,
    source: PictureSource,
    classes: Classes,
    folder: Path,
    training: TrainConfig,
) -> tuple[CachedTeacherSource, dict[str, float]]:
    """The training pictures with the teacher's logits for the cached views; the main process asks
    the teacher, unless that was done before.

    Args:
        source: the pictures, as the student sees them.
        folder: the stage's own.
        training: the stage's, with its seed.

    Returns:
        The source, and what a view of a picture has taken.

    Raises:
        PictureError: a picture can't be read.
        BeholderError: as `build_teacher`.
    """
    assert config.cached_views is not None, "a teacher that is asked live"
    cached = folder / CACHED
    processes = start()
    with measured() as asking:
        if processes.is_main:
            teacher = build_teacher(context, stage, config, source.transform, classes).to(
                processes.device
            )
            views = config.cached_views
            arithmetic = amp_dtype(training.amp, processes.device, where="training.amp")
            _take_over(cached, teacher_store_card(teacher, source, views, arithmetic))
            write_teacher_logits(teacher, source, cached, views, training, processes)
        processes.broadcast(None)
    cached_source = CachedTeacherSource(source, FeatureStore.open(cached), classes)
    views = len(cached_source) * config.cached_views
    return cached_source, {
        "teacher_seconds_per_view": asking.seconds / views,
        "teacher_bytes_per_view": folder_bytes(cached) / views,
    }


def _take_over(cached: Path, card: StoreCard) -> None:
    """Start from the logits of the same teacher for the same views of an earlier student."""
    if cached.exists():
        return
    for other in sorted(cached.parent.parent.glob(f"*/{cached.name}")):
        if is_store_of(other, card):
            with atomic_path(cached) as temporary:
                shutil.copytree(other, temporary)
            return


def _from_stage(
    context: RunContext, stage: str, name: str, epoch: int | None, classes: Classes
) -> tuple[Backbone, AttributeHeads]:
    where = f"stages.{stage}.teacher"
    trained = stage_weights(context, name)
    check_classes(trained.config.classes, classes, where)
    state: State = trained.state
    if epoch is not None:
        stage_folder = context.output(name, "model").parent
        steps = context.record(name).metrics.get("steps_per_epoch")
        if steps is None:
            raise RecipeError(
                f"The stage {name} was run by an older version, which did not note its steps.",
                where=f"stages.{stage}.teacher.epoch",
                fix=f"Delete {stage_folder} and run the recipe again.",
            )
        state = epoch_state(
            stage_folder,
            epoch,
            round(steps),
            with_backbone=context.recipe.stages[name].trains_backbone,
        )
    return _tuned_backbone(context, name, state), _heads(trained.config, state)


def _tuned_backbone(context: RunContext, name: str, state: State) -> Backbone:
    """The backbone of a train stage: that of these weights, or the one it worked with."""
    tensors = part_of(state, "backbone.")
    if not tensors:
        return copy.deepcopy(stage_backbone(context, name))
    origin: Origin = backbone_after(context.recipe, name)
    backbone = create_backbone(config_of(context.recipe, origin), load_weights=False)
    backbone.load_state_dict(tensors, strict=True)
    return backbone


def _heads(config: JudgeConfig, state: Mapping[str, Tensor]) -> AttributeHeads:
    heads = AttributeHeads(
        config.pooled_dim, config.classes, config.attributes, config.attribute_inputs,
        config.multi_label,
    )  # fmt: skip
    heads.load_state_dict(part_of(state, "heads.attributes."), strict=True)
    return heads


def _from_judge(folder: str, where: str, classes: Classes) -> tuple[Backbone, AttributeHeads]:
    model = load_judge(Path(folder)).model
    if "attributes" not in model.heads:
        raise _no_attributes(f"The judge {folder}", where)
    check_classes(model.classes, classes, f"{where}: {folder}")
    assert model.backbone is not None, "a judge is saved with its backbone"
    return model.backbone, cast(AttributeHeads, model.heads["attributes"])


def _check_epoch(
    context: RunContext, name: str, training: TrainConfig, epoch: int | None, where: str
) -> None:
    """Make sure, before anything is trained, that the epoch's checkpoint will be there.

    Raises:
        RecipeError: it will not.
    """
    if epoch is None:
        return
    # pictures that turn out to be unusable make an epoch shorter, and nothing else
    pictures = len(context.rows("train"))
    steps = -(-pictures // (training.batch_size * training.accumulate))
    last = min(training.epochs * steps, training.max_steps or training.epochs * steps)
    saved = training.save_every_epochs and epoch % training.save_every_epochs == 0
    newer = (last - epoch * steps) // ((training.save_every_epochs or 1) * steps)
    if epoch * steps > last or not saved or newer >= training.keep:
        raise RecipeError(
            f"There will be no checkpoint of epoch {epoch} of {name!r}.",
            where=where,
            fix=f"Set its training.save_every_epochs to 1 and training.keep to {training.epochs}; "
            f"it trains {last / steps:g} epochs.",
        )


def _no_attributes(what: str, where: str) -> RecipeError:
    return RecipeError(
        f"{what} gives no attributes, which a teacher is asked for.",
        where=where,
        fix="Name a train stage of attributes, or a judge with an attribute head.",
    )
