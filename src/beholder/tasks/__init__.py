"""Objectives over a judge: score, attributes, distillation, comments, or several at once. The loop
trains one.

Importing this loads no torch; `create_task` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from beholder.tasks.config import (
    AttributesTaskConfig,
    CaptionTaskConfig,
    DistillationTaskConfig,
    JointTaskConfig,
    ScoreTaskConfig,
    SelfCriticalTaskConfig,
    TaskConfig,
)

if TYPE_CHECKING:
    from beholder.data.annotations import AnnotationTable
    from beholder.judge.model import JudgeModel
    from beholder.models.teachers import Teacher
    from beholder.tasks.base import Task

__all__ = [
    "AttributesTaskConfig",
    "CaptionTaskConfig",
    "DistillationTaskConfig",
    "JointTaskConfig",
    "ScoreTaskConfig",
    "SelfCriticalTaskConfig",
    "TaskConfig",
    "create_task",
]


def create_task(
    config: TaskConfig,
    model: JudgeModel,
    table: AnnotationTable | None = None,
    teacher: Teacher | None = None,
) -> Task:
    """The task that a config describes, over a judge that has its heads.

    Args:
        table: the training rows, whose comments the self-critical task's reward compares with; the
            other tasks need none.
        teacher: the distillation task's, unless its batches bring the teacher's outputs.
    """
    task = _create(config, model, table, teacher)
    task.freeze_bn_stats = config.freeze_bn_stats
    return task


def _create(
    config: TaskConfig,
    model: JudgeModel,
    table: AnnotationTable | None,
    teacher: Teacher | None,
) -> Task:
    from beholder.tasks.attributes import AttributesTask
    from beholder.tasks.caption import CaptionTask
    from beholder.tasks.distillation import DistillationTask
    from beholder.tasks.joint import JointTask
    from beholder.tasks.score import ScoreTask
    from beholder.tasks.self_critical import SelfCriticalTask

    if isinstance(config, JointTaskConfig):
        shared = {"train_backbone": config.train_backbone}
        parts = {
            name: _create(part.model_copy(update=shared), model, table, teacher)
            for name, part in config.parts.items()
        }
        return JointTask(model, config, parts)
    if isinstance(config, ScoreTaskConfig):
        return ScoreTask(model, config)
    if isinstance(config, DistillationTaskConfig):
        return DistillationTask(model, config, teacher)
    if isinstance(config, AttributesTaskConfig):
        return AttributesTask(model, config)
    if isinstance(config, SelfCriticalTaskConfig):
        assert table is not None, "the reward needs the training comments"
        comments = dict(zip(table.keys, table.frame["comments"].to_list(), strict=True))
        return SelfCriticalTask(model, config, comments)
    return CaptionTask(model, config)
