"""The score task: PLCC + rank + L1 between predicted and given scores, EMD between distributions.

Shape suffixes: B pictures, P pooled features, K grades.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from beholder.errors import TrainingError
from beholder.judge.model import JudgeModel
from beholder.metrics.correlation import krcc, plcc, rmse, srcc
from beholder.models.heads import Moments, ScoreHead
from beholder.tasks.base import Batch, Collector, Direction, Task
from beholder.tasks.config import ScoreTaskConfig
from beholder.tasks.losses import emd_loss, pairwise_rank_loss, plcc_loss


class ScoreTask(Task):
    """Fits the score head. Units of the loss are pictures with a score.

    Losses are of scores in deviations from their training mean, so that the weights in the config
    mean the same on every scale. Correlation and rank are taken within a batch, over all
    processes.
    """

    heads = ("score",)
    directions: Mapping[str, Direction] = {
        "srcc": "max", "plcc": "max", "krcc": "max", "rmse": "min", "loss": "min",
    }  # fmt: skip
    uses_all_rows = True

    def __init__(self, model: JudgeModel, config: ScoreTaskConfig | None = None) -> None:
        self.config = config or ScoreTaskConfig()
        super().__init__(model, train_backbone=self.config.train_backbone)

    @property
    def score_head(self) -> ScoreHead:
        return cast(ScoreHead, self.model.heads["score"])

    def preparing(self) -> Collector[None]:
        """Fit the head's input standardisation and output scale.

        Raises:
            TrainingError: no picture has a score.
        """
        features, scores = Moments(), []
        while (batch := (yield)) is not None:
            if not self.warm_start:
                features.update(self.pooled(batch))
            scores.append(batch["score"].detach().cpu())
        known = torch.cat(scores) if scores else torch.zeros(0)
        if not known.isfinite().any():
            raise TrainingError(
                "No training picture has a score.",
                fix="Give the table a column of scores, or leave the score task out.",
            )
        if not self.warm_start:
            self.score_head.fit_input(features)
            self.score_head.fit_output(known)

    def units(self, batch: Batch) -> Tensor:
        return batch["score"].isfinite()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        predicted = [self.gather(part) for part in self._predict(batch)]
        return self._losses(predicted, [self.gather(part) for part in self._given(batch)])

    def _predict(self, batch: Batch) -> tuple[Tensor, ...]:
        """Scores [B] in deviations, and with `emd` the probabilities of the grades [B, K];
        float32 also under autocast, as correlations need it."""
        pooled_BP, head = self.pooled(batch), self.score_head
        if not self.config.emd:
            return (head.standardised(pooled_BP).float(),)
        probability_BK = head.distribution(pooled_BP).float()
        return head.in_deviations(head.mean_grade(probability_BK)), probability_BK

    def _given(self, batch: Batch) -> tuple[Tensor, ...]:
        """Scores [B] on their own scale, and with `emd` the votes' shares [B, K]."""
        return (batch["score"], batch["votes"]) if self.config.emd else (batch["score"],)

    def _losses(self, predicted: Sequence[Tensor], given: Sequence[Tensor]) -> dict[str, Tensor]:
        """The losses of what `_predict` says against what `_given` does."""
        head, config = self.score_head, self.config
        prediction_B, score_B = predicted[0], given[0]
        # Rows without a score are weighed by 0: to leave them out would wait for the device.
        known_B = score_B.isfinite()
        target_B = head.in_deviations(score_B).where(known_B, 0.0)
        distance_B = F.smooth_l1_loss(
            prediction_B, target_B, beta=config.smooth_l1, reduction="none"
        )
        parts = {
            "plcc_loss": plcc_loss(prediction_B, target_B, known_B),
            "rank_loss": pairwise_rank_loss(prediction_B, target_B, known_B),
            "l1_loss": (distance_B * known_B).sum() / known_B.sum().clamp_min(1),
        }
        total = (
            config.plcc * parts["plcc_loss"]
            + config.rank * parts["rank_loss"]
            + config.l1 * parts["l1_loss"]
        )
        if config.emd:
            voted_B = known_B & given[1].isfinite().all(dim=1)
            parts["emd_loss"] = emd_loss(predicted[1], given[1], voted_B)
            total = total + config.emd * parts["emd_loss"]
        return {"loss": total, **parts}

    @torch.no_grad()
    def evaluating(self) -> Collector[dict[str, float]]:
        """plcc, srcc, krcc (-1 to 1; NaN where undefined), rmse (of the table's scale) and the
        loss over all pictures with a score as one batch."""
        parts = []
        while (batch := (yield)) is not None:
            told = (self._predict(batch), self._given(batch))
            parts.append(tuple(tuple(tensor.cpu() for tensor in part) for part in told))
        parts = self.gather_observations(parts)
        if not any(given[0].isfinite().any() for _, given in parts):
            return dict.fromkeys(self.directions, math.nan)
        device = self.score_head.output_mean.device
        predicted, given = (
            [torch.cat(batches).to(device) for batches in zip(*part, strict=True)]
            for part in zip(*parts, strict=True)
        )
        prediction_B, score_B = predicted[0], given[0]
        known = score_B.isfinite().cpu().numpy()
        head = self.score_head
        ours = (prediction_B * head.output_std + head.output_mean).cpu().double().numpy()[known]
        theirs = score_B.cpu().double().numpy()[known]
        return {
            "loss": float(self._losses(predicted, given)["loss"]),
            "plcc": plcc(theirs, ours),
            "srcc": srcc(theirs, ours),
            "krcc": krcc(theirs, ours),
            "rmse": rmse(theirs, ours),
        }
