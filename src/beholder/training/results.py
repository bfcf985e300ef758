"""Where a training is and what it came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from beholder.training.meter import Timings

NEVER = -1
"""`evaluated_step` where the weights that a training starts from are to be evaluated."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of the validation pictures after `step` steps, in epoch `epoch` (from 1); step 0: of
    the weights that the training has started from."""

    step: int
    epoch: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrainResult:
    """What a training came to.

    Attributes:
        steps: steps made in all, over all attempts.
        epochs: epochs begun.
        steps_per_epoch: steps of a whole epoch.
        checkpoint: folder of the checkpoint whose weights the task now has.
        metric: name of the monitored metric; None without validation pictures.
        best: the evaluation that was best; None without validation pictures.
        history: all evaluations, in order.
        stopped_early: whether `early_stop` ended it.
        resumed_from: step that this attempt began at, 0 for a new training.
        seconds: that this attempt took.
        timings: what its parts took, and how much memory.
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
    """How far a training has come. With the seed and the tensors of a checkpoint it says all that
    follows.

    Attributes:
        step: steps made.
        evaluated_step: step of the last evaluation.
        best, best_name: the best evaluation and the name of its checkpoint.
        since_best: evaluations since then.
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
