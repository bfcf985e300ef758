"""Which metric decides what is best, in which direction, and when to stop early."""

from __future__ import annotations

import math
from collections.abc import Mapping

from beholder.errors import TrainingError
from beholder.training.config import Mode, TrainConfig
from beholder.training.results import Evaluation, Position


class Monitor:
    """The configured metric, else early stopping's, else the task's first.

    Args:
        directions: the task's metrics and which way they are better.

    Raises:
        TrainingError: the metric has no direction, from neither side.
    """

    def __init__(self, config: TrainConfig, directions: Mapping[str, Mode]) -> None:
        wanted = config.monitor or config.early_stop
        metric = wanted.metric if wanted else next(iter(directions), None)
        if metric is None:
            raise TrainingError(
                "No metric says which checkpoint is best.",
                where="training.monitor",
                fix="Name a metric of the task's evaluation and its mode.",
            )
        mode = wanted.mode if wanted and wanted.mode else directions.get(metric)
        if mode is None:
            raise TrainingError(
                f"The task does not say whether {metric!r} is better high or low.",
                where="training.monitor",
                fix=f"Set mode, or choose one of: {', '.join(directions)}.",
            )
        self.metric = metric
        self.mode: Mode = mode
        self._patience = config.early_stop.patience if config.early_stop else math.inf

    def take(self, evaluation: Evaluation, position: Position, name: str) -> bool:
        """Record an evaluation in `position`; whether it is the best so far.

        Args:
            name: the name of the checkpoint with its weights.

        Raises:
            TrainingError: the evaluation lacks the metric.
        """
        if self.metric not in evaluation.metrics:
            raise TrainingError(
                f"The evaluation has no metric {self.metric!r}.",
                where="training.monitor",
                fix=f"Choose one of: {', '.join(evaluation.metrics)}.",
            )
        better = self._better(evaluation, position.best)
        position.evaluated_step = evaluation.step
        position.history.append(evaluation)
        position.since_best = 0 if better else position.since_best + 1
        if better:
            position.best, position.best_name = evaluation, name
        position.stopped_early = self.gives_up(position)
        return better

    def gives_up(self, position: Position) -> bool:
        """Whether the patience is used up."""
        return position.since_best >= self._patience

    def _better(self, evaluation: Evaluation, best: Evaluation | None) -> bool:
        """Whether an evaluation is better than the best so far: the first always is, NaN never is,
        and a tie with the weights that the training started from counts as better."""
        if best is None or math.isnan(best.metrics[self.metric]):
            return True
        gain = evaluation.metrics[self.metric] - best.metrics[self.metric]
        if self.mode == "min":
            gain = -gain
        return gain > 0 or (gain == 0 and best.step == 0)
