"""The position of a training and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from beholder.training.meter import Timings

NEVER = -1
"""`evaluated_step` where the weights of a warm start are still to be evaluated."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of the validation pictures after `step` steps, in epoch `epoch` (from 1); at step 0
    those of the weights that the training started from."""

    step: int
    epoch: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    Attributes:
        steps: number of steps, over all attempts.
        epochs: number of epochs begun.
        steps_per_epoch: steps of a whole epoch.
        checkpoint: folder of the checkpoint whose weights the task has now.
        metric: name of the monitored metric; None without validation pictures.
        best: the evaluation that was best; None without validation pictures.
        history: all evaluations, in order.
        stopped_early: whether `early_stop` ended it.
        resumed_from: step that this attempt began at, 0 for a new training.
        seconds: duration of this attempt.
        timings: durations of its parts, and memory.
    """

    steps: int
    epochs: int
    steps_per_epoch: int
    checkpoint: Path
    metric: str | None
    best: Evaluation | None
    history: tuple[Evaluation, ...]
    stopped_early: bool
    resumed_from: int
    seconds: float
    timings: Timings


@dataclass
class Position:
    """How far a training has come. With the seed and a checkpoint's tensors it determines
    everything that follows.

    Attributes:
        step: steps made.
        evaluated_step: step of the last evaluation.
        best, best_name: the best evaluation and the name of its checkpoint.
        since_best: number of evaluations since the best.
    """

    step: int = 0
    evaluated_step: int = 0
    history: list[Evaluation] = field(default_factory=list)
    best: Evaluation | None = None
    best_name: str | None = None
    since_best: int = 0
    stopped_early: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Position:
        position = cls(**values)
        position.history = [Evaluation(**entry) for entry in values["history"]]
        position.best = Evaluation(**values["best"]) if values["best"] else None
        return position
