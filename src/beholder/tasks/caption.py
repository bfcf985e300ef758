"""The caption task: cross-entropy of every comment, given the true words before each word.

A picture with several comments is encoded once; the published training encodes it once per
comment, which is most of a step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from beholder.judge.model import JudgeModel
from beholder.tasks.base import Batch
from beholder.tasks.comments import CommentTask, words_of
from beholder.tasks.config import CaptionTaskConfig


class CaptionTask(CommentTask):
    """Fits the comment head. Units of the loss are words (with each comment's end)."""

    def __init__(self, model: JudgeModel, config: CaptionTaskConfig | None = None) -> None:
        config = config or CaptionTaskConfig()
        super().__init__(model, config)
        self.smoothing = config.label_smoothing

    def units(self, batch: Batch) -> Tensor:
        return torch.tensor(words_of(batch))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        total = self.summed_cross_entropy(batch, self.tokens(batch))
        return {"loss": total / max(sum(words_of(batch)), 1)}
