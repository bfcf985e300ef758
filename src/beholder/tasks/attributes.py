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
from beholder.tasks.base import Batch, Collector, Direction, Task
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

    def preparing(self) -> Collector[None]:
        """Fit the heads' input standardisation, the class weights and the classes' frequencies.

        Raises:
            TrainingError: no picture has a label.
        """
        features = Moments()
        counts = {name: torch.zeros(len(labels)) for name, labels in self.model.classes.items()}
        while (batch := (yield)) is not None:
            if not self.warm_start:
                features.update(self.pooled(batch))
            for name, count_K in counts.items():
                target_B = batch["attributes"][name].cpu()
                count_K += torch.bincount(target_B[target_B >= 0], minlength=len(count_K))
        if not any(count_K.any() for count_K in counts.values()):
            raise TrainingError(
                "No training picture has a label.",
                fix="Give the table attribute columns, or leave the attributes task out.",
            )
        if not self.warm_start:
            self.attribute_heads.fit_input(features)
        for name, weights_K in self.class_weights.items():
            weights_K.copy_(self._weights(counts[name]))
            self.log_frequencies[name].copy_(log_frequencies(counts[name]))

    def _weights(self, counts_K: Tensor) -> Tensor:
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

    @torch.no_grad()
    def evaluating(self) -> Collector[dict[str, float]]:
        """The loss over all labels; top-1, average class-specific accuracy and macro-F1 (0 to 1)
        as means over the attributes, and `top1.<attribute>`; NaN where nothing is labelled."""
        noted: list[tuple[str, float, Tensor, Tensor]] = []  # name, loss, given and guessed classes
        while (batch := (yield)) is not None:
            logits = self.attribute_heads(self.pooled(batch))
            for name, logits_BK in logits.items():
                target_B = batch["attributes"][name]
                loss = float(self.label_loss(name, logits_BK, batch))
                noted.append((name, loss, target_B.cpu(), logits_BK.argmax(-1).cpu()))
        noted = self.gather_observations(noted)
        total, labels = 0.0, 0
        given: dict[str, list[Tensor]] = {name: [] for name in self.model.classes}
        guessed: dict[str, list[Tensor]] = {name: [] for name in self.model.classes}
        for name, loss, target_B, guess_B in noted:
            total, labels = total + loss, labels + int((target_B >= 0).sum())
            given[name].append(target_B)
            guessed[name].append(guess_B)
        if not labels:
            return dict.fromkeys(self.directions, math.nan)
        scores = {
            name: score_attribute(
                torch.cat(given[name]).numpy(), torch.cat(guessed[name]).numpy(), classes
            )
            for name, classes in self.model.classes.items()
        }
        return {
            "loss": total / labels,
            "top1": _value(mean_top1(scores)),
            "acsa": _mean([one.acsa for one in scores.values()]),
            "macro_f1": _mean([one.macro_f1 for one in scores.values()]),
            **{f"top1.{name}": _value(one.top1) for name, one in scores.items()},
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
