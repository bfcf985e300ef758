"""What a training will take, from what a few steps of it have taken."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from beholder.pipeline.cost import Cost, folder_bytes, overlapped
from beholder.pipeline.stages.base import SmokeRun
from beholder.training.config import TrainConfig

if TYPE_CHECKING:
    from beholder.training import TrainResult


def smoke_training(training: TrainConfig, steps: int, *, checkpoints: int) -> TrainConfig:
    """The training of a smoke run: a few steps, which leave so many checkpoints, 0: what it needs
    itself."""
    return training.model_copy(
        update={
            "epochs": 1, "max_steps": steps, "early_stop": None,
            "evaluate_every": 1, "evaluate_every_steps": None,
            "save_every_minutes": None, "save_every_epochs": None,
            "save_every_steps": 1 if checkpoints > 1 else None, "keep": max(1, checkpoints),
        }
    )  # fmt: skip


def training_timings(result: TrainResult) -> dict[str, float]:
    """What a training has measured of itself, and the seconds of all of it."""
    measured = {name: value for name, value in asdict(result.timings).items() if value is not None}
    return {**measured, "training_seconds": result.seconds}


def training_cost(
    smoke: SmokeRun,
    training: TrainConfig,
    *,
    trained: int,
    validated: int,
    loading: float,
    workers: int,
    warm_start: bool = False,
    teacher_views: int = 0,
) -> Cost:
    """Steps, evaluations and checkpoints, each as often as there will be; early stopping, which
    nobody can foresee, is left out.

    Args:
        smoke: a training of a few steps, with `training_timings`.
        training: the whole one.
        trained, validated: pictures to train on, and to evaluate on.
        loading: seconds that one process takes to load what a step sees.
        workers: processes that do; 0: none beside the training's own.
        warm_start: whether the weights to start from are evaluated, too.
        teacher_views: views of pictures that a teacher is asked about beforehand.
    """
    timings = smoke.result.timings
    per_epoch = -(-trained // (training.batch_size * training.accumulate))
    steps = min(training.epochs * per_epoch, training.max_steps or training.epochs * per_epoch)
    step = timings["step_seconds"]
    if workers:
        step = max(step, overlapped(loading, step, workers))
    evaluated = _evaluated_after(training, steps, per_epoch) if validated else set()
    if warm_start:
        evaluated.add(0)
    saved = _saved_after(training, steps, per_epoch)
    per_picture = timings.get("evaluation_seconds", 0.0) / max(
        1, timings.get("evaluated_pictures", 1)
    )
    # what every other evaluation finds is the best so far
    saves = len(saved) + len(evaluated - saved) / 2
    saving = timings.get("save_seconds", 0.0)
    prepared = timings.get("prepare_seconds", 0.0) / max(1, timings.get("prepared_pictures", 1))
    rest = smoke.cost.seconds - timings["training_seconds"]
    seconds = (
        max(0.0, rest)
        + prepared * trained
        + timings["first_step_seconds"]
        + step * (steps - 1)
        + per_picture * validated * len(evaluated)
        + saving * saves
        + timings.get("teacher_seconds_per_view", 0.0) * teacher_views
    )
    kept = min(training.keep + 1, len(saved | evaluated))
    disk = (
        kept * timings.get("checkpoint_bytes", 0)
        + sum(folder_bytes(path) for path, _ in smoke.result.outputs.values())
        + timings.get("teacher_bytes_per_view", 0.0) * teacher_views
    )
    return Cost(seconds, smoke.cost.host_bytes, smoke.cost.device_bytes, round(disk))


def _evaluated_after(training: TrainConfig, steps: int, steps_per_epoch: int) -> set[int]:
    """The steps after which a training is evaluated."""
    every = (training.evaluate_every * steps_per_epoch, training.evaluate_every_steps)
    return _multiples(every, steps) | {steps}


def _saved_after(training: TrainConfig, steps: int, steps_per_epoch: int) -> set[int]:
    """The steps after which a training is saved, whatever evaluations say; not by the clock."""
    epochs = training.save_every_epochs
    every = (epochs and epochs * steps_per_epoch, training.save_every_steps)
    return _multiples(every, steps) | {steps}


def _multiples(numbers: Iterable[int | None], most: int) -> set[int]:
    return {
        multiple for number in numbers if number for multiple in range(number, most + 1, number)
    }
