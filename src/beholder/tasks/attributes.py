"""The attribute task: class-weighted, label-smoothed cross-entropy over the known labels; where
several labels of an attribute may hold at once, binary cross-entropy over each of them.

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
from beholder.metrics.classification import AttributeScores, mean_top1, score_attribute
from beholder.metrics.multi_label import (
    MultiLabelScores,
    best_thresholds,
    score_multi_label,
)
from beholder.models.heads import AttributeHeads, Moments
from beholder.tasks.base import Batch, Direction, Task
from beholder.tasks.config import AttributesTaskConfig
from beholder.tasks.losses import (
    attribute_loss,
    class_weights,
    effective_weights,
    log_frequencies,
    multi_label_loss,
)


class AttributesTask(Task):
    """Fits the attribute heads. Units of the loss are labels: one per picture and attribute. Where
    several labels may hold at once, the loss of a unit is the sum over all of them, whose gradient
    is as large as a softmax's: each label's share of what is wrong.

    Class weights and frequencies come from the training pictures (`prepare`) and are kept with
    the task's state, so that a resumed run has them.
    """

    heads = ("attributes",)
    directions: Mapping[str, Direction] = {
        "top1": "max", "acsa": "max", "macro_f1": "max", "loss": "min",
    }  # fmt: skip
    multi_label_directions: Mapping[str, Direction] = {
        "merit": "max", "map": "max", **directions,
    }  # fmt: skip

    def __init__(self, model: JudgeModel, config: AttributesTaskConfig | None = None) -> None:
        self.config = config or AttributesTaskConfig()
        super().__init__(model, train_backbone=self.config.train_backbone)
        if model.multi_label:
            self.directions = self.multi_label_directions
        for index, name in enumerate(model.classes):
            self.register_buffer(f"class_weights_{index}", torch.ones(self.counts_shape(name)))
            self.register_buffer(f"log_frequencies_{index}", torch.zeros(self.counts_shape(name)))

    def counts_shape(self, name: str) -> tuple[int, ...]:
        """[K] for an attribute; [K, 2], that each label does not hold and that it does, where
        several may hold at once."""
        count = len(self.model.classes[name])
        return (count, 2) if name in self.model.multi_label else (count,)

    @property
    def attribute_heads(self) -> AttributeHeads:
        return cast(AttributeHeads, self.model.heads["attributes"])

    @property
    def class_weights(self) -> dict[str, Tensor]:
        """Per attribute the weights of its classes, 1 on average over the training labels; of
        `counts_shape`."""
        return {
            name: self.get_buffer(f"class_weights_{index}")
            for index, name in enumerate(self.model.classes)
        }

    @property
    def log_frequencies(self) -> dict[str, Tensor]:
        """Per attribute the logarithms of its classes' shares of the training labels; of
        `counts_shape`."""
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
        several = name in self.model.multi_label
        if self.config.logit_adjustment:
            shares = self.log_frequencies[name]
            adjustment_K = shares[:, 1] - shares[:, 0] if several else shares
            logits_BK = logits_BK + self.config.logit_adjustment * adjustment_K
        options = (self.class_weights[name], self.config.label_smoothing)
        loss = multi_label_loss if several else attribute_loss
        losses = [
            loss(logits_BK, target, *options, share_B)
            for target, share_B in targets_of(batch, name)
        ]
        return torch.stack(losses).sum()

    def metrics(self) -> AttributesMetrics:
        return AttributesMetrics(self)


class AttributesPreparation:
    """Fits the heads' input standardisation, the class weights and the classes' frequencies."""

    def __init__(self, task: AttributesTask) -> None:
        self._task = task
        self._features = Moments()
        self._counts = {name: torch.zeros(task.counts_shape(name)) for name in task.model.classes}

    def update(self, batch: Batch) -> None:
        if not self._task.warm_start:
            self._features.update(self._task.pooled(batch))
        for name, count_K in self._counts.items():
            target = batch["attributes"][name].cpu()
            known = target[known_rows(target)]
            if count_K.ndim == 2:
                count_K += torch.stack([(known == 0).sum(dim=0), (known > 0).sum(dim=0)], dim=1)
            else:
                count_K += torch.bincount(known, minlength=len(count_K))

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
            counts = self._counts[name].reshape(-1, self._counts[name].shape[-1])
            weights = [task.weights_for(count_K) for count_K in counts]
            weights_K.copy_(torch.stack(weights).reshape_as(weights_K))
            logs = [log_frequencies(count_K) for count_K in counts]
            task.log_frequencies[name].copy_(torch.stack(logs).reshape_as(weights_K))


class AttributesMetrics:
    """The loss over all labels; top-1, average class-specific accuracy and macro-F1 (0 to 1) as
    means over the attributes, and `top1.<attribute>`; NaN where nothing is labelled.

    Where several labels of attributes may hold at once: `map`, their mean of mean average
    precisions, `map.<attribute>`, and `macro_f1.<attribute>` with the thresholds that are best on
    these pictures. `merit` is the mean over all attributes of top-1 or mean average precision.
    """

    def __init__(self, task: AttributesTask) -> None:
        self._task = task
        # per batch and attribute: name, loss, target and predicted classes, or probabilities
        self._observations: list[tuple[str, float, Tensor, Tensor]] = []

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        logits = self._task.attribute_heads(self._task.pooled(batch))
        for name, logits_BK in logits.items():
            loss = float(self._task.label_loss(name, logits_BK, batch))
            several = name in self._task.model.multi_label
            predicted = logits_BK.float().sigmoid() if several else logits_BK.argmax(-1)
            target = batch["attributes"][name].cpu()
            self._observations.append((name, loss, target, predicted.cpu()))

    def compute(self) -> dict[str, float]:
        task = self._task
        total, labels = 0.0, 0
        targets: dict[str, list[Tensor]] = {name: [] for name in task.model.classes}
        predictions: dict[str, list[Tensor]] = {name: [] for name in task.model.classes}
        for name, loss, target, predicted in task.gather_observations(self._observations):
            total, labels = total + loss, labels + int(known_rows(target).sum())
            targets[name].append(target)
            predictions[name].append(predicted)
        if not labels:
            return dict.fromkeys(task.directions, math.nan)
        single: dict[str, AttributeScores] = {}
        several: dict[str, MultiLabelScores] = {}
        for name, classes in task.model.classes.items():
            target, predicted = (torch.cat(of[name]).numpy() for of in (targets, predictions))
            if name in task.model.multi_label:
                thresholds = best_thresholds(target, predicted)
                holding = predicted >= thresholds
                several[name] = score_multi_label(target, holding, predicted, classes)
            else:
                single[name] = score_attribute(target, predicted, classes)
        f1 = [scores.macro_f1 for scores in single.values()]
        f1 += [scores.macro_f1 for scores in several.values()]
        return {
            "loss": total / labels,
            "top1": _value(mean_top1(single)),
            "acsa": _mean([attribute.acsa for attribute in single.values()]),
            "macro_f1": _mean(f1),
            **{f"top1.{name}": _value(attribute.top1) for name, attribute in single.items()},
            **(_of_several(single, several) if several else {}),
        }


def _of_several(
    single: Mapping[str, AttributeScores], several: Mapping[str, MultiLabelScores]
) -> dict[str, float]:
    precisions = {name: scores.mean_average_precision for name, scores in several.items()}
    return {
        "merit": _mean([*(scores.top1 for scores in single.values()), *precisions.values()]),
        "map": _mean(list(precisions.values())),
        **{f"map.{name}": _value(precision) for name, precision in precisions.items()},
        **{f"macro_f1.{name}": _value(scores.macro_f1) for name, scores in several.items()},
    }


def known_rows(target: Tensor) -> Tensor:
    """Of which pictures an attribute is known [B].

    Args:
        target: class indices [B], below 0 where not; or [B, K] 1 and 0, NaN where not.
    """
    return target >= 0 if target.ndim == 1 else (target >= 0).all(dim=1)


def targets_of(batch: Batch, name: str) -> list[tuple[Tensor, Tensor | None]]:
    """Targets [B] or [B, K] with how much each row counts (None: 1); of mixed pictures also those
    of their partners."""
    target = batch["attributes"][name]
    if "mixed" not in batch:
        return [(target, None)]
    partner_B, share_B = batch["mixed"]["partner"], batch["mixed"]["share"]
    return [(target, share_B), (target[partner_B], 1.0 - share_B)]


def labels_of(batch: Batch, name: str) -> Tensor:
    """How many labels of an attribute each picture has [B]; of mixed ones each counts by its
    share."""
    counts = [
        known_rows(target).float() if share_B is None else share_B * known_rows(target)
        for target, share_B in targets_of(batch, name)
    ]
    return torch.stack(counts).sum(dim=0)


def _value(value: float | None) -> float:
    return math.nan if value is None else value


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan
