"""The joint task: several tasks on one judge, whose backbone sees every picture once for all.

The loss is sum over tasks t of weight_t * L_t * u_t / U_t, where L_t is the task's own loss (a mean
over units: pictures with a score, labels, words), u_t how many units a picture of this batch brings
on average, and U_t how many one of the training set does. Hence:

- where nothing is missing it is the weighted sum of the tasks' own losses, up to how much the
  batch's pictures differ in units;
- a picture counts the same whatever the other pictures of its batch lack, and a batch without any
  score adds nothing for scores;
- its units are pictures, and the micro-batches of a step add up exactly. For a loss that is a
  statistic of all rows of the step, u_t is of all of them too.

Shape suffixes: B pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from beholder.judge.model import JudgeModel
from beholder.tasks.base import Batch, Task
from beholder.tasks.config import JointTaskConfig


class JointTask(Task):
    """Fits several heads, and the backbone if asked to. Units of the loss are pictures.

    Metrics and logged losses have the name of their task before them, `score.srcc`. `overall` is
    the mean of what each task calls its merit, of those that have something to compare with.

    Args:
        parts: the tasks over the same judge, by name; each trains other heads.
    """

    def __init__(
        self, model: JudgeModel, config: JointTaskConfig, parts: Mapping[str, Task]
    ) -> None:
        self.heads = tuple(head for part in parts.values() for head in part.heads)
        super().__init__(model, train_backbone=config.train_backbone)
        self.weights = {name: config.weight_of(name) for name in parts}
        self.directions = {
            "overall": "max",
            "loss": "min",
            **{
                f"{name}.{metric}": direction
                for name, part in parts.items()
                for metric, direction in part.directions.items()
            },
        }
        for name, part in parts.items():
            part.share_model()
            self.register_buffer(f"units_{name}", torch.ones(()))
        self.tasks = nn.ModuleDict(parts)

    @property
    def parts(self) -> dict[str, Task]:
        return {name: cast(Task, part) for name, part in self.tasks.items()}

    def units(self, batch: Batch) -> Tensor:
        return torch.ones(len(batch["keys"]))

    def preparation(self) -> JointPreparation:
        return JointPreparation(self)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """loss; of every task its share of it before its weight, and its other values."""
        seen = self.with_features(batch)
        outputs: dict[str, Tensor] = {}
        losses = []
        for name, part in self.parts.items():
            part.gather = self.gather
            values = part(seen)
            share = self._share(name, part, batch)
            losses.append(self.weights[name] * share * values["loss"])
            outputs |= {f"{name}.{key}": share * value for key, value in values.items()}
        return {"loss": torch.stack(losses).sum(), **outputs}

    def metrics(self) -> JointMetrics:
        return JointMetrics(self)

    def with_features(self, batch: Batch) -> Batch:
        """The batch with the judge's features of it, which the tasks then read."""
        features = self._features(batch, tokens=self.model.reads_tokens)
        return {**batch, "tokens": features.tokens_BNC, "pooled": features.pooled_BP}

    def _share(self, name: str, part: Task, batch: Batch) -> Tensor:
        """How many units a picture of the batch brings, of how many one of the training set does;
        of the rows that the task's loss is of."""
        units_B = part.units(batch).float()
        if part.uses_all_rows:
            units_B = self.gather(units_B)
        return units_B.mean() / self.get_buffer(f"units_{name}")


class JointPreparation:
    """Prepares all tasks, and counts how many units of each a picture brings."""

    def __init__(self, task: JointTask) -> None:
        self._task = task
        for part in task.parts.values():
            part.warm_start = task.warm_start
        self._parts = [part.preparation() for part in task.parts.values()]
        self._pictures = 0
        self._units = dict.fromkeys(task.parts, 0.0)

    def update(self, batch: Batch) -> None:
        # at a warm start heads keep their standardisation: the tasks look at labels alone
        seen = batch if self._task.warm_start else self._task.with_features(batch)
        for preparation in self._parts:
            preparation.update(seen)
        self._pictures += len(batch["keys"])
        for name, part in self._task.parts.items():
            self._units[name] += part.weight(batch)

    def compute(self) -> None:
        """Fit what `prepare` fits.

        Raises:
            TrainingError: a task has nothing to learn from.
        """
        for preparation in self._parts:
            preparation.compute()
        for name, units in self._units.items():
            self._task.get_buffer(f"units_{name}").fill_(units / self._pictures)


class JointMetrics:
    """Each task's metrics, `overall`, and the weighted sum of the tasks' losses; what is NaN is
    left out of both."""

    def __init__(self, task: JointTask) -> None:
        self._task = task
        for part in task.parts.values():
            part.gather_observations = task.gather_observations
        self._parts = {name: part.metrics() for name, part in task.parts.items()}

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        seen = self._task.with_features(batch)
        for part in self._parts.values():
            part.update(seen)

    def compute(self) -> dict[str, float]:
        metrics = {name: part.compute() for name, part in self._parts.items()}
        merits = [part.merit(metrics[name]) for name, part in self._task.parts.items()]
        losses = [self._task.weights[name] * values["loss"] for name, values in metrics.items()]
        return {
            "overall": _sum(merits) / max(sum(not math.isnan(merit) for merit in merits), 1),
            "loss": _sum(losses),
            **{
                f"{name}.{metric}": value
                for name, values in metrics.items()
                for metric, value in values.items()
            },
        }


def _sum(values: list[float]) -> float:
    """Of those that are known; NaN if none is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) if known else math.nan
