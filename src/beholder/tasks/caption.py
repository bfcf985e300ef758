"""The caption task: cross-entropy of every comment, given the true words before each word.

A picture with several comments is encoded once; the published training encodes it once per
comment, which is most of a step.

Shape suffixes: B pictures, N tokens of a picture, C their features, D model width,
R comments of the batch, T positions of a comment, M words of all comments, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from beholder.data.vocabulary import Vocabulary
from beholder.decoding import beam_search
from beholder.errors import TrainingError
from beholder.judge.model import JudgeModel
from beholder.metrics.captions import evaluate_captions
from beholder.tasks.base import Batch, Direction, Task
from beholder.tasks.config import CaptionTaskConfig
from beholder.tasks.losses import caption_loss


class Comments(NamedTuple):
    """The comments of a batch, one row each, and where their words are."""

    picture_R: Tensor  # int64: the picture of each comment, rising
    input_RT: Tensor  # bos and the words, padded
    target_M: Tensor  # the words and eos of all comments, one after the other
    place_M: Tensor  # where in the flattened [R, T] each target is predicted


def pack_comments(comments: Sequence[Sequence[Sequence[int]]], pad: int) -> Comments:
    """Comments per picture, as token ids with both ends; targets are shifted by one word."""
    pictures = [index for index, own in enumerate(comments) for _ in own]
    rows = [torch.tensor(ids, dtype=torch.int64) for own in comments for ids in own]
    longest = max((len(ids) - 1 for ids in rows), default=0)
    input_RT = torch.full((len(rows), longest), pad, dtype=torch.int64)
    places = []
    for row, ids in enumerate(rows):
        input_RT[row, : len(ids) - 1] = ids[:-1]
        places.append(row * longest + torch.arange(len(ids) - 1))
    none = [torch.zeros(0, dtype=torch.int64)]
    return Comments(
        torch.tensor(pictures, dtype=torch.int64),
        input_RT,
        torch.cat([ids[1:] for ids in rows] or none),
        torch.cat(places or none),
    )


class CaptionTask(Task):
    """Fits the comment head. Units of the loss are words (with each comment's end)."""

    head: ClassVar[str] = "comment"
    directions: ClassVar[dict[str, Direction]] = {"CIDEr-D": "max", "loss": "min"}

    def __init__(self, model: JudgeModel, config: CaptionTaskConfig | None = None) -> None:
        self.config = config or CaptionTaskConfig()
        super().__init__(model, train_backbone=self.config.train_backbone)

    @property
    def vocabulary(self) -> Vocabulary:
        vocabulary = self.model.vocabulary
        assert vocabulary is not None, "a comment head always comes with a vocabulary"
        return vocabulary

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Nothing to fit; makes sure that there is something to learn.

        Raises:
            TrainingError: no picture has a comment.
        """
        if not any(own for batch in batches for own in batch["comments"]):
            raise TrainingError(
                "No training picture has a comment.",
                fix="Give the table comments, or leave the caption task out.",
            )

    def weight(self, batch: Batch) -> float:
        return float(sum(len(ids) - 1 for own in batch["comments"] for ids in own))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        total = self._summed_loss(batch, self.features(batch).tokens_BNC)
        return {"loss": total / max(self.weight(batch), 1.0)}

    def _summed_loss(self, batch: Batch, tokens_BNC: Tensor) -> Tensor:
        model = self.model.comment
        memory_BND = model.encode(tokens_BNC)
        packed = pack_comments(batch["comments"], self.vocabulary.pad)
        if not len(packed.target_M):
            return memory_BND.sum() * 0.0
        comments = Comments(*(part.to(tokens_BNC.device) for part in packed))
        states_RTD = model.decode_states(
            memory_BND, comments.input_RT, picture_index=comments.picture_R
        )
        # only real words go through the last layer, the widest of all
        logits_MV = model.output(states_RTD.flatten(0, 1)[comments.place_M])
        return caption_loss(logits_MV, comments.target_M, self.config.label_smoothing)

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The loss per word, and CIDEr-D (0 to 10, of written comments against the given ones,
        whose document frequencies are these pictures'); NaN without any comment.

        References are the words that the vocabulary kept: compare values of one vocabulary only.
        """
        total, words = 0.0, 0.0
        references: dict[str, list[str]] = {}
        written: dict[str, str] = {}
        for batch in batches:
            tokens_BNC = self.features(batch).tokens_BNC
            total += float(self._summed_loss(batch, tokens_BNC))
            words += self.weight(batch)
            comments = self.write(tokens_BNC)
            for key, own, comment in zip(batch["keys"], batch["comments"], comments, strict=True):
                if own:
                    references[key] = [self.vocabulary.decode(ids) for ids in own]
                    written[key] = comment
        if not references:
            return dict.fromkeys(self.directions, math.nan)
        scores = evaluate_captions(references, written, metrics=("CIDEr-D",))
        return {"loss": total / words, "CIDEr-D": scores.corpus["CIDEr-D"]}

    def write(self, tokens_BNC: Tensor) -> list[str]:
        """A comment for each picture, by beam search."""
        model = self.model.comment
        found = beam_search(
            model,
            tokens_BNC,
            beam_size=self.config.beam_size,
            max_length=model.config.max_length,
            bos=self.vocabulary.bos,
            eos=self.vocabulary.eos,
        )
        return [self.vocabulary.decode(hypotheses[0].tokens) for hypotheses in found]
