"""The self-critical task: the head draws comments and makes better ones likelier.

Source: Rennie et al., "Self-critical Sequence Training for Image Captioning", CVPR 2017, with the
rewards of ExpansionNet v2 (Hu, Cavicchioli & Capotondi, arXiv 2208.06551): CIDEr-D, the end of a
comment inside both reward and log-probability. Departures from the published training:

- Drawing has no gradient and uses the cached decoder; one teacher-forced pass over the drawn
  comments has the gradient. The published code back-propagates through every step of drawing.
- The pass with gradient must be over the distribution that was drawn from. Both passes share the
  encoder's output, so dropout of the encoder and of the fusion behind it (and the backbone's own)
  is as published; the decoder's dropout, which would make drawing word by word necessary, is off.
  `train` switches it off, `forward` changes no mode.
- A picture is encoded once for all its samples, and pictures without a comment are left out.

Randomness: comments are drawn with torch's default CPU generator, whose state is in every
checkpoint, separately for each process.

Shape suffixes: B pictures that have comments, N tokens of a picture, C their features, D model
width, S samples of a picture, R = B * S samples, T positions, M words of all samples.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beholder.data.vocabulary import EOS, comment_words
from beholder.decoding import Hypothesis, sample_memory
from beholder.errors import TrainingError
from beholder.features.device import send
from beholder.judge.model import JudgeModel
from beholder.metrics.captions import CiderD
from beholder.tasks.base import Batch, Direction
from beholder.tasks.comments import CommentMetrics, CommentTask, ends_badly, pack_comments
from beholder.tasks.config import SelfCriticalTaskConfig
from beholder.tasks.losses import self_critical_loss

BAD_ENDINGS_ALARM = 0.05
NO_END_ALARM = 0.2

log = logging.getLogger("beholder")


class SelfCriticalTask(CommentTask):
    """Raises the CIDEr-D of drawn comments. Units of the loss are pictures with comments.

    Args:
        model: its comment head should have been trained with cross-entropy.
        references: image key -> the comments of every training picture, as people wrote them; they
            are also the corpus of the document frequencies.

    Attributes:
        references: image key -> the normalised words of its comments, each with its end; pictures
            without any are left out.

    Raises:
        TrainingError: no comment has a word.
    """

    directions: Mapping[str, Direction] = {"CIDEr-D": "max", "cross_entropy": "min"}

    def __init__(
        self,
        model: JudgeModel,
        config: SelfCriticalTaskConfig | None,
        references: Mapping[str, Sequence[str]],
    ) -> None:
        self.config = config or SelfCriticalTaskConfig()
        super().__init__(model, self.config)
        self.sample_length = min(self.config.sample_length, model.comment.config.max_length)
        tokenised = {key: _reference_tokens(comments) for key, comments in references.items()}
        self.references = {key: comments for key, comments in tokenised.items() if comments}
        corpus = list(self.references.values())
        if not corpus:
            raise TrainingError(
                "No training picture has a comment.",
                fix="Give the table comments, or leave the self_critical stage out.",
            )
        lengths = [len(self.vocabulary.encode(tokens[:-1])) for group in corpus for tokens in group]
        longer = sum(length - 1 > self.sample_length for length in lengths)
        if longer:
            log.warning(
                "%d of %d comments are longer than the %d words that are drawn at most; raise "
                "sample_length to reward whole comments.",
                *(longer, len(lengths), self.sample_length),
            )
        self._picture = {key: index for index, key in enumerate(self.references)}
        self._cider = CiderD(corpus)

    def train(self, mode: bool = True) -> SelfCriticalTask:
        """As for every task, but dropout of the decoder stays off: see the top of the file."""
        super().train(mode)
        head = self.model.comment
        decoder: list[nn.Module] = [head.decoder, head.decoder_fusion, head.decoder_input_dropout]
        for module in decoder:
            module.eval()
        return self

    def units(self, batch: Batch) -> Tensor:
        return torch.tensor([float(key in self._picture) for key in batch["keys"]])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """loss; reward: mean CIDEr-D of the samples, 0 to 10; log_prob: mean per drawn word;
        bad_endings, no_end: shares of the samples that end on a word like "the", or not at all."""
        rows = [row for row, key in enumerate(batch["keys"]) if key in self._picture]
        tokens_BNC = self.tokens(batch)
        if len(rows) < len(tokens_BNC):
            tokens_BNC = tokens_BNC[send(torch.tensor(rows, dtype=torch.int64), tokens_BNC.device)]
        memory_BND = self.model.comment.encode(tokens_BNC)
        if not rows:
            return {"loss": memory_BND.sum() * 0.0}
        samples = self.draw(memory_BND)
        reward_BS = self.reward([batch["keys"][row] for row in rows], samples)
        log_prob_BS, words = self._log_probs(memory_BND, samples)
        drawn = [sample.tokens for group in samples for sample in group]
        ended = [tokens for tokens in drawn if tokens[-1] == self.vocabulary.eos]
        bad = sum(ends_badly(self.vocabulary.words(tokens)) for tokens in ended)
        return {
            "loss": self_critical_loss(
                log_prob_BS, send(reward_BS.to(log_prob_BS.dtype), log_prob_BS.device)
            ),
            "reward": reward_BS.mean(),
            "log_prob": log_prob_BS.detach().sum() / words,
            "bad_endings": torch.tensor(bad / reward_BS.numel()),
            "no_end": torch.tensor(1 - len(ended) / reward_BS.numel()),
        }

    def metrics(self) -> SelfCriticalMetrics:
        return SelfCriticalMetrics(self)

    def alarms(self, before: Mapping[str, float] | None, now: Mapping[str, float]) -> list[str]:
        alarms = []
        if before and now["reward"] < before["reward"]:
            alarms.append(f"the reward fell from {before['reward']:.4f} to {now['reward']:.4f}")
        if now["bad_endings"] > BAD_ENDINGS_ALARM:
            share = now["bad_endings"]
            alarms.append(f"{share:.1%} of the drawn comments end on a word like 'a' or 'the'")
        if now["no_end"] > NO_END_ALARM:
            alarms.append(
                f"{now['no_end']:.1%} of the drawn comments do not end within "
                f"{self.sample_length} words"
            )
        return alarms

    def draw(self, memory_BND: Tensor) -> list[list[Hypothesis]]:
        """S comments for each picture, without gradient."""
        return sample_memory(
            self.model.comment,
            memory_BND.detach(),
            n=self.config.samples,
            max_length=self.sample_length,
            bos=self.vocabulary.bos,
            eos=self.vocabulary.eos,
        )

    def reward(self, keys: Sequence[str], samples: Sequence[Sequence[Hypothesis]]) -> Tensor:
        """CIDEr-D of every sample against its picture's comments: float64 [B, S] on the CPU."""
        tokens = [self.vocabulary.spell(sample.tokens) for group in samples for sample in group]
        pictures = [self._picture[key] for key in keys]
        scores = self._cider.score(tokens, [p for p in pictures for _ in range(len(samples[0]))])
        return torch.as_tensor(scores).reshape(len(keys), -1)

    def _log_probs(
        self, memory_BND: Tensor, samples: Sequence[Sequence[Hypothesis]]
    ) -> tuple[Tensor, int]:
        """Log-probability of every sample [B, S], with gradient, and the number of words."""
        model = self.model.comment
        packed = pack_comments(
            [[sample.tokens for sample in group] for group in samples], self.vocabulary.pad
        )
        drawn = packed.sent(memory_BND.device)
        states_RTD = model.decode_states(memory_BND, drawn.input_RT, picture_index=drawn.picture_R)
        logits_MV = model.output(states_RTD.flatten(0, 1)[drawn.position_M])
        log_prob_M = -F.cross_entropy(logits_MV.float(), drawn.target_M, reduction="none")
        rows, longest = drawn.input_RT.shape
        log_prob_R = log_prob_M.new_zeros(rows).index_add(
            0, drawn.position_M // longest, log_prob_M
        )
        return log_prob_R.reshape(len(samples), -1), len(log_prob_M)


class SelfCriticalMetrics(CommentMetrics):
    """As of every task of the comment head; the cross-entropy has its own name, for it is not what
    is trained, and it rises as the head becomes surer of itself."""

    def compute(self) -> dict[str, float]:
        metrics = super().compute()
        metrics["cross_entropy"] = metrics.pop("loss", math.nan)
        return metrics


def _reference_tokens(comments: Sequence[str]) -> list[list[str]]:
    """Normalised comments, each with its end; those without a word are left out."""
    words = [comment_words(comment) for comment in comments]
    return [[*tokens, EOS] for tokens in words if tokens]
