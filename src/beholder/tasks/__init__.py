"""Objectives over a judge: score, attributes, comments. The training loop is handed one.

Importing this loads no torch; `create_task` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from beholder.tasks.config import (
    AttributesTaskConfig,
    CaptionTaskConfig,
    ScoreTaskConfig,
    SelfCriticalTaskConfig,
    TaskConfig,
)

if TYPE_CHECKING:
    from beholder.data.annotations import AnnotationTable
    from beholder.judge.model import JudgeModel
    from beholder.tasks.base import Task

__all__ = [
    "AttributesTaskConfig",
    "CaptionTaskConfig",
    "ScoreTaskConfig",
    "SelfCriticalTaskConfig",
    "TaskConfig",
    "create_task",
]


def create_task(
    config: TaskConfig, model: JudgeModel, table: AnnotationTable | None = None
) -> Task:
    """The task that a config describes, over a judge that has its head.

    Args:
        table: the training rows, whose comments are what the self-critical task's reward compares
            with; the other tasks need none.
    """
    from beholder.tasks.attributes import AttributesTask
    from beholder.tasks.caption import CaptionTask
    from beholder.tasks.score import ScoreTask
    from beholder.tasks.self_critical import SelfCriticalTask

    if isinstance(config, ScoreTaskConfig):
        return ScoreTask(model, config)
    if isinstance(config, AttributesTaskConfig):
        return AttributesTask(model, config)
    if isinstance(config, SelfCriticalTaskConfig):
        assert table is not None, "the reward needs the training comments"
        comments = dict(zip(table.keys, table.frame["comments"].to_list(), strict=True))
        return SelfCriticalTask(model, config, comments)
    return CaptionTask(model, config)
