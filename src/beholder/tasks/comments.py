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
from beholder.tasks.base import Batch, Collector, Direction, Task
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
    place_M: Tensor  # where in the flattened [R, T] each target is predicted

    def sent(self, device: torch.device) -> Comments:
        """The same with its words on a device."""
        return Comments(self.picture_R, *(send(part, device) for part in self[1:]))


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


def ends_badly(words: Sequence[str]) -> bool:
    """Whether a comment has no word, or its last is one that no sentence ends with."""
    return not words or words[-1] in BAD_ENDINGS


class CommentTask(Task):
    """An objective that fits the comment head."""

    heads = ("comment",)
    directions: Mapping[str, Direction] = {"CIDEr-D": "max", "loss": "min"}
    smoothing: float = 0.0
    """Of the cross-entropy that `evaluate` reports."""

    def __init__(self, model: JudgeModel, config: CommentTaskConfig) -> None:
        self._beam_sizes = config.beam_sizes
        super().__init__(model, train_backbone=config.train_backbone)

    @property
    def vocabulary(self) -> Vocabulary:
        vocabulary = self.model.vocabulary
        assert vocabulary is not None, "a comment head always comes with a vocabulary"
        return vocabulary

    def preparing(self) -> Collector[None]:
        """Fit the standardisation of pooled features, if the head reads them.

        Raises:
            TrainingError: no picture has a comment.
        """
        moments, any_comment = Moments(), False
        standardise = None if self.warm_start else self.model.comment_input
        while (batch := (yield)) is not None:
            any_comment = any_comment or any(batch["comments"])
            if standardise is not None:
                moments.update(self.pooled(batch))
        if standardise is not None and moments.count:
            standardise.fit(moments)
        if not any_comment:
            raise TrainingError(
                "No training picture has a comment.",
                fix="Give the table comments, or leave the comment stages out.",
            )

    def tokens(self, batch: Batch) -> Tensor:
        """What the comment head reads of a batch, [B, N, C]."""
        return self.model.comment_tokens(self.features(batch))

    def summed_cross_entropy(self, batch: Batch, tokens_BNC: Tensor) -> Tensor:
        """Over all words of the given comments, in nats; each picture is encoded once."""
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
        logits_MV = model.output(states_RTD.flatten(0, 1)[comments.place_M])
        return caption_loss(logits_MV, comments.target_M, self.smoothing)

    @torch.no_grad()
    def evaluating(self) -> Collector[dict[str, float]]:
        """Of pictures that have comments; NaN without any.

        loss: cross-entropy per word of the given comments. CIDEr-D (0 to 10): of written comments
        against the given ones, whose document frequencies are these pictures'; with the first beam
        size, and as `CIDEr-D@<beams>` with every other. bad_endings, no_end: shares of the first
        beam size's comments that end on a word like "the", or not at all.

        References are the words that the vocabulary kept: compare values of one vocabulary only.
        """
        noted = []
        while (batch := (yield)) is not None:
            tokens_BNC = self.tokens(batch)
            loss = float(self.summed_cross_entropy(batch, tokens_BNC))
            given = dict(zip(batch["keys"], batch["comments"], strict=True))
            found = {
                beams: dict(zip(batch["keys"], self._search(tokens_BNC, beams), strict=True))
                for beams in self._beam_sizes
            }
            noted.append((loss, sum(words_of(batch)), given, found))
        total, words = 0.0, 0
        references: dict[str, list[str]] = {}
        written: dict[int, dict[str, list[int]]] = {beams: {} for beams in self._beam_sizes}
        for loss, count, given, found in self.gather_observations(noted):
            total, words = total + loss, words + count
            references |= {
                key: [self.vocabulary.decode(ids) for ids in own]
                for key, own in given.items()
                if own
            }
            for beams, comments in written.items():
                comments |= found[beams]
        if not references:
            return dict.fromkeys(self.directions, math.nan)
        metrics = {"loss": total / words}
        for beams, comments in written.items():
            texts = {key: self.vocabulary.decode(comments[key]) for key in references}
            scores = evaluate_captions(references, texts, metrics=("CIDEr-D",))
            name = "CIDEr-D" if beams == self._beam_sizes[0] else f"CIDEr-D@{beams}"
            metrics[name] = scores.corpus["CIDEr-D"]
        first = [written[self._beam_sizes[0]][key] for key in references]
        ended = [ids for ids in first if ids[-1] == self.vocabulary.eos]
        bad = sum(ends_badly(self.vocabulary.words(ids)) for ids in ended)
        metrics["bad_endings"] = bad / len(first)
        metrics["no_end"] = 1 - len(ended) / len(first)
        return metrics

    def merit(self, metrics: Mapping[str, float]) -> float:
        """CIDEr-D c as c / (1 + c): its 10 is far beyond what people reach."""
        cider = metrics["CIDEr-D"]
        return cider / (1 + cider)

    def write(self, tokens_BNC: Tensor) -> list[str]:
        """A comment for each picture, by beam search with the first beam size."""
        found = self._search(tokens_BNC, self._beam_sizes[0])
        return [self.vocabulary.decode(ids) for ids in found]

    def _search(self, tokens_BNC: Tensor, beams: int) -> list[list[int]]:
        model = self.model.comment
        found = beam_search(
            model,
            tokens_BNC,
            beam_size=beams,
            max_length=model.config.max_length,
            bos=self.vocabulary.bos,
            eos=self.vocabulary.eos,
        )
        return [hypotheses[0].tokens for hypotheses in found]


def words_of(batch: Batch) -> list[int]:
    """Words of the comments of each picture, each comment's end among them."""
    return [sum(len(ids) - 1 for ids in own) for own in batch["comments"]]
