"""Several checkpoints of one train stage: their mean ("soup"), or one by one for an ensemble.

Source of the mean: Wortsman et al., "Model soups", ICML 2022; of checkpoints of one training:
Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from beholder.errors import CheckpointError, RecipeError
from beholder.training.checkpoints import (
    CHECKPOINTS,
    CheckpointFolder,
    checkpoint_name,
    load_checkpoint,
)
from beholder.training.config import TrainConfig

State = dict[str, Tensor]


def newest_states(folder: Path, count: int, *, with_backbone: bool) -> list[State]:
    """Tensors of the judge's model in the newest `count` checkpoints, newest first; averaged ones
    (EMA) where there are.

    Args:
        folder: the train stage's.
        with_backbone: the backbone's tensors too, for a stage that has trained it.

    Raises:
        CheckpointError: there are fewer, or one is damaged.
    """
    paths = CheckpointFolder(folder / CHECKPOINTS, keep=count).steps()
    if len(paths) < count:
        raise CheckpointError(
            f"There are {len(paths)} checkpoints; {count} are wanted.",
            where=str(folder / CHECKPOINTS),
            fix="Ask for fewer, or train again with a higher keep and a lower save_every_steps.",
        )
    return [_model_state(path, with_backbone=with_backbone) for path in reversed(paths[-count:])]


def epoch_state(folder: Path, epoch: int, steps: int, *, with_backbone: bool) -> State:
    """The same of the checkpoint at the end of an epoch, from 1, of `steps` steps each.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    wanted = checkpoint_name(epoch * steps, evaluation_due=False)
    for path in CheckpointFolder(folder / CHECKPOINTS, keep=1).steps():
        if path.name == wanted:
            return _model_state(path, with_backbone=with_backbone)
    raise CheckpointError(
        f"There is no checkpoint of epoch {epoch}.",
        where=str(folder / CHECKPOINTS / wanted),
        fix="Train again with save_every_epochs: 1 and keep as high as the epochs.",
    )


def _model_state(path: Path, *, with_backbone: bool) -> State:
    tensors = load_checkpoint(path).tensors
    merged = {**tensors["weights"], **tensors.get("ema", {})}
    return {
        name.removeprefix("model."): tensor
        for name, tensor in merged.items()
        if name.startswith("model.") and (with_backbone or not name.startswith("model.backbone."))
    }


def mean_state(states: list[State]) -> State:
    """The mean of every tensor; of whole numbers the first state's."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(first.dtype)
        if first.is_floating_point()
        else first
        for name, first in states[0].items()
    }


def check_enough(training: TrainConfig, name: str, pictures: int, count: int, where: str) -> None:
    """Make sure, before anything is trained, that there will be `count` checkpoints.

    Raises:
        RecipeError: there will not, or it depends on the clock.
    """
    steps = training.epochs * -(-pictures // (training.batch_size * training.accumulate))
    steps = min(steps, training.max_steps or steps)
    every = training.save_every_steps
    if training.keep >= count and every and -(-steps // every) >= count:
        return
    raise RecipeError(
        f"{count} checkpoints of {name!r} are wanted; it keeps {training.keep} and "
        + (f"saves every {every} of {steps} steps." if every else "saves by the clock only."),
        where=where,
        fix=f"Set its training.keep to {count} or more, and training.save_every_steps to "
        f"{max(1, steps // count)} or less.",
    )
