"""The attribute task: class-weighted, label-smoothed cross-entropy over the known labels.

Shape suffixes: B pictures, P pooled features, K classes of one attribute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from beholder.errors import TrainingError
from beholder.judge.model import JudgeModel
from beholder.metrics.classification import mean_top1, score_attribute
from beholder.models.heads import AttributeHeads, Moments
from beholder.tasks.base import Batch, Direction, Task
from beholder.tasks.config import AttributesTaskConfig
from beholder.tasks.losses import (
    attribute_loss,
    class_weights,
    effective_weights,
    log_frequencies,
)


class AttributesTask(Task):
    """Fits the attribute heads. Units of the loss are labels: one per picture and attribute.

    Class weights and frequencies come from the training pictures (`prepare`) and are kept with
    the task's state, so that a resumed run has them.
    """

    heads = ("attributes",)
    directions: Mapping[str, Direction] = {
        "top1": "max", "acsa": "max", "macro_f1": "max", "loss": "min",
    }  # fmt: skip

    def __init__(self, model: JudgeModel, config: AttributesTaskConfig | None = None) -> None:
        self.config = config or AttributesTaskConfig()
        super().__init__(model, train_backbone=self.config.train_backbone)
        for index, labels in enumerate(model.classes.values()):
            self.register_buffer(f"class_weights_{index}", torch.ones(len(labels)))
            self.register_buffer(f"log_frequencies_{index}", torch.zeros(len(labels)))

    @property
    def attribute_heads(self) -> AttributeHeads:
        return cast(AttributeHeads, self.model.heads["attributes"])

    @property
    def class_weights(self) -> dict[str, Tensor]:
        """Per attribute the weights of its classes [K], 1 on average over the training labels."""
        return {
            name: self.get_buffer(f"class_weights_{index}")
            for index, name in enumerate(self.model.classes)
        }

    @property
    def log_frequencies(self) -> dict[str, Tensor]:
        """Per attribute the logarithms of its classes' shares of the training labels [K]."""
        return {
            name: self.get_buffer(f"log_frequencies_{index}")
            for index, name in enumerate(self.model.classes)
        }

    def preparation(self) -> AttributesPreparation:
        return AttributesPreparation(self)

    def weights_for(self, counts_K: Tensor) -> Tensor:
        if self.config.class_weights == "effective":
            return effective_weights(counts_K, self.config.effective_beta)
        return class_weights(counts_K, self.config.class_weight_power)

    def units(self, batch: Batch) -> Tensor:
        """Labels of each picture; of a mixed one each of its labels counts by its share."""
        return torch.stack([labels_of(batch, name) for name in self.model.classes]).sum(dim=0)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.attribute_heads(self.pooled(batch))
        losses = [self.label_loss(name, logits_BK, batch) for name, logits_BK in logits.items()]
        total, labels = torch.stack(losses).sum(), self.units(batch).sum()
        return {"loss": total / torch.where(labels > 0, labels, 1.0)}

    def label_loss(self, name: str, logits_BK: Tensor, batch: Batch) -> Tensor:
        """The configured loss of one attribute, summed over its labels; a mixed picture has both
        of its labels, each by its share."""
        if self.config.logit_adjustment:
            logits_BK = logits_BK + self.config.logit_adjustment * self.log_frequencies[name]
        options = (self.class_weights[name], self.config.label_smoothing)
        losses = [
            attribute_loss(logits_BK, target_B, *options, share_B)
            for target_B, share_B in targets_of(batch, name)
        ]
        return torch.stack(losses).sum()

    def metrics(self) -> AttributesMetrics:
        return AttributesMetrics(self)


class AttributesPreparation:
    """Fits the heads' input standardisation, the class weights and the classes' frequencies."""

    def __init__(self, task: AttributesTask) -> None:
        self._task = task
        self._features = Moments()
        self._counts = {
            name: torch.zeros(len(labels)) for name, labels in task.model.classes.items()
        }

    def update(self, batch: Batch) -> None:
        if not self._task.warm_start:
            self._features.update(self._task.pooled(batch))
        for name, count_K in self._counts.items():
            target_B = batch["attributes"][name].cpu()
            count_K += torch.bincount(target_B[target_B >= 0], minlength=len(count_K))

    def compute(self) -> None:
        """Fit what `prepare` fits.

        Raises:
            TrainingError: no picture has a label.
        """
        task = self._task
        if not any(count_K.any() for count_K in self._counts.values()):
            raise TrainingError(
                "No training picture has a label.",
                fix="Give the table attribute columns, or leave the attributes task out.",
            )
        if not task.warm_start:
            task.attribute_heads.fit_input(self._features)
        for name, weights_K in task.class_weights.items():
            weights_K.copy_(task.weights_for(self._counts[name]))
            task.log_frequencies[name].copy_(log_frequencies(self._counts[name]))


class AttributesMetrics:
    """The loss over all labels; top-1, average class-specific accuracy and macro-F1 (0 to 1) as
    means over the attributes, and `top1.<attribute>`; NaN where nothing is labelled."""

    def __init__(self, task: AttributesTask) -> None:
        self._task = task
        # per batch and attribute: name, loss, target and predicted classes
        self._observations: list[tuple[str, float, Tensor, Tensor]] = []

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        logits = self._task.attribute_heads(self._task.pooled(batch))
        for name, logits_BK in logits.items():
            loss = float(self._task.label_loss(name, logits_BK, batch))
            target_B = batch["attributes"][name].cpu()
            self._observations.append((name, loss, target_B, logits_BK.argmax(-1).cpu()))

    def compute(self) -> dict[str, float]:
        task = self._task
        total, labels = 0.0, 0
        targets: dict[str, list[Tensor]] = {name: [] for name in task.model.classes}
        predictions: dict[str, list[Tensor]] = {name: [] for name in task.model.classes}
        for name, loss, target_B, predicted_B in task.gather_observations(self._observations):
            total, labels = total + loss, labels + int((target_B >= 0).sum())
            targets[name].append(target_B)
            predictions[name].append(predicted_B)
        if not labels:
            return dict.fromkeys(task.directions, math.nan)
        scores = {
            name: score_attribute(
                torch.cat(targets[name]).numpy(), torch.cat(predictions[name]).numpy(), classes
            )
            for name, classes in task.model.classes.items()
        }
        return {
            "loss": total / labels,
            "top1": _value(mean_top1(scores)),
            "acsa": _mean([attribute.acsa for attribute in scores.values()]),
            "macro_f1": _mean([attribute.macro_f1 for attribute in scores.values()]),
            **{f"top1.{name}": _value(attribute.top1) for name, attribute in scores.items()},
        }


def targets_of(batch: Batch, name: str) -> list[tuple[Tensor, Tensor | None]]:
    """Class indices [B] with how much each row counts (None: 1); of mixed pictures also those of
    their partners."""
    target_B = batch["attributes"][name]
    if "mixed" not in batch:
        return [(target_B, None)]
    partner_B, share_B = batch["mixed"]["partner"], batch["mixed"]["share"]
    return [(target_B, share_B), (target_B[partner_B], 1.0 - share_B)]


def labels_of(batch: Batch, name: str) -> Tensor:
    """How many labels of an attribute each picture has [B]; of mixed ones each counts by its
    share."""
    counts = [
        (target_B >= 0).float() if share_B is None else share_B * (target_B >= 0)
        for target_B, share_B in targets_of(batch, name)
    ]
    return torch.stack(counts).sum(dim=0)


def _value(value: float | None) -> float:
    return math.nan if value is None else value


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan
