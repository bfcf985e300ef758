"""The score task: PLCC + rank + L1 between predicted and target scores, EMD between distributions.

Shape suffixes: B pictures, P pooled features, K rating bins.
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
from beholder.tasks.base import Batch, Direction, Task
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

    def preparation(self) -> ScorePreparation:
        return ScorePreparation(self)

    def units(self, batch: Batch) -> Tensor:
        return batch["score"].isfinite()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        predictions = [self.gather(tensor) for tensor in self.predict(batch)]
        return self.losses(predictions, [self.gather(tensor) for tensor in self.targets(batch)])

    def predict(self, batch: Batch) -> tuple[Tensor, ...]:
        """Scores [B] in deviations, and with `emd` the probabilities of the rating bins [B, K];
        float32 also under autocast, as correlations need it."""
        pooled_BP, head = self.pooled(batch), self.score_head
        if not self.config.emd:
            return (head.standardised(pooled_BP).float(),)
        probability_BK = head.distribution(pooled_BP).float()
        return head.in_deviations(head.mean_of_bins(probability_BK)), probability_BK

    def targets(self, batch: Batch) -> tuple[Tensor, ...]:
        """Scores [B] on their own scale, and with `emd` the votes' shares [B, K]."""
        return (batch["score"], batch["votes"]) if self.config.emd else (batch["score"],)

    def losses(self, predictions: Sequence[Tensor], targets: Sequence[Tensor]) -> dict[str, Tensor]:
        """The losses of what `predict` gives against what `targets` does."""
        head, config = self.score_head, self.config
        prediction_B, score_B = predictions[0], targets[0]
        # rows without a score are weighted by 0: leaving them out would wait for the device
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
            voted_B = known_B & targets[1].isfinite().all(dim=1)
            parts["emd_loss"] = emd_loss(predictions[1], targets[1], voted_B)
            total = total + config.emd * parts["emd_loss"]
        return {"loss": total, **parts}

    def metrics(self) -> ScoreMetrics:
        return ScoreMetrics(self)


class ScorePreparation:
    """Fits the head's input standardisation and output scale."""

    def __init__(self, task: ScoreTask) -> None:
        self._task = task
        self._features = Moments()
        self._scores: list[Tensor] = []

    def update(self, batch: Batch) -> None:
        if not self._task.warm_start:
            self._features.update(self._task.pooled(batch))
        self._scores.append(batch["score"].detach().cpu())

    def compute(self) -> None:
        """Fit what `prepare` fits.

        Raises:
            TrainingError: no picture has a score.
        """
        scores = torch.cat(self._scores) if self._scores else torch.zeros(0)
        if not scores.isfinite().any():
            raise TrainingError(
                "No training picture has a score.",
                fix="Give the table a column of scores, or leave the score task out.",
            )
        if not self._task.warm_start:
            self._task.score_head.fit_input(self._features)
            self._task.score_head.fit_output(scores)


class ScoreMetrics:
    """plcc, srcc, krcc (-1 to 1; NaN where undefined), rmse (of the table's scale) and the loss
    over all pictures with a score as one batch."""

    def __init__(self, task: ScoreTask) -> None:
        self._task = task
        # per batch: predictions, targets
        self._observations: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = []

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        predictions, targets = self._task.predict(batch), self._task.targets(batch)
        self._observations.append(
            (tuple(tensor.cpu() for tensor in predictions), tuple(t.cpu() for t in targets))
        )

    @torch.no_grad()
    def compute(self) -> dict[str, float]:
        task, head = self._task, self._task.score_head
        observations = task.gather_observations(self._observations)
        if not any(targets[0].isfinite().any() for _, targets in observations):
            return dict.fromkeys(task.directions, math.nan)
        predictions, targets = (
            [torch.cat(parts).to(head.output_mean.device) for parts in zip(*batches, strict=True)]
            for batches in zip(*observations, strict=True)
        )
        known = targets[0].isfinite().cpu().numpy()
        scores_B = predictions[0] * head.output_std + head.output_mean
        predicted = scores_B.cpu().double().numpy()[known]
        target = targets[0].cpu().double().numpy()[known]
        return {
            "loss": float(task.losses(predictions, targets)["loss"]),
            "plcc": plcc(target, predicted),
            "srcc": srcc(target, predicted),
            "krcc": krcc(target, predicted),
            "rmse": rmse(target, predicted),
        }
