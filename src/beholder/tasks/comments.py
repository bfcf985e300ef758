"""What all objectives of the comment head share: packing, writing, evaluating comments.

Shape suffixes: B pictures, N tokens of a picture, C their features, R comments of the batch,
T positions of a comment, M words of all comments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from beholder.data.vocabulary import Vocabulary
from beholder.decoding import beam_search
from beholder.errors import TrainingError
from beholder.features.device import send
from beholder.judge.model import JudgeModel
from beholder.metrics.captions import evaluate_captions
from beholder.models.heads import Moments
from beholder.tasks.base import Batch, Direction, Task
from beholder.tasks.config import CommentTaskConfig
from beholder.tasks.losses import caption_loss

BAD_ENDINGS = frozenset({
    "a", "an", "and", "are", "as", "at", "but", "by", "for", "from", "her", "his", "in", "into",
    "is", "its", "of", "on", "or", "that", "the", "their", "this", "to", "very", "was", "were",
    "which", "with",
})  # fmt: skip
"""Words that no English sentence ends with; what rewards without grammar drive captions to."""


class Comments(NamedTuple):
    """The comments of a batch, one row each, and where their words are."""

    picture_R: Tensor  # int64, on the host: the picture of each comment, rising
    input_RT: Tensor  # bos and the words, padded
    target_M: Tensor  # the words and eos of all comments, one after the other
    position_M: Tensor  # where in the flattened [R, T] each target is predicted

    def sent(self, device: torch.device) -> Comments:
        """The same with its words on a device."""
        return Comments(self.picture_R, *(send(part, device) for part in self[1:]))


def pack_comments(comments: Sequence[Sequence[Sequence[int]]], pad: int) -> Comments:
    """Comments per picture, as token ids with both ends; targets are shifted by one word."""
    pictures = [index for index, group in enumerate(comments) for _ in group]
    rows = [torch.tensor(ids, dtype=torch.int64) for group in comments for ids in group]
    longest = max((len(ids) - 1 for ids in rows), default=0)
    input_RT = torch.full((len(rows), longest), pad, dtype=torch.int64)
    positions = []
    for row, ids in enumerate(rows):
        input_RT[row, : len(ids) - 1] = ids[:-1]
        positions.append(row * longest + torch.arange(len(ids) - 1))
    none = [torch.zeros(0, dtype=torch.int64)]
    return Comments(
        torch.tensor(pictures, dtype=torch.int64),
        input_RT,
        torch.cat([ids[1:] for ids in rows] or none),
        torch.cat(positions or none),
    )


def ends_badly(words: Sequence[str]) -> bool:
    """Whether a comment has no word, or its last is one that no sentence ends with."""
    return not words or words[-1] in BAD_ENDINGS


class CommentTask(Task):
    """An objective that fits the comment head."""

    heads = ("comment",)
    directions: Mapping[str, Direction] = {"CIDEr-D": "max", "loss": "min"}
    smoothing: float = 0.0
    """Label smoothing of the cross-entropy that `evaluate` reports."""

    def __init__(self, model: JudgeModel, config: CommentTaskConfig) -> None:
        self.beam_sizes = config.beam_sizes
        super().__init__(model, train_backbone=config.train_backbone)

    @property
    def vocabulary(self) -> Vocabulary:
        vocabulary = self.model.vocabulary
        assert vocabulary is not None, "a comment head always comes with a vocabulary"
        return vocabulary

    def preparation(self) -> CommentPreparation:
        return CommentPreparation(self)

    def tokens(self, batch: Batch) -> Tensor:
        """What the comment head reads of a batch, [B, N, C]."""
        return self.model.comment_tokens(self.features(batch))

    def summed_cross_entropy(self, batch: Batch, tokens_BNC: Tensor) -> Tensor:
        """Over all words of the batch's comments, in nats; each picture is encoded once."""
        model = self.model.comment
        memory_BND = model.encode(tokens_BNC)
        packed = pack_comments(batch["comments"], self.vocabulary.pad)
        if not len(packed.target_M):
            return memory_BND.sum() * 0.0
        comments = packed.sent(tokens_BNC.device)
        states_RTD = model.decode_states(
            memory_BND, comments.input_RT, picture_index=comments.picture_R
        )
        # only real words go through the last layer, the widest of all
        logits_MV = model.output(states_RTD.flatten(0, 1)[comments.position_M])
        return caption_loss(logits_MV, comments.target_M, self.smoothing)

    def metrics(self) -> CommentMetrics:
        return CommentMetrics(self)

    def merit(self, metrics: Mapping[str, float]) -> float:
        """CIDEr-D c as c / (1 + c): its 10 is far beyond what people reach."""
        cider = metrics["CIDEr-D"]
        return cider / (1 + cider)

    def write(self, tokens_BNC: Tensor) -> list[str]:
        """A comment for each picture, by beam search with the first beam size."""
        comments = self.search(tokens_BNC, self.beam_sizes[0])
        return [self.vocabulary.decode(ids) for ids in comments]

    def search(self, tokens_BNC: Tensor, beam_size: int) -> list[list[int]]:
        """The token ids of the best comment for each picture."""
        model = self.model.comment
        hypotheses = beam_search(
            model,
            tokens_BNC,
            beam_size=beam_size,
            max_length=model.config.max_length,
            bos=self.vocabulary.bos,
            eos=self.vocabulary.eos,
        )
        return [best_first[0].tokens for best_first in hypotheses]


class CommentPreparation:
    """Fits the standardisation of pooled features, if the head reads them."""

    def __init__(self, task: CommentTask) -> None:
        self._task = task
        self._standardise = None if task.warm_start else task.model.comment_input
        self._moments = Moments()
        self._any_comment = False

    def update(self, batch: Batch) -> None:
        self._any_comment = self._any_comment or any(batch["comments"])
        if self._standardise is not None:
            self._moments.update(self._task.pooled(batch))

    def compute(self) -> None:
        """Fit what `prepare` fits.

        Raises:
            TrainingError: no picture has a comment.
        """
        if self._standardise is not None and self._moments.count:
            self._standardise.fit(self._moments)
        if not self._any_comment:
            raise TrainingError(
                "No training picture has a comment.",
                fix="Give the table comments, or leave the comment stages out.",
            )


class _Observation(NamedTuple):
    """Of a batch: the cross-entropy of its comments and their words; by image key the target
    comments, and by beam size the written ones, as token ids."""

    loss: float
    words: int
    targets: dict[str, list[list[int]]]
    written: dict[int, dict[str, list[int]]]


class CommentMetrics:
    """Of pictures that have comments; NaN without any.

    loss: cross-entropy per word of the target comments. CIDEr-D (0 to 10): of written comments
    against the target ones, whose document frequencies are these pictures'; with the first beam
    size, and as `CIDEr-D@<beams>` with every other. bad_endings, no_end: shares of the first beam
    size's comments that end on a word like "the", or not at all.

    References are the words that the vocabulary kept: compare values of one vocabulary only.
    """

    def __init__(self, task: CommentTask) -> None:
        self._task = task
        self._observations: list[_Observation] = []

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        task, keys = self._task, batch["keys"]
        tokens_BNC = task.tokens(batch)
        loss = float(task.summed_cross_entropy(batch, tokens_BNC))
        written = {
            beam_size: dict(zip(keys, task.search(tokens_BNC, beam_size), strict=True))
            for beam_size in task.beam_sizes
        }
        targets = dict(zip(keys, batch["comments"], strict=True))
        self._observations.append(_Observation(loss, sum(words_of(batch)), targets, written))

    def compute(self) -> dict[str, float]:
        task, vocabulary = self._task, self._task.vocabulary
        total, words = 0.0, 0
        references: dict[str, list[str]] = {}
        written: dict[int, dict[str, list[int]]] = {size: {} for size in task.beam_sizes}
        for observation in task.gather_observations(self._observations):
            total, words = total + observation.loss, words + observation.words
            references |= {
                key: [vocabulary.decode(ids) for ids in comments]
                for key, comments in observation.targets.items()
                if comments
            }
            for beam_size, comments in written.items():
                comments |= observation.written[beam_size]
        if not references:
            return dict.fromkeys(task.directions, math.nan)
        metrics = {"loss": total / words}
        for beam_size, comments in written.items():
            texts = {key: vocabulary.decode(comments[key]) for key in references}
            scores = evaluate_captions(references, texts, metrics=("CIDEr-D",))
            name = "CIDEr-D" if beam_size == task.beam_sizes[0] else f"CIDEr-D@{beam_size}"
            metrics[name] = scores.corpus["CIDEr-D"]
        first = [written[task.beam_sizes[0]][key] for key in references]
        ended = [ids for ids in first if ids[-1] == vocabulary.eos]
        bad = sum(ends_badly(vocabulary.words(ids)) for ids in ended)
        metrics["bad_endings"] = bad / len(first)
        metrics["no_end"] = 1 - len(ended) / len(first)
        return metrics


def words_of(batch: Batch) -> list[int]:
    """How many words the comments of each picture have, counting each comment's end."""
    return [sum(len(ids) - 1 for ids in comments) for comments in batch["comments"]]
