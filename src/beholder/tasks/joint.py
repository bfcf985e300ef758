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
from beholder.tasks.base import Batch, Collector, Task, finish
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

    def preparing(self) -> Collector[None]:
        """Prepare all tasks, and count how many units of each a picture brings.

        Raises:
            TrainingError: a task has nothing to learn from.
        """
        for part in self.parts.values():
            part.warm_start = self.warm_start
        collectors = [part.preparing() for part in self.parts.values()]
        for collector in collectors:
            next(collector)
        pictures, units = 0, dict.fromkeys(self.parts, 0.0)
        while (batch := (yield)) is not None:
            # heads that go on keep what they expect of their input: they look at labels alone
            seen = batch if self.warm_start else self._with_features(batch)
            for collector in collectors:
                collector.send(seen)
            pictures += len(batch["keys"])
            for name, part in self.parts.items():
                units[name] += part.weight(batch)
        for collector in collectors:
            finish(collector)
        for name, total in units.items():
            self.get_buffer(f"units_{name}").fill_(total / pictures)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """loss; of every task its share of it, before its weight, and what else it tells."""
        seen = self._with_features(batch)
        outputs: dict[str, Tensor] = {}
        losses = []
        for name, part in self.parts.items():
            part.gather = self.gather
            told = part(seen)
            share = self._share(name, part, batch)
            losses.append(self.weights[name] * share * told["loss"])
            outputs |= {f"{name}.{key}": share * value for key, value in told.items()}
        return {"loss": torch.stack(losses).sum(), **outputs}

    def evaluating(self) -> Collector[dict[str, float]]:
        """Each task's metrics, `overall`, and the weighted sum of the tasks' losses; what is NaN
        is left out of both."""
        for part in self.parts.values():
            part.gather_observations = self.gather_observations
        collectors = {name: part.evaluating() for name, part in self.parts.items()}
        for collector in collectors.values():
            next(collector)
        while (batch := (yield)) is not None:
            with torch.no_grad():
                seen = self._with_features(batch)
            for collector in collectors.values():
                collector.send(seen)
        found = {name: finish(collector) for name, collector in collectors.items()}
        merits = [part.merit(found[name]) for name, part in self.parts.items()]
        losses = [self.weights[name] * metrics["loss"] for name, metrics in found.items()]
        return {
            "overall": _sum(merits) / max(sum(not math.isnan(merit) for merit in merits), 1),
            "loss": _sum(losses),
            **{
                f"{name}.{metric}": value
                for name, metrics in found.items()
                for metric, value in metrics.items()
            },
        }

    def _with_features(self, batch: Batch) -> Batch:
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


def _sum(values: list[float]) -> float:
    """Of those that are known; NaN if none is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) if known else math.nan
