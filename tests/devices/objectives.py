"""Every objective over the sixteen pictures that lack opinions of every kind."""

from __future__ import annotations

from typing import Any

import torch
from sixteen import CLASSES, ROWS
from together import BODY, VOCABULARY, make_batch, make_joint, make_model

from beholder.data.annotations import AnnotationTable
from beholder.judge.model import JudgeModel
from beholder.tasks import create_task
from beholder.tasks.base import Task
from beholder.tasks.config import (
    AttributesTaskConfig,
    CaptionTaskConfig,
    DistillationTaskConfig,
    ScoreTaskConfig,
    SelfCriticalTaskConfig,
)

TUNED = {"train_backbone": True}
HEAD = {"head": BODY, "beam_sizes": (1, 3)}
CONFIGS: dict[str, Any] = {
    "score": ScoreTaskConfig(**TUNED),
    "attributes": AttributesTaskConfig(**TUNED, logit_adjustment=1.0),
    "distillation": DistillationTaskConfig(**TUNED, form="decoupled"),
    "distillation-labelled": DistillationTaskConfig(**TUNED, form="soft", labelled_only=True),
    "distillation-hard": DistillationTaskConfig(**TUNED, form="hard", labelled_only=True),
    "caption": CaptionTaskConfig(**TUNED, **HEAD),
    "self-critical": SelfCriticalTaskConfig(
        **TUNED, head=BODY, beam_sizes=(1,), samples=2, sample_length=6
    ),
}
NAMES = [*CONFIGS, "joint"]


class Sixteen:
    """The pictures, with what a teacher has said of them, as the loop asks for them."""

    def __init__(self) -> None:
        self.batch = make_batch()
        generator = torch.Generator().manual_seed(8)
        self.teacher = {
            name: torch.randn(ROWS, len(labels), generator=generator)
            for name, labels in CLASSES.items()
        }
        self.keys = self.batch["keys"]

    def __len__(self) -> int:
        return ROWS

    def load(self, indices: Any, epoch: int) -> dict[str, Any]:
        rows = [int(index) for index in indices]
        batch = self.batch
        return {
            "keys": [self.keys[row] for row in rows],
            "comments": [batch["comments"][row] for row in rows],
            "pixels": batch["pixels"][rows],
            "score": batch["score"][rows],
            "attributes": {name: values[rows] for name, values in batch["attributes"].items()},
            "teacher": {name: values[rows] for name, values in self.teacher.items()},
        }


def make(name: str) -> Task:
    """The task by its name, over a judge with fresh weights."""
    model: JudgeModel = make_model()
    if name == "joint":
        return make_joint(model)
    return create_task(CONFIGS[name], model, _table())


def _table() -> AnnotationTable:
    batch = make_batch()
    written = [[VOCABULARY.decode(ids) for ids in captions] for captions in batch["comments"]]
    return AnnotationTable.from_columns(batch["keys"], comments=written)
