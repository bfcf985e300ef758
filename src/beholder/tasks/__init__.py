"""Objectives over a judge: score, attributes, comments. The training loop is handed one.

Importing this loads no torch; `create_task` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from beholder.tasks.config import (
    AttributesTaskConfig,
    CaptionTaskConfig,
    ScoreTaskConfig,
    TaskConfig,
)

if TYPE_CHECKING:
    from beholder.judge.model import JudgeModel
    from beholder.tasks.base import Task

__all__ = [
    "AttributesTaskConfig",
    "CaptionTaskConfig",
    "ScoreTaskConfig",
    "TaskConfig",
    "create_task",
]


def create_task(config: TaskConfig, model: JudgeModel) -> Task:
    """The task that a config describes, over a judge that has its head."""
    from beholder.tasks.attributes import AttributesTask
    from beholder.tasks.caption import CaptionTask
    from beholder.tasks.score import ScoreTask

    if isinstance(config, ScoreTaskConfig):
        return ScoreTask(model, config)
    if isinstance(config, AttributesTaskConfig):
        return AttributesTask(model, config)
    return CaptionTask(model, config)
